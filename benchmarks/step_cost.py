"""What a step of distillation costs beside one of plain fine-tuning, and how long the command line takes to start.

    python benchmarks/step_cost.py                  # steps and start, about four minutes on two cores
    python benchmarks/step_cost.py --part sharing   # two runs on one machine: at once, or one after the other

Steps: one student (--pair: 6 of 12 random blocks, or the demo's MiniLM, 3 of its 6), real sentences, batch 32, one
process. Every method takes the same batches in turn, so that noise of the machine falls on all alike; a ratio is the
median over batches of (step of the method / step of fine-tuning on the same batch), its interval a bootstrap over
batches.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import work

DEFAULT_METHODS = ("rail-kd-l", "rail-kd-c", "kd")
#: Methods measured side by side, each with a student and optimizer of its own: all at once would want 5 GB.
GROUP = 6


def steps(methods: tuple[str, ...], batches: int, bf16: bool, pair: str) -> dict[str, Any]:
    """Median step time of each method over that of fine-tuning, from a warm cache."""
    import torch
    from datasets import Dataset

    from railkd import checkpoints, hardware
    from railkd.distiller import Distiller
    from railkd.examples import PaddingCollator, keyed_tokens
    from railkd.objectives import METHODS
    from railkd.teacher import TeacherCache
    from railkd.training.negatives import Negatives

    hardware.keep_freed_memory()  # as every run does
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work.prepare(folder, pair, 32 * 24)
        table, _ = work.read(folder)
        rows = Dataset.from_list(table)
        labels = list(rows["label"])
        student, tokenizer = (
            checkpoints.load_classifier(folder / "student"),
            checkpoints.load_tokenizer(folder / "student"),
        )
        cache = TeacherCache.build(folder / "teacher", rows, folder / "cache", pooling=("mean", "cls"), bf16=bf16)
        tokens = keyed_tokens(rows, tokenizer, max_length=128)
        cache(_keys(tokens.keys), "mean"), cache(_keys(tokens.keys), "cls")  # warm: every checksum is behind us
        order = np.argsort(tokens.lengths)
        collate = PaddingCollator(tokenizer)
        table = [
            {n: v[i] for n, v in tokens.inputs.items()} | {"example_key": tokens.keys[i], "labels": labels[i]}
            for i in order
        ]
        rng = np.random.default_rng(0)
        bases: list[float] = []
        results: dict[str, Any] = {}
        for first in range(0, len(methods), GROUP):
            group = methods[first : first + GROUP]
            runs = {}
            for name in ("finetune", *group):
                distiller = Distiller.from_method(name, copy.deepcopy(student), cache.info.shape).train()
                if distiller.objective.needs_fit:
                    distiller.objective.fit(cache.moments("mean"))
                optimizer = torch.optim.AdamW(
                    [p for p in distiller.parameters() if p.requires_grad], lr=1e-5, fused=True
                )
                count = distiller.objective.negatives
                negatives = (
                    Negatives(cache, tokens.keys, labels, pooling="mean", count=count, seed=0) if count else None
                )
                runs[name] = (distiller, optimizer, negatives)
            taken: dict[str, list[float]] = {name: [] for name in runs}
            for step in range(batches + 3):  # three to warm up
                start_row = int(rng.integers(len(table) // 32)) * 32
                for name in rng.permutation(list(runs)):
                    distiller, optimizer, negatives = runs[name]
                    start = time.perf_counter()
                    batch = collate(table[start_row : start_row + 32])
                    keys = {"example_key": batch.pop("example_key")}
                    if METHODS[name].needs_teacher:
                        signals = cache(keys, distiller.pooling)
                        draw = distiller.objective.draw(0, epoch=step, step=step)
                        batch |= {"teacher_logits": signals.logits, "teacher_states": signals.states}
                        batch["draw"] = torch.tensor(draw) if draw else None
                        if negatives is not None:
                            batch |= negatives({**keys, "labels": batch["labels"]}, step=step)
                    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                        loss = distiller(**batch)[0]
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(distiller.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
                    if step >= 3:
                        taken[name].append(time.perf_counter() - start)
            base = np.asarray(taken["finetune"])
            bases += taken["finetune"]
            for name in group:
                ratio = np.asarray(taken[name]) / base
                draws = np.median(rng.choice(ratio, (2000, len(ratio))), axis=1)
                results[name] = {
                    "ms": round(1000 * float(np.median(taken[name])), 1),
                    "ratio": round(float(np.median(ratio)), 3),
                    "interval_95": [round(float(q), 3) for q in np.quantile(draws, [0.025, 0.975])],
                    "ratio_of_medians": round(float(np.median(taken[name]) / np.median(base)), 3),
                }
    return {"finetune_ms": round(1000 * float(np.median(bases)), 1), "batches": batches, "bf16": bf16} | results


def sharing(batches: int, pair: str, precision: str) -> dict[str, Any]:
    """Two runs on this machine: one after the other with two threads, or at once with one thread each.

    Milliseconds of the machine for one step of rail-kd-l, over three rounds of both ways.
    """
    command = [sys.executable, __file__, "--part", "steps", "--methods", "rail-kd-l", "--pair", pair]
    command += ["--batches", str(batches), "--precision", precision]
    taken: dict[str, list[float]] = {"one after the other": [], "at once": []}
    for _ in range(3):
        for way, processes in (("one after the other", 1), ("at once", 2)):
            environment = os.environ | {"OMP_NUM_THREADS": str(2 // processes)}
            running = [
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(processes)
            ]
            lines = [process.communicate()[0].splitlines()[-1:] for process in running]
            if any(process.returncode for process in running):
                raise SystemExit(f"a run of {' '.join(command)} ended with an error, which it has said")
            each = [json.loads(line.removeprefix("steps: "))["rail-kd-l"]["ms"] for [line] in lines]
            taken[way].append(float(np.mean(each)) / processes)
    return {
        "ms_per_step": {way: [round(value, 1) for value in values] for way, values in taken.items()},
        "at once / one after the other": work.ratio(taken["at once"], taken["one after the other"]),
    }


def help_seconds(runs: int = 5) -> dict[str, Any]:
    """Wall-clock seconds of ``railkd --help``, median of some runs after one to warm up."""
    command = [sys.executable, "-m", "railkd", "--help"]
    taken = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        taken.append(time.perf_counter() - start)
    return {"median_s": round(float(np.median(taken[1:])), 3), "bar": 0.6}


def _keys(keys: np.ndarray) -> dict[str, Any]:
    import torch

    return {"example_key": torch.from_numpy(np.ascontiguousarray(keys))}


def main() -> None:
    """Parse the command line and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["steps", "help", "sharing", "all"], default="all")
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS), help="methods, or 'all'")
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument("--pair", choices=list(work.PAIRS), default="deep")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "both"], default="both")
    args = parser.parse_args()
    from railkd.hardware import fast_bf16
    from railkd.objectives import METHODS

    if args.precision == "bfloat16" and not fast_bf16():
        parser.error("got --precision bfloat16 on a machine that is not fast at it; wanted float32")
    chosen = [name for name in METHODS if name != "finetune"] if args.methods == ["all"] else args.methods
    print(work.machine())
    if args.part in ("help", "all"):
        print("railkd --help:", json.dumps(help_seconds()))
    if args.part == "sharing":
        precision = "float32" if args.precision == "float32" or not fast_bf16() else "bfloat16"
        print("sharing:", json.dumps(sharing(args.batches // 3, args.pair, precision)))
    if args.part in ("steps", "all"):
        for precision in ("float32", "bfloat16"):
            if args.precision in (precision, "both") and (precision == "float32" or fast_bf16()):
                print("steps:", json.dumps(steps(tuple(chosen), args.batches, precision == "bfloat16", args.pair)))


if __name__ == "__main__":
    main()
