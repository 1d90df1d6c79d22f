"""``make soak``: 20,000 steps of a tiny student from a warm cache, with checkpoints and evaluations; memory and file
handles must stay flat after the first tenth."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

import tiny
from railkd.teacher import TeacherCache


def anonymous_memory() -> float:
    """MB of memory that is not file pages."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


class Meter(TrainerCallback):
    def __init__(self, every: int) -> None:
        self.every, self.read = every, list[tuple[int, float, int]]()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        if state.global_step % self.every == 0:
            found = (state.global_step, anonymous_memory(), len(os.listdir("/proc/self/fd")))
            self.read.append(found)
            print("step {:>6,}: {:7.1f} MB anonymous, {} file handles".format(*found), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, teacher, rows = tiny.make_tokenizer(), tiny.make_model(4), tiny.text_rows(400)
    with tempfile.TemporaryDirectory() as name:
        cache = TeacherCache.build(teacher, rows, Path(name) / "cache", tokenizer=tokenizer)
        meter = Meter(max(1, chosen.steps // 20))
        trainer = tiny.make_trainer(
            Path(name) / "out",
            cache,
            rows,
            tokenizer,
            student=tiny.make_small(teacher, 2),
            eval_dataset=rows.select(range(40)),
            callbacks=[meter],
            max_steps=chosen.steps,
            save_strategy="steps",
            save_steps=500,
            save_total_limit=2,
            eval_strategy="steps",
            eval_steps=500,
            logging_steps=100,
        )
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    warm = [found for found in meter.read if found[0] >= chosen.steps // 10]
    grown, handles = warm[-1][1] - warm[0][1], warm[-1][2] - warm[0][2]
    print(
        f"{chosen.steps:,} steps in {seconds:.0f} s; after a tenth of them memory grew by {grown:.1f} MB of "
        f"{warm[0][1]:.1f}, handles by {handles}"
    )
    return int(grown > 0.05 * warm[0][1] or handles > 0)


if __name__ == "__main__":
    sys.exit(main())
