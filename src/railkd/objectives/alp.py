"""ALP-KD: each student block learns from all teacher blocks, weighted by attention.

Equation: ``mean_j MSE( hs_j, sum_k softmax_k(hs_j . ht_k) ht_k )`` with j = 1..s-1, k = 1..n and CLS states hs (B, s,
d_s), ht (B, n, d_t).

Source: Passban, Wu, Rezagholizadeh, Liu 2021, "ALP-KD: Attention-Based Layer Projection for Knowledge Distillation"
(arXiv 2012.14022).

Difference from the paper, which has equal widths: where widths differ, a trainable linear map takes the student's
states to the teacher's width. Attention and distance both use the mapped states.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from railkd.mapping import Draw
from railkd.objectives.base import Objective, Shape, intermediate_blocks, states_of
from railkd.objectives.maps import map_between
from railkd.signals import Signals


class AttentionKD(Objective):
    """``mean_j MSE( hs_j, sum_k softmax_k(hs_j . ht_k) ht_k )``: student blocks 1..s-1, all teacher blocks.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        options: see `Objective`.

    Raises:
        RailkdError: the student has no intermediate block.

    Example: hs = (0, 0) attends evenly to ht_1 = (2, 0) and ht_2 = (0, 2). The target is (1, 1) and the term
    (1 + 1) / 2 = 1.
    """

    paper = "Passban et al. 2021, arXiv 2012.14022"
    reads = "1..s-1; all of the teacher's, by attention"
    pooling = "cls"
    own_coordinates = True

    def __init__(self, student_shape: Shape, teacher_shape: Shape, **options: Any) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        self.m = intermediate_blocks(self.student_shape, "ALP-KD")
        self.student_map = map_between(self.student_shape.width, self.teacher_shape.width)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """Return the term, a scalar; see `Objective.intermediate`. ``draw`` is ignored, every block takes part."""
        h_s = self.student_states(student)  # (B, s-1, d_s)
        h_s = self.student_map(h_s)  # (B, s-1, d_t)
        h_t = states_of(teacher, self.teacher_shape, "teacher").to(h_s)  # (B, n, d_t)
        attention = (h_s @ h_t.transpose(1, 2)).softmax(dim=-1)  # (B, s-1, n)
        return F.mse_loss(h_s, attention @ h_t)
