"""CKD: Wu, Passban, Rezagholizadeh, Liu 2020, "Why Skip If You Can Combine: A Simple Knowledge Distillation Technique
for Intermediate Layers" (arXiv 2010.03034).

But: the paper shows its four ways to fill the buckets for one pair of depths; here they are rules for any pair (see
`buckets`). The map takes the teacher's bucket to the student's width, so unlike widths need nothing more.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from railkd.errors import RailkdError, did_you_mean
from railkd.mapping import Draw
from railkd.objectives.base import Objective, states_of
from railkd.objectives.maps import Constants
from railkd.signals import Signals

BUCKETINGS = ("regular", "overlapping", "skipping", "cross")


def buckets(m: int, n: int, bucketing: str = "regular") -> list[Draw]:
    """M(j): the teacher blocks (1-based, out of 1..n-1) that teach each of m student blocks.

    Args:
        bucketing: ``regular``: contiguous, as equal as can be; ``overlapping``: each takes in the next block too;
            ``skipping``: each leaves out its first block, where it has another; ``cross``: blocks dealt in turn, so
            that a bucket spans the depth.

    >>> buckets(2, 6), buckets(2, 6, "overlapping")
    ([(1, 2), (3, 4, 5)], [(1, 2, 3), (3, 4, 5)])
    >>> buckets(2, 6, "skipping"), buckets(2, 6, "cross")
    ([(2,), (4, 5)], [(1, 3, 5), (2, 4)])
    """
    blocks = tuple(range(1, n))
    if m > len(blocks):
        raise RailkdError(
            f"got {m} student blocks to teach and {len(blocks)} intermediate teacher blocks; use a shallower student"
        )
    edges = [j * len(blocks) // m for j in range(m + 1)]
    if bucketing == "regular":
        return [blocks[a:b] for a, b in itertools.pairwise(edges)]
    if bucketing == "overlapping":
        return [blocks[a : b + 1] for a, b in itertools.pairwise(edges)]
    if bucketing == "skipping":
        return [blocks[min(a + 1, b - 1) : b] for a, b in itertools.pairwise(edges)]
    if bucketing == "cross":
        return [blocks[j::m] for j in range(m)]
    raise RailkdError(
        f"unknown bucketing '{bucketing}'; known: {', '.join(BUCKETINGS)}.{did_you_mean(bucketing, BUCKETINGS)}"
    )


class CombinedKD(Objective):
    """``mean_j MSE( hs_j, W_j [ht_k for k in M(j)] )`` over the student blocks j = 1..s-1, masked means.

    Args:
        bucketing: how M(j) is filled; see `buckets`.
        options: see `Objective`.

    Example: W_1 = (1, 1), ht_1 = 1, ht_2 = 2, hs = 5: (5 - 3)^2 = 4 (bias 0).
    """

    def __init__(
        self,
        student_shape: tuple[int, int],
        teacher_shape: tuple[int, int],
        *,
        bucketing: str = "regular",
        **options: Any,
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        s, n = self.student_shape.blocks, self.teacher_shape.blocks
        if s < 2:
            raise RailkdError("CKD teaches the intermediate blocks 1..s-1: got a student of 1 block, wanted at least 2")
        self.m = s - 1
        self.buckets = buckets(self.m, n, bucketing)
        self.positions = Constants([block - 1 for bucket in self.buckets for block in bucket])  # 0-based
        d_s, d_t = self.student_shape.width, self.teacher_shape.width
        self.teacher_maps = nn.ModuleList(nn.Linear(len(bucket) * d_t, d_s) for bucket in self.buckets)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """See the class. ``draw`` is not used: the buckets are fixed."""
        h_s = self.student_states(student)  # (B, s-1, d_s)
        h_t = states_of(teacher, self.teacher_shape, "teacher", blocks=self.positions.values).to(h_s)
        parts = h_t.split([len(bucket) for bucket in self.buckets], dim=1)  # (B, blocks of a bucket, d_t) each
        pairs = zip(self.teacher_maps, parts, strict=True)
        combined = torch.stack([w(part.flatten(1)) for w, part in pairs], dim=1)  # (B, s-1, d_s)
        return F.mse_loss(h_s, combined)
