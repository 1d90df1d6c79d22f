"""ALP-KD: Passban, Wu, Rezagholizadeh, Liu 2021, "ALP-KD: Attention-Based Layer Projection for Knowledge Distillation"
(arXiv 2012.14022).

But: a trainable linear map takes the student's states to the teacher's width where they differ (the paper has equal
widths); attention and distance both use the mapped states.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from railkd.errors import RailkdError
from railkd.mapping import Draw
from railkd.objectives.base import Objective, states_of
from railkd.signals import Signals


class AttentionKD(Objective):
    """``mean_j MSE( hs_j, sum_k softmax_k(hs_j . ht_k) ht_k )``, student blocks 1..s-1, all teacher blocks, CLS
    pooling.

    Example: hs = (0, 0) attends evenly to ht_1 = (2, 0) and ht_2 = (0, 2); the target is (1, 1), the term (1 + 1) / 2 =
        1.
    """

    def __init__(self, student_shape: tuple[int, int], teacher_shape: tuple[int, int], **options: Any) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        if self.student_shape.blocks < 2:
            raise RailkdError(
                "ALP-KD teaches the intermediate blocks 1..s-1: got a student of 1 block, wanted at least 2"
            )
        self.m = self.student_shape.blocks - 1
        d_s, d_t = self.student_shape.width, self.teacher_shape.width
        self.student_map = nn.Identity() if d_s == d_t else nn.Linear(d_s, d_t)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """See the class. ``draw`` is not used: every block takes part."""
        h_s = self.student_states(student)  # (B, s-1, d_s)
        h_s = self.student_map(h_s)  # (B, s-1, d_t)
        h_t = states_of(teacher, self.teacher_shape, "teacher").to(h_s)  # (B, n, d_t)
        attention = (h_s @ h_t.transpose(1, 2)).softmax(dim=-1)  # (B, s-1, n)
        return F.mse_loss(h_s, attention @ h_t)
