"""What every part is given: the record, the pairs, the sizes, and its share of the time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from material import SHAPES, SMALL, Pair
from record import Record


@dataclass
class Context:
    """Settings of a run.

    Args:
        device: where models run. quick: tiny models and few steps. record: what is measured goes there at once.
        ends: when the whole run shall be over, by `time.monotonic`.
    """

    device: torch.device
    quick: bool
    record: Record
    ends: float
    _deadlines: list[float] = field(default_factory=list)

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """The pairs of models by name."""
        shapes = SMALL if self.quick else SHAPES
        return {name: Pair(name, shape, self.device) for name, shape in shapes.items()}

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes of the steps."""
        return (4, 8) if self.quick else (32, 128)

    @property
    def rows(self) -> int:
        """Rows of the steps: enough for 64 steps an epoch at the larger batch."""
        return 128 if self.quick else 8192

    @property
    def warm(self) -> int:
        """Steps before the first turn that counts."""
        return 2 if self.quick else 12

    @property
    def steps(self) -> int:
        """Steps of a turn."""
        return 3 if self.quick else 20

    @property
    def most_rounds(self) -> int:
        """Rounds after which a ratio is good enough."""
        return 3 if self.quick else 40

    @contextlib.contextmanager
    def share(self, mine: float, of: float) -> Iterator[float]:
        """Give a piece of work its share of the time that is left; yields its deadline, by `time.monotonic`."""
        now = time.monotonic()
        self._deadlines.append(now + max(0.0, self.deadline - now) * mine / of)
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
