"""Part "passes": tokens a second of the teacher pass, beside bare forward passes over the very same batches.

The batches are those that `TeacherCache.build` gave to the model, noted by a hook during a first pass that is not
timed. The bare loop has its batches ready on the host and copies them to the device one by one. A build starts from
tokenised rows, makes its batches and writes its files. "alone" is a build less a second one that finds all rows there:
the pass without the time to identify the teacher and the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from context import Context
from datasets import Dataset
from material import Pair, scratch, synchronise
from record import failure, ratio
from torch import Tensor

from railkd import TeacherCache

BAR = 0.9
LEAST_ROUNDS, MOST_ROUNDS = 2, 12


def measure(context: Context) -> None:
    """Measure every pair within an equal share of the time."""
    for number, pair in enumerate(context.pairs.values()):
        try:
            with context.share(1, len(context.pairs) - number):
                results = one(context, pair)
        except Exception as error:
            results = failure(error)
        context.note("passes", pair.name, results)
        for what, row in results.get("throughput / bare", {}).items():
            context.say(
                f"  {pair.name}: {what}: {row['ratio']} {row['interval_95']} of the bare loop's tokens a second"
            )
        row = results.get("throughput / bare", {}).get("build")
        if row:
            what = f"tokens a second of TeacherCache.build / of bare forward passes, {pair.name}"
            context.record.bar(what, row["ratio"], BAR, at_least=True, interval=row["interval_95"])
        if "error" in results:
            context.say(f"  {pair.name}: {results['error']}")


def one(context: Context, pair: Pair) -> dict[str, Any]:
    """Measure one pair in interleaved rounds."""
    tokens = pair.rows(256 if context.quick else 4096, seed=2).remove_columns("labels")
    real = int(sum(tokens["length"]))
    taken: dict[str, list[float]] = {"bare": [], "build": [], "again": []}
    with scratch() as kept:
        batches = _batches_of(pair.teacher, lambda: _build(pair, tokens, kept))
        runs: dict[str, Callable[[], Any]] = {
            "bare": lambda: _bare(pair, batches),
            "build": lambda: _built(pair, tokens),
            "again": lambda: _build(pair, tokens, kept),
        }
        runs["bare"]()
        rng = np.random.default_rng(0)
        while len(taken["bare"]) < (2 if context.quick else MOST_ROUNDS):
            if len(taken["bare"]) >= LEAST_ROUNDS and context.over:
                break
            for name in rng.permutation(list(runs)).tolist():
                synchronise(pair.device)
                start = time.perf_counter()
                runs[name]()
                synchronise(pair.device)
                taken[name].append(time.perf_counter() - start)
    alone = [max(a - b, 1e-4) for a, b in zip(taken["build"], taken["again"], strict=True)]
    ours = {"build": taken["build"], "alone": alone}
    return {
        "rows": len(tokens),
        "tokens": real,
        "batches": len(batches),
        "padded tokens": sum(batch["input_ids"].numel() for batch in batches),
        "tokens a second": {
            name: round(real / float(np.median(values))) for name, values in ({"bare": taken["bare"]} | ours).items()
        },
        "throughput / bare": {name: ratio(taken["bare"], values) for name, values in ours.items()},
        "seconds": {name: [round(value, 4) for value in values] for name, values in taken.items()},
    }


def _built(pair: Pair, rows: Dataset) -> None:
    with scratch() as folder:
        _build(pair, rows, folder)


def _build(pair: Pair, rows: Dataset, folder: Path) -> None:
    TeacherCache.build(pair.teacher, rows, folder / "cache", tokenizer=pair.tokenizer, bf16=pair.bf16)


def _batches_of(model: torch.nn.Module, run: Callable[[], Any]) -> list[dict[str, Tensor]]:
    """Return the inputs of every call of the model while something runs, on the host."""
    found: list[dict[str, Tensor]] = []

    def note(_: torch.nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        names = ("input_ids", "attention_mask", "token_type_ids")
        given = dict(zip(names, args, strict=False)) | inputs
        found.append({name: value.cpu() for name, value in given.items() if isinstance(value, Tensor)})

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    if not found or any("input_ids" not in batch for batch in found):
        raise RuntimeError(f"expected batches with input_ids, got {len(found)} calls of the model")
    return found


def _bare(pair: Pair, batches: list[dict[str, Tensor]]) -> None:
    with torch.no_grad(), torch.autocast(pair.device.type, dtype=torch.bfloat16, enabled=pair.bf16):
        for batch in batches:
            pair.teacher(**{name: value.to(pair.device) for name, value in batch.items()})
