"""CKD: each student block learns a linear combination of several teacher blocks.

Equation: ``mean_j MSE( hs_j, W_j [ht_k for k in M(j)] )`` with j = 1..s-1, masked means hs (B, s, d_s), ht (B, n, d_t),
and [..] the concatenation of a bucket M(j) of teacher blocks.

Source: Wu, Passban, Rezagholizadeh, Liu 2020, "Why Skip If You Can Combine: A Simple Knowledge Distillation Technique
for Intermediate Layers" (arXiv 2010.03034).

Differences from the paper:
- The paper shows its four ways to fill the buckets for one pair of depths. Here they are rules for any pair, see
  `buckets`.
- W_j maps to the student's width, so widths may differ.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from railkd.errors import RailkdError
from railkd.mapping import Draw, check_choice
from railkd.objectives.base import Objective, Shape, intermediate_blocks, states_of
from railkd.objectives.maps import Constants, Linear
from railkd.signals import Signals

BUCKETINGS = ("regular", "overlapping", "skipping", "cross")


def buckets(m: int, n: int, bucketing: str = "regular") -> list[Draw]:
    """Return M(1..m): the teacher blocks that teach each of m student blocks.

    Args:
        m: number of student blocks to teach.
        n: number of teacher blocks.
        bucketing: ``regular``: contiguous, as equal as possible; ``overlapping``: each includes the next block too;
            ``skipping``: each leaves out its first block if it has another; ``cross``: blocks are dealt in turn, so a
            bucket spans the depth.

    Returns:
        m tuples of teacher blocks from 1..n-1, counted from 1.

    Raises:
        RailkdError: the bucketing is unknown, or the teacher has fewer than m intermediate blocks.

    >>> buckets(2, 6), buckets(2, 6, "overlapping")
    ([(1, 2), (3, 4, 5)], [(1, 2, 3), (3, 4, 5)])
    >>> buckets(2, 6, "skipping"), buckets(2, 6, "cross")
    ([(2,), (4, 5)], [(1, 3, 5), (2, 4)])
    """
    blocks = tuple(range(1, n))
    if m > len(blocks):
        raise RailkdError(
            f"Expected at least as many intermediate teacher blocks as student blocks to teach, got {len(blocks)} and "
            f"{m}. Fix: use a shallower student."
        )
    check_choice("bucketing", bucketing, BUCKETINGS)
    edges = [j * len(blocks) // m for j in range(m + 1)]
    if bucketing == "regular":
        return [blocks[a:b] for a, b in itertools.pairwise(edges)]
    if bucketing == "overlapping":
        return [blocks[a : b + 1] for a, b in itertools.pairwise(edges)]
    if bucketing == "skipping":
        return [blocks[min(a + 1, b - 1) : b] for a, b in itertools.pairwise(edges)]
    return [blocks[j::m] for j in range(m)]


class CombinedKD(Objective):
    """``mean_j MSE( hs_j, W_j [ht_k for k in M(j)] )`` over the student blocks j = 1..s-1.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        bucketing: how to fill M(j): regular, overlapping, skipping or cross; see `buckets`.
        options: see `Objective`.

    Raises:
        RailkdError: the bucketing is unknown, or student or teacher has too few intermediate blocks.

    Example: W_1 = (1, 1), ht_1 = 1, ht_2 = 2, hs = 5: (5 - 3)^2 = 4 (bias 0).
    """

    paper = "Wu et al. 2020, arXiv 2010.03034"
    reads = "1..s-1; buckets of 1..n-1, concatenated"
    pooling = "mean"

    def __init__(
        self, student_shape: Shape, teacher_shape: Shape, *, bucketing: str = "regular", **options: Any
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        self.m = intermediate_blocks(self.student_shape, "CKD")
        self.buckets = buckets(self.m, self.teacher_shape.blocks, bucketing)
        self.positions = Constants([block - 1 for bucket in self.buckets for block in bucket])  # 0-based
        d_s, d_t = self.student_shape.width, self.teacher_shape.width
        self.teacher_maps = nn.ModuleList(Linear(len(bucket) * d_t, d_s) for bucket in self.buckets)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """Return the term, a scalar; see `Objective.intermediate`. ``draw`` is ignored, the buckets are fixed."""
        h_s = self.student_states(student)  # (B, s-1, d_s)
        h_t = states_of(teacher, self.teacher_shape, "teacher", blocks=self.positions.values).to(h_s)
        parts = h_t.split([len(bucket) for bucket in self.buckets], dim=1)  # (B, blocks of a bucket, d_t) each
        pairs = zip(self.teacher_maps, parts, strict=True)
        combined = torch.stack([w(part.flatten(1)) for w, part in pairs], dim=1)  # (B, s-1, d_s)
        return F.mse_loss(h_s, combined)
