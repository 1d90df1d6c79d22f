"""Part "jobs": ten methods that share one cache, its building included, beside ten plain fine-tunings.

A job starts from texts and a model on the device and ends with a trained student: tokenising and set-up are in it,
starting Python is not. Jobs of both kinds alternate. Nothing is saved.
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
from record import failure
from transformers import TrainerCallback

#: All of them read the teacher; fine-tuning by railkd itself is not counted among the ten.
METHODS = ["rail-kd-l", "kd", "pkd-skip", "rail-kd-c", "alp-kd", "ckd", "codir", "rail-kd-w", "pkd-last", "rail-step"]
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
    """Measure every pair within its share of the time, the larger pair with the larger share."""
    shares = [3.0, 2.0]
    for number, pair in enumerate(context.pairs.values()):
        try:
            with context.share(shares[number], sum(shares[number:])):
                results = one(context, pair)
        except Exception as error:
            results = failure(error)
        context.note("jobs", pair.name, results)
        if "ratio" in results:
            what = f"{results['pairs of jobs']} methods on one cache / as many plain fine-tunings, {pair.name}"
            context.say(f"  {what}: {results['ratio']} {results['interval_95']}; loops alone {results['loops']}")
            context.record.bar(what, results["ratio"], BAR)
        else:
            context.say(f"  {pair.name}: {results['error']}")


def one(context: Context, pair: Pair) -> dict[str, Any]:
    """Alternate plain fine-tunings and methods, as many as the time allows."""
    rows = pair.texts(64 if context.quick else 2048, seed=1)
    epochs = 1 if context.quick else 3
    taken: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
    with scratch() as folder:
        # One job of each to warm up.
        few = rows.select(range(min(len(rows), 256)))
        _plain(pair, few, folder, 1)
        _ours(pair, pair.cache(few, folder / "few"), few, folder, epochs=1, method="rail-kd-l")
        synchronise(pair.device)
        start = time.perf_counter()
        cache = pair.cache(rows, folder / "cache")
        build = time.perf_counter() - start
        for method in METHODS[:2] if context.quick else METHODS:
            if taken["ours"] and context.over:
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
    """Return the ratio of sums, with a tenth of the building in each method, and a bootstrap over pairs of jobs."""
    ours, theirs = (np.asarray([job["all"] for job in taken[side]]) for side in ("ours", "plain"))
    loops = [sum(job["loop"] for job in taken[side]) for side in ("ours", "plain")]
    ours = ours + build / len(METHODS)
    picks = np.random.default_rng(0).integers(0, len(ours), (2000, len(ours)))
    draws = ours[picks].sum(axis=1) / theirs[picks].sum(axis=1)
    return {
        "ratio": round(float(ours.sum() / theirs.sum()), 3),
        "interval_95": [round(float(q), 3) for q in np.quantile(draws, [0.025, 0.975])],
        "loops": round(loops[0] / loops[1], 3),
        "pairs of jobs": len(ours),
        "seconds to build the cache": round(build, 3),
        "jobs": taken,
    }


def _plain(pair: Pair, rows: Dataset, folder: Path, epochs: int) -> dict[str, Any]:
    loop = Loop(pair)
    start = time.perf_counter()
    encoded = pair.tokenizer(rows["text"][:], truncation=True, max_length=128)
    columns = {name: encoded[name] for name in pair.tokenizer.model_input_names}
    tokens = Dataset.from_dict(columns | {"labels": rows["label"][:]})
    sides.plain(pair, tokens, folder, BATCH, [loop], num_train_epochs=epochs).train()
    return _job("transformers.Trainer", start, loop)


def _ours(pair: Pair, cache: Any, rows: Dataset, folder: Path, *, epochs: int, method: str) -> dict[str, Any]:
    loop = Loop(pair)
    start = time.perf_counter()
    sides.ours(pair, cache, rows, folder, BATCH, [loop], num_train_epochs=epochs, method=method).train()
    return _job(method, start, loop)


def _job(name: str, start: float, loop: Loop) -> dict[str, Any]:
    synchronise(loop.pair.device)
    return {"name": name, "all": round(time.perf_counter() - start, 4), "loop": round(loop.seconds, 4)}
