"""What a model tells a distillation loss: its logits and the pooled states of its blocks, caught while it runs.

The one legend of letters, for every file: B batch, L tokens, n teacher blocks, s student blocks, d hidden size (d_t,
d_s), C classes, m matched blocks, N candidate blocks, u shared size of projections.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from railkd.errors import RailkdError, did_you_mean

POOLINGS = ("mean", "cls")


class BlockShape(NamedTuple):
    """How many blocks a model has and how wide their states are. A plain ``(blocks, width)`` tuple will do."""

    blocks: int
    width: int


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Teacher states of other rows, for contrast.

    Attributes:
        states: (G, K, n, d): K rows for each of G groups.
        group: (B,): whose K rows each example is contrasted with.
        keep: (B, K) bool: False leaves a row out for an example (it is the example itself); None: all count.
    """

    states: Tensor
    group: Tensor
    keep: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Signals:
    """One batch as one model saw it.

    Attributes:
        logits: (B, C).
        states: (B, n, d): block i's pooled output at index i - 1; None for methods that read logits only.
        negatives: of a teacher, for methods that contrast.
    """

    logits: Tensor
    states: Tensor | None = None
    negatives: Negatives | None = None

    def detached(self) -> Signals:
        """The same numbers, cut from the graph: nothing is ever learned by the teacher."""
        return dataclasses.replace(
            self, logits=self.logits.detach(), states=None if self.states is None else self.states.detach()
        )


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of a teacher's states, block by block.

    Attributes:
        count: rows. mean: (n, d) float64. covariance: (n, d, d) float64.
    """

    count: int
    mean: Tensor
    covariance: Tensor


def checked_poolings(poolings: Sequence[str]) -> tuple[str, ...]:
    """Known names, each once, in the order of `railkd.signals.POOLINGS`."""
    for name in poolings:
        if name not in POOLINGS:
            raise RailkdError(f"unknown pooling '{name}'; known: {', '.join(POOLINGS)}.{did_you_mean(name, POOLINGS)}")
    if not poolings:
        raise RailkdError(f"got no pooling, wanted at least one of {', '.join(POOLINGS)}")
    return tuple(name for name in POOLINGS if name in poolings)
