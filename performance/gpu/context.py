"""The context of a part: the record, the pairs, the sizes, and its share of the time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from material import SHAPES, SMALL, Pair
from record import Record

from railkd import TeacherCache


@dataclass(frozen=True)
class Size:
    """How much work a part does.

    Args:
        batches: batch sizes of the steps. rows: of the steps; FULL has 64 steps an epoch at the larger batch.
        steps: of a turn. warm_turns: turns of each side before the first that counts. most_rounds: rounds after which
            a ratio is good enough.
    """

    batches: tuple[int, ...]
    rows: int
    steps: int
    warm_turns: int
    most_rounds: int


FULL = Size(batches=(32, 128), rows=8192, steps=8, warm_turns=4, most_rounds=40)
QUICK = Size(batches=(4, 8), rows=128, steps=3, warm_turns=1, most_rounds=3)


@dataclass
class Context:
    """Settings of a run.

    Args:
        device: where models run. quick: tiny models and few steps. record: what is measured goes there at once.
        ends: when the whole run shall be over, by `time.monotonic`. folder: for caches that several parts read.
    """

    device: torch.device
    quick: bool
    record: Record
    ends: float
    folder: Path
    _deadlines: list[float] = field(default_factory=list)
    _material: dict[str, tuple[Dataset, TeacherCache]] = field(default_factory=dict)

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """The pairs of models by name."""
        shapes = SMALL if self.quick else SHAPES
        return {name: Pair(name, shape, self.device) for name, shape in shapes.items()}

    def material(self, pair: Pair) -> tuple[Dataset, TeacherCache]:
        """Return the rows of a pair and the cache of them, made once for all parts that train.

        In their order, the rows make batches whose longest row is a multiple of 16 tokens, so shapes repeat.
        """
        if pair.name not in self._material:
            rows = pair.rows(self.size.rows, batch=self.size.batches[0])
            self._material[pair.name] = rows, pair.cache(rows, self.folder / f"cache-{len(self._material)}")
        return self._material[pair.name]

    @property
    def size(self) -> Size:
        """How much work the parts do."""
        return QUICK if self.quick else FULL

    def share(self, mine: float, of: float) -> AbstractContextManager[float]:
        """Give a piece of work its share of the time that is left; see `within`."""
        return self.within(max(0.0, self.deadline - time.monotonic()) * mine / of)

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[float]:
        """Give a piece of work some seconds, at most those that are left; yields its deadline, by `time.monotonic`."""
        self._deadlines.append(min(self.deadline, time.monotonic() + seconds))
        try:
            yield self.deadline
        finally:
            self._deadlines.pop()

    @property
    def deadline(self) -> float:
        """When the piece of work in hand shall be over."""
        return self._deadlines[-1] if self._deadlines else self.ends

    @property
    def over(self) -> bool:
        """True when that moment has passed."""
        return time.monotonic() >= self.deadline

    def note(self, part: str, name: str, results: Any) -> None:
        """Put results into the record, and write it."""
        self.record.part(part)[name] = results
        self.record.save()

    @staticmethod
    def say(line: str) -> None:
        """Print a line at once."""
        print(line, flush=True)
