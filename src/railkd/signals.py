"""The input of a distillation loss: the logits of a model and the pooled states of its blocks.

Letters, in every file: B batch, L tokens, n teacher blocks, s student blocks, d hidden size (d_t,
d_s), C classes, m matched blocks, N candidate blocks, u shared size of projections.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
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
        answered: (B,) bool, False for rows to which a teacher gives no answer; None: it answers every row.
    """

    logits: Tensor
    states: Tensor | None = None
    negatives: Negatives | None = None
    answered: Tensor | None = None

    def detached(self) -> Signals:
        """Return the same numbers without gradient, because the teacher does not learn.

        Returns:
            Logits (B, C) and states (B, n, d).
        """
        return dataclasses.replace(
            self, logits=self.logits.detach(), states=None if self.states is None else self.states.detach()
        )

    def logits_beside(self, student: Tensor) -> Tensor:
        """Return the logits, with those of the student in rows without an answer: there the logit term is 0.

        Args:
            student: (B, C).

        Returns:
            (B, C).
        """
        if self.answered is None:
            return self.logits
        return torch.where(self.answered.unsqueeze(-1), self.logits, student.detach().to(self.logits))


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


def checked_outputs(outputs: Tensor) -> Tensor:
    """Refuse outputs of an empty batch, whose mean is not a number.

    Args:
        outputs: (B, C).

    Returns:
        The outputs.

    Raises:
        RailkdError: not two dimensions, or no row.
    """
    if outputs.dim() != 2 or outputs.shape[0] == 0:
        raise RailkdError(f"Expected outputs (B, C) of at least one row, got {tuple(outputs.shape)}.")
    return outputs


def shaped_like(outputs: Tensor, other: Tensor, name: str) -> Tensor:
    """Refuse a tensor that would broadcast against the outputs of a model. Reads shapes only.

    Args:
        outputs: (B, C), or (B,) for one output.
        other: (B, C); for one output (B,) or (B, 1).
        name: of the tensor, for the message.

    Returns:
        The tensor in the shape of the outputs.

    Raises:
        RailkdError: the shapes differ, or there is no row.
    """
    one_each = outputs.shape[:1] == other.shape[:1] == (other.numel(),) == (outputs.numel(),)
    if outputs.shape[:1] == (0,) or (other.shape != outputs.shape and not one_each):
        raise RailkdError(
            f"Expected {name} of the shape {tuple(outputs.shape)} with at least one row, got {tuple(other.shape)}."
        )
    return other.reshape(outputs.shape)


def class_indices(outputs: Tensor, labels: Tensor) -> Tensor:
    """Refuse labels that are not one integer for each row. Reads shape and type only.

    Args:
        outputs: (B, C).
        labels: (B,) integers.

    Returns:
        (B,) int64.

    Raises:
        RailkdError: the labels are floats, or of another shape.
    """
    if labels.is_floating_point() or labels.shape != outputs.shape[:1]:
        raise RailkdError(
            f"Expected one class index for each of {len(outputs)} rows, got labels {tuple(labels.shape)} of "
            f"{labels.dtype}. Fix: give integers, or name the problem type of these labels."
        )
    return labels.long()


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
