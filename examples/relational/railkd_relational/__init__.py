"""Relational distillation: the rows of a batch must lie to each other in the student as they do in the teacher.

Equations, with the pooled states of the last blocks s_i (B, d_s) and t_i (B, d_t), and the Huber loss h:

    distances   d_ij = |x_i - x_j| / mean_ij |x_i - x_j|;            D = mean_ij h( d_ij(s) - d_ij(t) )
    angles      a_ijk = < e_ij, e_kj >,  e_ij = unit( x_i - x_j );   A = mean_ijk h( a_ijk(s) - a_ijk(t) )

The term is ``distance * D + angle * A``. It needs no map, so the widths of the models may differ.

Source: Park, Kim, Lu, Cho 2019, "Relational Knowledge Distillation" (CVPR, arXiv 1904.05068).

Differences from the paper: the vectors are pooled states of transformer blocks and not image embeddings. The mean over
distances leaves out i = j; the means of D and A do not. The rows are those of a micro-batch on one rank.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from railkd import RailkdError
from railkd.objectives import Objective, states_of


class Relational(Objective):
    """``distance * D + angle * A`` of the last blocks.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        distance: weight of the distances between two rows.
        angle: weight of the angles between three rows.
        options: see `railkd.objectives.Objective`.

    Raises:
        RailkdError: a weight is below 0, or both are 0.

    Example: the teacher's rows are 0, 1, 2 on a line, the student's a triangle of equal sides. The teacher's distances
    over their mean, 4/3, are 0.75, 0.75 and 1.5, those of the student 1. h(0.25) = 0.03125 and h(0.5) = 0.125, so D =
    2 (2 * 0.03125 + 0.125) / 9.
    """

    paper = "Park et al. 2019, arXiv 1904.05068"
    reads = "the last of both, by pairs and triples of rows"
    pooling = "mean"
    over_pairs = True

    def __init__(
        self, student_shape: Any, teacher_shape: Any, *, distance: float = 1.0, angle: float = 2.0, **options: Any
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        if not (distance >= 0 and angle >= 0 and distance + angle > 0):
            raise RailkdError(f"Expected weights from 0, not both 0, got distance {distance:g} and angle {angle:g}.")
        self.distance, self.angle = distance, angle

    def intermediate(self, student: Any, teacher: Any, draw: Any) -> Tensor:
        """Return the term, a scalar."""
        h_s = self.student_states(student)[:, -1]  # (B, d_s)
        h_t = states_of(teacher, self.teacher_shape, "teacher")[:, -1].to(h_s)  # (B, d_t)
        distances = F.smooth_l1_loss(_distances(h_s), _distances(h_t))  # of (B, B)
        angles = F.smooth_l1_loss(_angles(h_s), _angles(h_t))  # of (B, B, B)
        return self.distance * distances + self.angle * angles


def _distances(x: Tensor) -> Tensor:
    """Return the distances of all pairs of rows, divided by their mean: (B, d) -> (B, B)."""
    size = (x.unsqueeze(0) - x.unsqueeze(1)).norm(dim=-1)
    mean = size.sum() / max(1, len(x) * (len(x) - 1))
    return size / mean.clamp(min=1e-6)


def _angles(x: Tensor) -> Tensor:
    """Return the cosines at the middle row j of all triples i, j, k: (B, d) -> (B of j, B of i, B of k)."""
    e = F.normalize(x.unsqueeze(0) - x.unsqueeze(1), dim=-1, eps=1e-6)  # (B of j, B of i, d)
    return e @ e.transpose(1, 2)
