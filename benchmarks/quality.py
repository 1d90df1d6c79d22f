"""Is the fast path as good as the slow one? Paired runs on real data: equal seeds, rows and teacher cache.

    python benchmarks/quality.py                 # five seeds, about eight minutes on two cores

Fast: our defaults (bfloat16 where the machine has it, batches of like length, freed memory kept). Slow: float32, random
batches. Each seed trains both, and both are scored in float32 on the demo's movie test rows; the interval of the mean
difference is Student's t over seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import work
from scipy import stats

from railkd import job
from railkd.demo.data import sentiment_sets, subset, write_tsv
from railkd.demo.model import encoder_folder
from railkd.options import DistillOptions, FinetuneOptions

SLOW = {"bf16": False, "length_groups": False, "keep_freed_memory": False}


def measure(method: str, seeds: int, train: int, test: int) -> dict[str, Any]:
    """Accuracies by path and seed, and the interval of their difference."""
    sets = sentiment_sets()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = {"train": subset(sets.train, train), "test": subset(sets.test, test)}
        files = {part: str(write_tsv(folder / f"{part}.tsv", rows)) for part, rows in parts.items()}
        data: dict[str, Any] = {"train": files["train"], "test": [f"test={files['test']}"], "max_length": 64}
        data |= {"quiet": True, "overwrite": True}
        teacher = FinetuneOptions(model=str(encoder_folder()), output=str(folder / "teacher"), **data)
        made = job.finetune(teacher, {"num_train_epochs": 2, "learning_rate": 1e-4, "seed": 0}, str)
        options = DistillOptions(
            teacher=str(folder / "teacher" / "model"),
            student_layers=3,
            cache=str(folder / "cache"),
            output=str(folder / "out"),
            **data,
        )
        training = {"method": method, "num_train_epochs": 3, "learning_rate": 1e-4}
        found: dict[str, list[float]] = {"fast": [], "slow": []}
        for seed in range(seeds):
            for path, changes in (("fast", {}), ("slow", SLOW)):
                record = job.distill(options, {**training, **changes, "seed": seed}, str)
                found[path].append(100 * record.metrics["test"]["accuracy"])
            print(f"seed {seed}: fast {found['fast'][-1]:.2f}, slow {found['slow'][-1]:.2f}", flush=True)
    difference = np.subtract(found["fast"], found["slow"])
    spread = stats.sem(difference)
    low, high = stats.t.interval(0.90, seeds - 1, loc=difference.mean(), scale=spread)
    return {
        "machine": work.machine(),
        "method": method,
        "rows": {part: len(rows) for part, rows in parts.items()},
        "teacher": round(100 * made.metrics["test"]["accuracy"], 2),
        **{path: [round(value, 2) for value in values] for path, values in found.items()},
        "difference": round(float(difference.mean()), 3),
        "interval_90": [round(float(low), 3), round(float(high), 3)],
        "bar": "inside -1 to 1",
    }


def main() -> None:
    """Parse the command line and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="rail-kd-l")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=3000)
    parser.add_argument("--test", type=int, default=2000)
    args = parser.parse_args()
    print(json.dumps(measure(args.method, args.seeds, args.train, args.test), indent=1))


if __name__ == "__main__":
    main()
