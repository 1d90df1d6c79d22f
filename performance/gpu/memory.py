"""Part "memory": the most device memory that a training has allocated, each on a device that holds nothing else.

All railkd sides see the same batches in the same order, so their longest batch is the same one.
"""

from __future__ import annotations

import gc
from typing import Any

import sides
import torch
from context import Context
from material import Pair, scratch
from record import failure
from steps import BASE

BAR = 1.03
STEPS = 16
METHODS = ("finetune", "kd", "rail-kd-l")


def measure(context: Context) -> None:
    """Measure every pair and batch size."""
    if context.device.type != "cuda":
        context.note("memory", "skipped", "only a CUDA device counts its memory")
        context.say("  skipped: only a CUDA device counts its memory")
        return
    for pair in context.pairs.values():
        for batch in context.batches:
            name = f"{pair.name}, batch {batch}"
            try:
                results = one(pair, batch)
            except Exception as error:
                results = failure(error)
            context.note("memory", name, results)
            if "error" in results:
                context.say(f"  {name}: {results['error']}")
                continue
            context.say(f"  {name}: {results['MB']}; rail-kd-l / finetune {results['rail-kd-l / finetune']}")
            context.record.bar(f"device memory of rail-kd-l / finetune, {name}", results["rail-kd-l / finetune"], BAR)


def one(pair: Pair, batch: int) -> dict[str, Any]:
    """Return the peaks of all trainings, in MB above what was allocated before."""
    rows = pair.tokens(pair.texts(STEPS * batch, seed=3))
    peaks: dict[str, float] = {}
    with scratch() as folder:
        cache = pair.cache(rows, folder / "cache")
        for name in (BASE, *METHODS):
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            if name == BASE:
                sides.plain(pair, rows, folder, batch, [], max_steps=STEPS).train()
            else:
                settings = {"max_steps": STEPS, "method": name, "gauges": False}
                sides.ours(pair, None if name == "finetune" else cache, rows, folder, batch, [], **settings).train()
            peaks[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return {
        "MB": {name: round(value, 1) for name, value in peaks.items()},
        "rail-kd-l / finetune": round(peaks["rail-kd-l"] / peaks["finetune"], 4),
        f"rail-kd-l / {BASE}": round(peaks["rail-kd-l"] / peaks[BASE], 4),
    }
