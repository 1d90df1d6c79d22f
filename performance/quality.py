"""Accuracy of the fast path against the slow path: paired runs on real data with equal seeds, rows and teacher cache.

    python performance/quality.py                                        # five seeds, about ten minutes on two cores
    python performance/quality.py --paths fast bf16 groups slow          # also each half of the fast path alone

The fast path is railkd's default: bfloat16 where the machine is fast at it, batches of similar length, and freed memory
kept for reuse. The slow path is float32 with random batches. Every seed trains all paths. All are scored in float32 on
the demo's movie test rows. The interval of the mean difference from slow is Student's t over seeds.
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

from railkd.cli.demo.data import sentiment_sets, subset, write_tsv
from railkd.cli.demo.model import encoder_folder
from railkd.jobs import distill, finetune
from railkd.jobs.options import DistillOptions, FinetuneOptions
from railkd.jobs.request import Request

SLOW = {"bf16": False, "length_groups": False, "keep_freed_memory": False}
#: Path -> the defaults that it changes.
PATHS: dict[str, dict[str, Any]] = {
    "fast": {},
    "bf16": {"length_groups": False},
    "groups": {"bf16": False},
    "slow": SLOW,
}


def measure(method: str, seeds: int, train: int, test: int, paths: list[str]) -> dict[str, Any]:
    """Train and score all paths; return the accuracies by seed and the interval of each difference from slow."""
    sets = sentiment_sets()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = {"train": subset(sets.train, train), "test": subset(sets.test, test)}
        files = {part: str(write_tsv(folder / f"{part}.tsv", rows)) for part, rows in parts.items()}
        data: dict[str, Any] = {"train": files["train"], "test": [f"test={files['test']}"], "max_length": 64}
        data |= {"quiet": True, "overwrite": True}
        teacher = FinetuneOptions(model=str(encoder_folder()), output=str(folder / "teacher"), **data)
        settings = {"num_train_epochs": 2, "learning_rate": 1e-4, "seed": 0}
        teacher_record = finetune.finetune(Request(teacher, settings), _ignore)
        options = DistillOptions(
            teacher=str(folder / "teacher" / "model"),
            student_layers=3,
            cache=str(folder / "cache"),
            output=str(folder / "out"),
            **data,
        )
        training = {"method": method, "num_train_epochs": 3, "learning_rate": 1e-4}
        found: dict[str, list[float]] = {path: [] for path in paths}
        for seed in range(seeds):
            for path in paths:
                record = distill.distill(Request(options, {**training, **PATHS[path], "seed": seed}), _ignore)
                found[path].append(100 * record.metrics["test"]["accuracy"])
            print(f"seed {seed}:", ", ".join(f"{path} {found[path][-1]:.2f}" for path in paths), flush=True)
    return {
        "machine": work.machine(),
        "method": method,
        "rows": {part: len(rows) for part, rows in parts.items()},
        "teacher": round(100 * teacher_record.metrics["test"]["accuracy"], 2),
        "accuracy": {path: [round(value, 2) for value in values] for path, values in found.items()},
        "minus slow": {path: interval(np.subtract(found[path], found["slow"])) for path in paths if path != "slow"},
        "bar": "interval inside -1 to 1",
    }


def interval(difference: np.ndarray) -> dict[str, Any]:
    """Return the mean of paired differences and its 90 % interval."""
    low, high = stats.t.interval(0.90, len(difference) - 1, loc=difference.mean(), scale=stats.sem(difference))
    return {
        "points": round(float(difference.mean()), 3),
        "interval_90": [round(float(low), 3), round(float(high), 3)],
    }


def _ignore(line: str) -> None:
    """Drop a line that a job prints."""


def main() -> None:
    """Parse the command line, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="rail-kd-l")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--paths", nargs="+", choices=list(PATHS), default=["fast", "slow"], help="must include slow")
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--test", type=int, default=2000)
    args = parser.parse_args()
    if "slow" not in args.paths:
        parser.error("--paths must include slow, which the others are compared with")
    print(json.dumps(measure(args.method, args.seeds, args.train, args.test, args.paths), indent=1))


if __name__ == "__main__":
    main()
