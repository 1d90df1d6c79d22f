"""Part "jobs": methods that share one cache, its building included, beside as many plain fine-tunings.

A job starts from tokenised rows and a model on the device and ends with a trained student: set-up is in it, starting
Python is not. Jobs of both kinds alternate, for as many of the ten methods as the time allows; the record says how many
ran, and nothing is extrapolated. Nothing is saved.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import sides
from context import Context
from datasets import Dataset
from material import Pair, scratch, synchronise
from transformers import TrainerCallback

#: All of them read the teacher; fine-tuning by railkd itself is not counted among them.
METHODS = ["rail-kd-l", "kd", "pkd-skip", "rail-kd-c", "alp-kd", "ckd", "codir", "rail-kd-w", "pkd-last", "rail-step"]
#: That run even where the time is over before.
LEAST = 4
BAR = 1.05
BATCH = 32


class Loop(TrainerCallback):
    """Times a training loop without its set-up."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.seconds, self._start = pair, 0.0, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by Trainer."""
        synchronise(self.pair.device)
        self._start = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by Trainer."""
        synchronise(self.pair.device)
        self.seconds = time.perf_counter() - self._start


def measure(context: Context) -> None:
    """Measure the smaller pair."""
    pair = list(context.pairs.values())[-1]
    results = one(context, pair)
    context.note("jobs", pair.name, results)
    what = f"{results['pairs of jobs']} methods on one cache, its building included / as many plain fine-tunings"
    context.say(f"  {what}: {results['ratio']} {results['interval_95']}; loops alone {results['loops']}")
    context.record.bar(f"{what}, {pair.name}", results["ratio"], BAR, interval=results["interval_95"])


def one(context: Context, pair: Pair) -> dict[str, Any]:
    """Alternate plain fine-tunings and methods, as many as the time allows."""
    rows = pair.rows(64 if context.quick else 1024, seed=1)
    epochs = 1 if context.quick else 3
    taken: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
    with scratch() as folder:
        # One short job of each to warm up.
        few = rows.select(range(min(len(rows), 256)))
        _plain(pair, few, folder, 1)
        _ours(pair, pair.cache(few, folder / "few"), few, folder, epochs=1, method="rail-kd-l")
        synchronise(pair.device)
        start = time.perf_counter()
        cache = pair.cache(rows, folder / "cache")
        build = time.perf_counter() - start
        for method in METHODS[:LEAST] if context.quick else METHODS:
            if len(taken["ours"]) >= LEAST and context.over:
                break
            jobs = {
                "plain": lambda: _plain(pair, rows, folder, epochs),
                "ours": lambda m=method: _ours(pair, cache, rows, folder, epochs=epochs, method=m),
            }
            order = ("plain", "ours") if len(taken["ours"]) % 2 else ("ours", "plain")
            found = {side: jobs[side]() for side in order}
            for side in order:
                taken[side].append(found[side])
    return _summary(taken, build) | {"rows": len(rows), "epochs": epochs, "batch": BATCH}


def _summary(taken: dict[str, list[dict[str, Any]]], build: float) -> dict[str, Any]:
    """Return the ratio of sums, the building among ours, and a bootstrap over pairs of jobs."""
    ours, theirs = (np.asarray([job["all"] for job in taken[side]]) for side in ("ours", "plain"))
    loops = [sum(job["loop"] for job in taken[side]) for side in ("ours", "plain")]
    picks = np.random.default_rng(0).integers(0, len(ours), (2000, len(ours)))
    draws = (build + ours[picks].sum(axis=1)) / theirs[picks].sum(axis=1)
    return {
        "ratio": round(float((build + ours.sum()) / theirs.sum()), 3),
        "interval_95": [round(float(q), 3) for q in np.quantile(draws, [0.025, 0.975])],
        "loops": round(loops[0] / loops[1], 3),
        "pairs of jobs": len(ours),
        "methods": [job["name"] for job in taken["ours"]],
        "seconds to build the cache": round(build, 3),
        "jobs": taken,
    }


def _plain(pair: Pair, rows: Dataset, folder: Path, epochs: int) -> dict[str, Any]:
    loop = Loop(pair)
    start = time.perf_counter()
    sides.plain(pair, rows, folder, BATCH, [loop], num_train_epochs=epochs).train()
    return _job("transformers.Trainer", start, loop)


def _ours(pair: Pair, cache: Any, rows: Dataset, folder: Path, *, epochs: int, method: str) -> dict[str, Any]:
    loop = Loop(pair)
    start = time.perf_counter()
    sides.ours(pair, cache, rows, folder, BATCH, [loop], num_train_epochs=epochs, method=method).train()
    return _job(method, start, loop)


def _job(name: str, start: float, loop: Loop) -> dict[str, Any]:
    synchronise(loop.pair.device)
    return {"name": name, "all": round(time.perf_counter() - start, 4), "loop": round(loop.seconds, 4)}
