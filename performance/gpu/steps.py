"""Part "steps": the cost of a step of each training beside one of plain fine-tuning, in interleaved turns.

All sides take the same batches in the same order. A round gives every side one turn of a few steps. A ratio is the
median over rounds of (turn of the side / turn of plain fine-tuning in the same round), its interval a bootstrap over
rounds.
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
from material import Pair, scratch
from record import failure, ratio
from turns import EVERY_ROUND, Side, interleave

BASE = "transformers.Trainer"
#: Makes a training for a side, and returns the function that runs it.
Maker = Callable[[Side], Callable[[], Any]]
#: Ratios of interest: (side, beside which).
RATIOS = (
    ("finetune", BASE),
    ("kd", BASE),
    ("rail-kd-l", BASE),
    ("rail-kd-l", "finetune"),
    ("kd, live teacher", BASE),
    ("rail-kd-l", "kd, live teacher"),
    ("rail-kd-l", "rail-kd-l, states read"),
    ("TextBrewer", BASE),
    ("rail-kd-l", "TextBrewer"),
)
BAR = 1.03
#: They take part in the first rounds of the first pair and batch size alone. Two of them run the teacher at every step.
GUESTS = ("kd, live teacher", "TextBrewer", "rail-kd-l, states read")
GUEST_ROUNDS = 6
#: Share of the time of a setting with guests; of others it is 1.
GUEST_SHARE = 1.4


def measure(context: Context) -> None:
    """Measure every pair and batch size within a share of the time that is left each time."""
    settings = [(pair, batch) for batch in context.size.batches for pair in context.pairs.values()]
    shares = [GUEST_SHARE, *(1.0 for _ in settings[1:])]
    for number, (pair, batch) in enumerate(settings):
        name = f"{pair.name}, batch {batch}"
        try:
            with context.share(shares[number], sum(shares[number:])) as deadline:
                results = one(context, pair, batch, deadline, guests=number == 0)
        except Exception as error:
            results = failure(error)
        context.note("steps", name, results)
        for what, row in results.get("ratios", {}).items():
            context.say(f"  {name}: {what}: {row['ratio']} {row['interval_95']} ({row['rounds']} rounds)")
        row = results.get("ratios", {}).get(f"rail-kd-l / {BASE}")
        if row:
            what = f"step of rail-kd-l from a warm cache / {BASE}, {name}"
            context.record.bar(what, row["ratio"], BAR, interval=row["interval_95"])
        for what, why in results.get("not measured", {}).items():
            context.say(f"  {name}: {what} was not measured: {why['error'] if isinstance(why, dict) else why}")
        if "error" in results:
            context.say(f"  {name}: {results['error']}")


def one(context: Context, pair: Pair, batch: int, deadline: float, *, guests: bool) -> dict[str, Any]:
    """Measure one pair with one batch size."""
    rng = np.random.default_rng(0)
    with scratch() as folder:
        made, errors = _sides(context, pair, folder, batch, guests=guests)
        rounds = interleave(
            made,
            warm_turns=context.size.warm_turns,
            steps=context.size.steps,
            deadline=deadline,
            most=context.size.most_rounds,
            order=lambda names: rng.permutation(names).tolist(),
        )
    names = [side.name for side in made]
    errors |= {side.name: side.error for side in made if side.error}
    del made
    gc.collect()
    if context.device.type == "cuda":
        torch.cuda.empty_cache()
    turns = {name: [taken[name] for taken in rounds if name in taken] for name in names}
    return {
        "steps a turn": context.size.steps,
        "warm-up steps": context.size.steps * context.size.warm_turns,
        "ms a step": {n: round(1000 * float(np.median(s)) / context.size.steps, 2) for n, s in turns.items() if s},
        "ratios": _ratios(rounds),
        "not measured": errors,
        "seconds a turn": {name: [round(value, 4) for value in values] for name, values in turns.items()},
    }


def _ratios(rounds: list[dict[str, float]]) -> dict[str, Any]:
    found = {}
    for ours, theirs in RATIOS:
        both = [(taken[ours], taken[theirs]) for taken in rounds if ours in taken and theirs in taken]
        if both:
            found[f"{ours} / {theirs}"] = ratio(*zip(*both, strict=True))
    return found


def _sides(
    context: Context, pair: Pair, folder: Path, batch: int, *, guests: bool
) -> tuple[list[Side], dict[str, Any]]:
    """Return every side that could be made, and why the others could not."""
    made: list[Side] = []
    errors: dict[str, Any] = {}
    for name, make in _makers(context, pair, folder, batch, guests=guests).items():
        side = Side(name, pair.device, GUEST_ROUNDS if name in GUESTS else EVERY_ROUND)
        try:
            made.append(side.trains_by(make(side)))
        except Exception as error:
            errors[name] = failure(error)
    return made, errors


def _makers(context: Context, pair: Pair, folder: Path, batch: int, *, guests: bool) -> dict[str, Maker]:
    """Return, by name, a function that makes each training ready to run."""
    rows, cache = context.material(pair)
    settings = {"max_steps": sides.ENDLESS, "in_order": True}

    def ours(method: str, teacher: Callable[[], Any], **given: Any) -> Maker:
        more = {**settings, "method": method, "gauges": False, **given}
        return lambda side: sides.ours(pair, teacher(), rows, folder, batch, [side], **more).train

    makers: dict[str, Maker] = {
        BASE: lambda side: sides.plain(pair, rows, folder, batch, [side], **settings).train,
        "finetune": ours("finetune", lambda: None),
        "kd": ours("kd", lambda: cache),
        "rail-kd-l": ours("rail-kd-l", lambda: cache),
        "rail-kd-l, states read": ours("rail-kd-l", lambda: cache, states_on_device="no"),
        "kd, live teacher": ours("kd", lambda: sides.live_teacher(pair)),
        "TextBrewer": lambda side: sides.textbrewer(pair, rows, folder, batch, side),
    }
    return {name: make for name, make in makers.items() if guests or name not in GUESTS}
