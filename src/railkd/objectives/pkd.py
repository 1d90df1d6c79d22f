"""Patient KD: each intermediate student block learns the direction of one fixed teacher block.

Equation: ``PT = mean_i MSE( unit(hs_i), unit(ht_I(i)) )`` with i = 1..s-1 and CLS states hs (B, s, d_s), ht (B, n,
d_t). MSE is the mean over the components, as the paper's weights b of this term presume.

Source: Sun, Cheng, Gan, Liu 2019, "Patient Knowledge Distillation for BERT Model Compression" (arXiv 1908.09355).

Differences from the paper:
- Where widths differ, a trainable linear map takes the student's states to the teacher's width. The paper has equal
  widths.
- The default weights are 1/3 each. The paper searches (1-a) CE + a KD + b PT with a = .2-.7, b = 10-1000, T = 5-20.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from railkd import mapping
from railkd.functional import unit
from railkd.mapping import Draw, check_choice
from railkd.objectives.base import Objective, Shape, intermediate_blocks, states_of
from railkd.objectives.maps import Constants, map_between
from railkd.signals import Signals

#: Name of a rule -> I(1..s-1), the teacher blocks that it gives for s and n blocks.
_RULES = {"skip": mapping.skip, "last": mapping.last}


class PatientKD(Objective):
    """``PT = mean_i MSE( unit(hs_i), unit(ht_I(i)) )`` over the intermediate student blocks i = 1..s-1.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        blocks: ``skip``: I(i) = floor(i n / s); ``last``: I = n-s+1..n-1.
        options: see `Objective`.

    Raises:
        RailkdError: the rule is unknown, the student has no intermediate block, or it is deeper than the teacher.

    Example: unit vectors at a right angle, (1, 0) and (0, 1), differ by 1 in both components: PT = 1.
    """

    paper = "Sun et al. 2019, arXiv 1908.09355"
    pooling = "cls"
    own_coordinates = True

    def __init__(self, student_shape: Shape, teacher_shape: Shape, *, blocks: str = "skip", **options: Any) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        self.m = intermediate_blocks(self.student_shape, "Patient KD")
        check_choice("blocks", blocks, tuple(_RULES))
        self.teacher_blocks: Draw = _RULES[blocks](self.student_shape.blocks, self.teacher_shape.blocks)
        self.positions = Constants([block - 1 for block in self.teacher_blocks])  # (s-1,), 0-based
        self.student_map = map_between(self.student_shape.width, self.teacher_shape.width)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """Return the term, a scalar; see `Objective.intermediate`. ``draw`` is ignored, the match is fixed."""
        h_s = self.student_states(student)  # (B, s-1, d_s)
        h_t = states_of(teacher, self.teacher_shape, "teacher", blocks=self.positions.values)  # (B, s-1, d_t)
        a = unit(self.student_map(h_s))
        return F.mse_loss(a, unit(h_t.to(a)))
