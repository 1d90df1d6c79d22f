"""Times models side by side on one machine: rows of real lengths, interleaved, so that noise meets all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from railkd.data.tokens import full_lengths, model_inputs
from railkd.export.layout import onnx_size
from railkd.export.session import OnnxModel
from railkd.models.blocks import accepted_inputs

#: Rows that are timed one by one, and rows of a batch for the throughput.
ROWS, BATCH = 64, 32
#: Batches that are timed for the throughput.
BATCHES = 3
#: Seconds after which no further row, and no further batch, begins; and how many of either are timed in any case.
SECONDS, LEAST = (4.0, 2.0), (16, 1)


@dataclass(frozen=True)
class Side:
    """One model to be timed.

    Attributes:
        name: in the table.
        run: takes a padded batch of tokens by name, as tensors.
        takes: names of the inputs that it reads.
        tokenizer: of the model.
        size: its weights on disk, in bytes.
        parameters: their number; None: not known, as of an ONNX file.
    """

    name: str
    run: Callable[[Mapping[str, Any]], Any]
    takes: Sequence[str]
    tokenizer: Any
    size: int
    parameters: int | None = None

    @classmethod
    def of_model(cls, name: str, model: Any, tokenizer: Any) -> Side:
        """Return the side of a model in PyTorch.

        Args:
            name: in the table.
            model: a classifier on the CPU. It is put in evaluation mode.
            tokenizer: of the model.
        """
        model.eval()
        weights = [(parameter.numel(), parameter.element_size()) for parameter in model.parameters()]
        count, number = sum(numbers * each for numbers, each in weights), sum(numbers for numbers, _ in weights)

        def run(batch: Mapping[str, Any]) -> Any:
            with torch.inference_mode():
                return model(**batch)

        return cls(name, run, sorted(accepted_inputs(model)), tokenizer, count, number)

    @classmethod
    def of_onnx(cls, name: str, file: Path) -> Side:
        """Return the side of an ONNX file, with as many threads as PyTorch has.

        Args:
            name: in the table.
            file: in its folder.
        """
        model = OnnxModel(file, threads=torch.get_num_threads())
        return cls(name, model.run, model.inputs, model.checkpoint.tokenizer, onnx_size(file))


@dataclass(frozen=True)
class Timing:
    """The times of one side.

    Attributes:
        name: of the side.
        size: its weights, in bytes.
        parameters: their number; None: not known.
        p50_ms: median milliseconds of one row.
        p95_ms: milliseconds that 95 % of the rows stay below.
        rows_per_second: in batches of 32 rows.
        ratio: median over the rows of its time divided by that of the first side.
        size_ratio: its size divided by that of the first side.
        timed: number of the rows that were timed one by one.
        max_length: at which it cuts its texts, in tokens.
    """

    name: str
    size: int
    parameters: int | None
    p50_ms: float
    p95_ms: float
    rows_per_second: float
    ratio: float
    size_ratio: float
    timed: int
    max_length: int


def measure(
    sides: Sequence[Side],
    texts: Sequence[Sequence[str]],
    lengths: Sequence[int],
    seconds: tuple[float, float] = SECONDS,
) -> list[Timing]:
    """Time models on the same rows, for about six seconds. Tokenisation is left out.

    Args:
        sides: the models; the first is the measure of the others.
        texts: rows of one or two texts; a sample of all lengths is timed. Slow models are timed on fewer rows, of all
            lengths too.
        lengths: at which each side cuts its texts, in tokens.
        seconds: after which no further row, and no further batch, begins.

    Returns:
        The times of each side.
    """
    order = np.argsort(full_lengths(sides[0].tokenizer, texts), kind="stable")
    spread = order[np.unique(np.linspace(0, len(order) - 1, ROWS).astype(int))]
    rows = [[texts[int(spread[place])]] for place in _halving(len(spread))]
    batches = [[texts[int(i)] for i in np.random.default_rng(k).permutation(order)[:BATCH]] for k in range(BATCHES)]
    single, together = (  # (S, parts) seconds each
        _times(sides, parts, lengths, most, least)
        for parts, most, least in zip((rows, batches), seconds, LEAST, strict=True)
    )
    per_second = [sum(map(len, batches[: len(spent)])) / spent.sum() for spent in together]
    return [
        Timing(
            name=side.name,
            size=side.size,
            parameters=side.parameters,
            p50_ms=round(1000 * float(np.quantile(single[number], 0.5)), 4),
            p95_ms=round(1000 * float(np.quantile(single[number], 0.95)), 4),
            rows_per_second=round(float(per_second[number]), 1),
            ratio=round(float(np.median(single[number] / single[0])), 4),
            size_ratio=round(side.size / max(1, sides[0].size), 4),
            timed=single.shape[1],
            max_length=lengths[number],
        )
        for number, side in enumerate(sides)
    ]


def _halving(count: int) -> list[int]:
    """Return the places of a row of things in an order whose every beginning is spread over all of them.

    >>> _halving(8)
    [0, 4, 2, 6, 1, 5, 3, 7]
    """
    digits = max(1, (count - 1).bit_length())
    return sorted(range(count), key=lambda place: f"{place:0{digits}b}"[::-1])


def _times(
    sides: Sequence[Side],
    parts: Sequence[Sequence[Sequence[str]]],
    lengths: Sequence[int],
    seconds: float,
    least: int,
) -> np.ndarray:
    """Return (S, parts timed) seconds. Every side sees a part before the next part comes, in an order that turns."""
    found = np.zeros((len(sides), len(parts)))
    begin = time.perf_counter()
    for number, part in enumerate([parts[0], *parts], -1):  # the first warms up
        if number >= least and time.perf_counter() - begin > seconds:
            return found[:, :number]
        for turn in range(len(sides)):
            which = (number + turn) % len(sides)
            side = sides[which]
            encoded = model_inputs(side.tokenizer, part, lengths[which])
            batch = side.tokenizer.pad(
                {name: values for name, values in encoded.items() if name in side.takes}, return_tensors="pt"
            )
            start = time.perf_counter()
            side.run(batch)
            if number >= 0:
                found[which, number] = time.perf_counter() - start
    return found
