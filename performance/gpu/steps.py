"""Part "steps": what a step of each training costs beside one of plain fine-tuning, in interleaved turns.

A round gives every side one turn of some steps. A ratio is the median over rounds of (turn of the side / turn of plain
fine-tuning in the same round), its interval a bootstrap over rounds.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sides
import torch
from context import Context
from datasets import Dataset
from material import Pair, scratch
from record import failure, ratio
from turns import Side, interleave

BASE = "transformers.Trainer"
LIKE_LENGTHS = "transformers.Trainer, like lengths"
#: Makes a training for a side, and returns the function that runs it.
Maker = Callable[[Side], Callable[[], Any]]
#: Ratios of interest: (side, beside which).
RATIOS = (
    (LIKE_LENGTHS, BASE),
    ("finetune", BASE),
    ("kd", BASE),
    ("rail-kd-l", BASE),
    ("rail-kd-l", "finetune"),
    ("kd, live teacher", BASE),
    ("rail-kd-l", "kd, live teacher"),
    ("TextBrewer", BASE),
    ("rail-kd-l", "TextBrewer"),
)
BAR = 1.03


def measure(context: Context) -> None:
    """Measure every pair and batch size within an equal share of the time that is left each time."""
    settings = [(pair, batch) for batch in context.batches for pair in context.pairs.values()]
    for number, (pair, batch) in enumerate(settings):
        name = f"{pair.name}, batch {batch}"
        try:
            with context.share(1, len(settings) - number) as deadline:
                results = one(context, pair, batch, deadline)
        except Exception as error:
            results = failure(error)
        context.note("steps", name, results)
        for what, row in results.get("ratios", {}).items():
            context.say(f"  {name}: {what}: {row['ratio']} {row['interval_95']} ({row['rounds']} rounds)")
        row = results.get("ratios", {}).get(f"rail-kd-l / {BASE}")
        if row:
            context.record.bar(f"step of rail-kd-l from a warm cache / {BASE}, {name}", row["ratio"], BAR)
        for what, why in results.get("not measured", {}).items():
            context.say(f"  {name}: {what} was not measured: {why['error'] if isinstance(why, dict) else why}")
        if "error" in results:
            context.say(f"  {name}: {results['error']}")


def one(context: Context, pair: Pair, batch: int, deadline: float) -> dict[str, Any]:
    """Measure one pair with one batch size."""
    rng = np.random.default_rng(0)
    rows = pair.tokens(pair.texts(context.rows))
    with scratch() as folder:
        made, errors = _sides(pair, rows, folder, batch)
        rounds = interleave(
            made,
            warm=context.warm,
            steps=context.steps,
            deadline=deadline,
            most=context.most_rounds,
            order=lambda names: rng.permutation(names).tolist(),
        )
    seconds = {side.name: list(side.seconds[:rounds]) for side in made if side.alive}
    errors |= {side.name: side.error for side in made if side.error}
    del made
    gc.collect()
    if context.device.type == "cuda":
        torch.cuda.empty_cache()
    steps = context.steps
    return {
        "steps a turn": steps,
        "ms a step": {n: round(1000 * float(np.median(s)) / steps, 2) for n, s in seconds.items() if s},
        "ratios": {f"{a} / {b}": ratio(seconds[a], seconds[b]) for a, b in RATIOS if seconds.get(a) and seconds.get(b)},
        "not measured": errors,
        "seconds a turn": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
    }


def _sides(pair: Pair, rows: Dataset, folder: Path, batch: int) -> tuple[list[Side], dict[str, Any]]:
    """Return every side that could be made, and why the others could not."""
    made: list[Side] = []
    errors: dict[str, Any] = {}
    if missing := sides.textbrewer_missing():
        errors["TextBrewer"] = missing
    for name, make in _makers(pair, rows, folder, batch).items():
        if name in errors:
            continue
        side = Side(name, pair.device)
        try:
            made.append(side.trains_by(make(side)))
        except Exception as error:
            errors[name] = failure(error)
    return made, errors


def _makers(pair: Pair, rows: Dataset, folder: Path, batch: int) -> dict[str, Maker]:
    """Return, by name, what makes each training ready to run."""
    cache = pair.cache(rows, folder / "cache")
    endless = {"max_steps": sides.ENDLESS}

    def plain(**settings: Any) -> Maker:
        return lambda side: sides.plain(pair, rows, folder, batch, [side], **endless, **settings).train

    def ours(method: str, teacher: Callable[[], Any]) -> Maker:
        settings = {**endless, "method": method, "gauges": False}
        return lambda side: sides.ours(pair, teacher(), rows, folder, batch, [side], **settings).train

    return {
        BASE: plain(),
        LIKE_LENGTHS: plain(train_sampling_strategy="group_by_length"),
        "finetune": ours("finetune", lambda: None),
        "kd": ours("kd", lambda: cache),
        "rail-kd-l": ours("rail-kd-l", lambda: cache),
        "kd, live teacher": ours("kd", lambda: sides.live_teacher(pair)),
        "TextBrewer": lambda side: sides.textbrewer(pair, rows, folder, batch, side),
    }
