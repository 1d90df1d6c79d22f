"""Gram: the rows of a batch must lie to each other in the student as they do in the teacher.

Equation: ``10 mean over row pairs of (A A^T - Bm Bm^T)^2``, mean over the student blocks i, with A = unit( hs_i - mu ),
Bm = unit( ht_t(i) - mu_t(i) ), masked means hs (B, s, d_s) and ht (B, n, d_t), and mu_t the mean of block t over the
rows of the teacher cache. There is no map, so no map can collapse.

Source: this library; compare relational knowledge distillation, Park, Kim, Lu, Cho 2019 (CVPR, arXiv 1904.05068), and
arXiv 2509.25253.

Differences from relational distillation: the cosine of the centred states takes the place of distances and angles, and
block after block is matched, not the last layer alone.
- t(i) is the block that student block i was copied from, or the nearest by depth.
- mu is mu_t(i) at equal width. Otherwise it is the mean of the batch, so that the term depends on the batch alone.
- The rows are those of a micro-batch on one rank: this term does change if a batch is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from railkd.errors import RailkdError
from railkd.functional import unit
from railkd.mapping import Draw
from railkd.objectives.base import Objective, Shape, states_of
from railkd.objectives.maps import Constants, Fitted
from railkd.signals import Moments, Signals

#: The mean of squared cosine differences is small beside CE and KD.
SCALE = 10.0


class Gram(Objective):
    """``10 mean (A A^T - Bm Bm^T)^2`` over row pairs and student blocks.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        taught_by: the teacher block of each student block, s numbers. Default: the one that it was copied from, or the
            nearest by depth.
        options: see `Objective`.

    Raises:
        RailkdError: ``taught_by`` is not s numbers from 1 to n.

    Example: two rows, mu = 0. Student (1, 0), (0, 1): A A^T is the identity. Teacher (1, 0), (1, 0): all ones. Two of
    the four pairs differ by 1: 10 * 2/4 = 5.
    """

    paper = "ours; cf. arXiv 1904.05068"
    reads = "all, by row pairs"
    pooling = "mean"
    over_pairs = True
    needs_fit = True

    def __init__(
        self, student_shape: Shape, teacher_shape: Shape, *, taught_by: Sequence[int] | None = None, **options: Any
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        s, n = self.student_shape.blocks, self.teacher_shape.blocks
        nearest = [max(1, (2 * i * n + s) // (2 * s)) for i in range(1, s + 1)]
        self.taught_by = nearest if taught_by is None else [int(block) for block in taught_by]
        if len(self.taught_by) != s or not all(1 <= block <= n for block in self.taught_by):
            raise RailkdError(
                f"Expected {s} teacher blocks from 1 to {n}, one for each student block, got taught_by "
                f"{self.taught_by}."
            )
        self.positions = Constants([block - 1 for block in self.taught_by])  # (s,), 0-based
        self.means = Fitted(n, self.teacher_shape.width)

    def fit(self, moments: Moments) -> None:
        """Keep the means of the teacher's blocks; see `Objective.fit`."""
        self.means.set_(moments.mean)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """Return the term, a scalar; see `Objective.intermediate`. ``draw`` is ignored, the match is fixed."""
        h_s = self.student_states(student)  # (B, s, d_s)
        h_t = states_of(teacher, self.teacher_shape, "teacher", blocks=self.positions.values).to(h_s)  # (B, s, d_t)
        mu = self.means()[self.positions.values].to(h_s)  # (s, d_t)
        centre = mu if mu.shape == h_s.shape[1:] else h_s.mean(dim=0)
        a, b = (unit(x).transpose(0, 1) for x in (h_s - centre, h_t - mu))  # (s, B, d)
        return SCALE * (a @ a.transpose(1, 2) - b @ b.transpose(1, 2)).square().mean()  # of (s, B, B)
