"""Part "memory": the most device memory that a training allocates beyond what the device held before.

All sides take the same batches in the same order, so their longest batch is the same one.
"""

from __future__ import annotations

import gc
from typing import Any

import sides
import torch
from context import Context
from material import Pair, scratch, synchronise
from record import failure
from steps import BASE

BAR = 1.03
STEPS = 8
#: Sides of railkd -> their settings. States on the device take memory on purpose, so they are a side apart.
OURS: dict[str, dict[str, str]] = {
    "finetune": {"method": "finetune"},
    "rail-kd-l": {"method": "rail-kd-l", "states_on_device": "no"},
    "rail-kd-l, states kept": {"method": "rail-kd-l", "states_on_device": "yes"},
}


def measure(context: Context) -> None:
    """Measure every pair with the smaller batch size."""
    if context.device.type != "cuda":
        context.note("memory", "skipped", "only a CUDA device counts its memory")
        context.say("  skipped: only a CUDA device counts its memory")
        return
    batch = context.size.batches[0]
    for pair in context.pairs.values():
        name = f"{pair.name}, batch {batch}"
        try:
            results = one(context, pair, batch)
        except Exception as error:
            results = failure(error)
        context.note("memory", name, results)
        if "error" in results:
            context.say(f"  {name}: {results['error']}")
            continue
        context.say(f"  {name}: {results['MB']}; rail-kd-l / finetune {results['rail-kd-l / finetune']}")
        context.record.bar(f"device memory of rail-kd-l / finetune, {name}", results["rail-kd-l / finetune"], BAR)


def one(context: Context, pair: Pair, batch: int) -> dict[str, Any]:
    """Return the peaks of all trainings, in MB above what was allocated before."""
    rows, cache = context.material(pair)
    settings: dict[str, Any] = {"max_steps": STEPS, "in_order": True}
    peaks: dict[str, float] = {}
    with scratch() as folder:
        for name in (BASE, *OURS):
            gc.collect()
            torch.cuda.empty_cache()
            synchronise(pair.device)
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            if name == BASE:
                sides.plain(pair, rows, folder, batch, [], **settings).train()
            else:
                teacher = None if name == "finetune" else cache
                more = {**settings, **OURS[name], "gauges": False}
                sides.ours(pair, teacher, rows, folder, batch, [], **more).train()
            peaks[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return {
        "MB": {name: round(value, 1) for name, value in peaks.items()},
        **{
            f"{ours} / {theirs}": round(peaks[ours] / peaks[theirs], 4)
            for ours, theirs in (
                ("rail-kd-l", "finetune"),
                ("rail-kd-l, states kept", "finetune"),
                ("rail-kd-l", BASE),
                ("finetune", BASE),
            )
        },
    }
