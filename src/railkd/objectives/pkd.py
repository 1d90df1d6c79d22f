"""Patient KD: Sun, Cheng, Gan, Liu 2019, "Patient Knowledge Distillation for BERT Model Compression" (arXiv
1908.09355).

But:
- student and teacher of unlike width: a trainable linear map on the student's states (the paper has equal widths);
- weights 1/3 each by default; the paper searches (1-a) CE + a KD + b PT with a = .2-.7, b = 10-1000, T = 5-20;
- the patient term is the component *mean* of the squared difference, as the paper's numbers for b presume.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from railkd import mapping
from railkd.errors import RailkdError, did_you_mean
from railkd.functional import unit
from railkd.mapping import Draw
from railkd.objectives.base import Objective, states_of
from railkd.objectives.maps import Constants
from railkd.signals import Signals


class PatientKD(Objective):
    """``PT = mean_i MSE( unit(hs_i), unit(ht_I(i)) )`` over the intermediate student blocks i = 1..s-1, CLS pooling.

    Args:
        blocks: ``skip``: I(i) = floor(i n / s); ``last``: I = n-s+1..n-1.
        options: see `Objective`.

    Example: unit vectors at a right angle, (1, 0) and (0, 1), differ by 1 in both components: PT = 1.
    """

    def __init__(
        self, student_shape: tuple[int, int], teacher_shape: tuple[int, int], *, blocks: str = "skip", **options: Any
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        s, n = self.student_shape.blocks, self.teacher_shape.blocks
        if s < 2:
            raise RailkdError(
                "PKD matches the student's intermediate blocks 1..s-1: got a student of 1 block, wanted at least 2"
            )
        self.m = s - 1
        ways = {"skip": mapping.skip, "last": mapping.last}
        if blocks not in ways:
            raise RailkdError(f"unknown blocks '{blocks}'; known: {', '.join(ways)}.{did_you_mean(blocks, ways)}")
        self.teacher_blocks: Draw = ways[blocks](s, n)
        self.positions = Constants([block - 1 for block in self.teacher_blocks])  # (s-1,), 0-based
        d_s, d_t = self.student_shape.width, self.teacher_shape.width
        self.student_map = nn.Identity() if d_s == d_t else nn.Linear(d_s, d_t)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """See the class. ``draw`` is not used: the match is fixed."""
        h_s = self.student_states(student)  # (B, s-1, d_s)
        h_t = states_of(teacher, self.teacher_shape, "teacher", blocks=self.positions.values)  # (B, s-1, d_t)
        a = unit(self.student_map(h_s))
        return F.mse_loss(a, unit(h_t.to(a)))
