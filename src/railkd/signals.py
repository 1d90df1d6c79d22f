"""The input of a distillation loss: the logits of a model and the pooled states of its blocks.

Letters, in every file: B batch, L tokens, n teacher blocks, s student blocks, d hidden size (d_t,
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
#: Stands for no states at all where poolings are named.
NO_POOLING = "none"


class BlockShape(NamedTuple):
    """Number of blocks of a model and width of their states. A plain ``(blocks, width)`` tuple is accepted too.

    Attributes:
        blocks: number of blocks.
        width: hidden size d.
    """

    blocks: int
    width: int


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Teacher states of other rows, for a contrastive loss.

    Attributes:
        states: (G, K, n, d_t): K rows for each of G groups.
        group: (B,) group of each example: its K rows are the negatives of the example.
        keep: (B, K) bool: False leaves a row out for an example, because it is the example itself; None: all count.
    """

    states: Tensor
    group: Tensor
    keep: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Signals:
    """Outputs of one model for one batch.

    Attributes:
        logits: (B, C).
        states: (B, n, d): the pooled output of block i at index i - 1; None for methods that read only logits.
        negatives: of a teacher, for contrastive methods.
    """

    logits: Tensor
    states: Tensor | None = None
    negatives: Negatives | None = None

    def detached(self) -> Signals:
        """Return the same numbers without gradient, because the teacher does not learn.

        Returns:
            Logits (B, C) and states (B, n, d).
        """
        return dataclasses.replace(
            self, logits=self.logits.detach(), states=None if self.states is None else self.states.detach()
        )


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of a teacher's states over rows, for each block.

    Attributes:
        count: number of rows.
        mean: (n, d) float64.
        covariance: (n, d, d) float64.
    """

    count: int
    mean: Tensor
    covariance: Tensor


def checked_poolings(poolings: Sequence[str]) -> tuple[str, ...]:
    """Return the poolings that a list of names means.

    Args:
        poolings: names of `POOLINGS`, or ``none`` alone: no states are stored, only outputs.

    Returns:
        Each name once, in the order of `POOLINGS`; empty for ``none``.

    Raises:
        RailkdError: an unknown name, no name, or ``none`` beside others.
    """
    if set(poolings) == {NO_POOLING}:
        return ()
    if NO_POOLING in poolings:
        raise RailkdError(f"Expected '{NO_POOLING}' alone or names of poolings, got {', '.join(poolings)}.")
    for name in poolings:
        if name not in POOLINGS:
            raise RailkdError(f"unknown pooling '{name}'; known: {', '.join(POOLINGS)}.{did_you_mean(name, POOLINGS)}")
    if not poolings:
        raise RailkdError(f"got no pooling, wanted at least one of {', '.join(POOLINGS)}")
    return tuple(name for name in POOLINGS if name in poolings)
