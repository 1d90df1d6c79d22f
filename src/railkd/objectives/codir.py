"""CoDIR: the student's states of an example must lie nearer to the teacher's than to those of other examples.

Equation: ``-log e^(zs.zt/tau) / ( e^(zs.zt/tau) + sum_k e^(zs.zt_k/tau) )``, mean over the batch, with z = unit( W [all
blocks concatenated] ) (B, u) of the masked means hs (B, s, d_s) and ht (B, n, d_t), and zt_k of K other examples.

Source: Sun, Gan, Cheng, Fang, Wang, Liu 2020, "Contrastive Distillation on Intermediate Representations for Language
Model Compression" (arXiv 2009.14167).

Differences from the paper:
- The negatives are rows of other classes from the teacher cache: K for each class, shared by the batch, a pure function
  of (seed, step). They are exact. The authors keep memory banks of old states and use a two-sided NCE.
- The states are masked means. The authors use CLS states.
- Rows without a label, and rows of a regression, take any other rows as negatives.
- All teacher blocks are concatenated. The authors take every second block of the teacher.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from railkd.errors import RailkdError
from railkd.functional import full_precision, info_nce, unit
from railkd.mapping import Draw
from railkd.objectives.base import Objective, Shape, states_of
from railkd.objectives.maps import Linear, check_shared_size
from railkd.signals import Signals


class ContrastiveKD(Objective):
    """``-log e^(zs.zt/tau) / (e^(zs.zt/tau) + sum_k e^(zs.zt_k/tau))`` with unit vectors z in R^u.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        shared_size: u, the size of the shared space.
        tau: temperature of the contrast.
        negatives: K, the number of other rows for each class.
        options: see `Objective`.

    Raises:
        RailkdError: tau, negatives or shared_size is not above 0.

    Example: zs = zt = (1, 0), one negative (0, 1), tau = 1: -log( e / (e + 1) ) = 0.3133.
    """

    paper = "Sun et al. 2020, arXiv 2009.14167"
    reads = "all of both, concatenated"
    pooling = "mean"

    def __init__(
        self,
        student_shape: Shape,
        teacher_shape: Shape,
        *,
        shared_size: int = 128,
        tau: float = 0.07,
        negatives: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        check_shared_size(shared_size)
        if not tau > 0 or negatives < 1:
            raise RailkdError(f"Expected numbers above 0, got tau {tau}, {negatives} negatives.")
        self.tau, self.negatives = tau, negatives
        self.student_map = Linear(self.student_shape.blocks * self.student_shape.width, shared_size)
        self.teacher_map = Linear(self.teacher_shape.blocks * self.teacher_shape.width, shared_size)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """Return the term, a scalar; see `Objective.intermediate`. Needs negatives; ``draw`` is ignored."""
        held = teacher.negatives
        if held is None:
            raise RailkdError(
                "CoDIR contrasts with other rows of the teacher cache, but got none. Fix: train from a cache (without "
                "--live), or give teacher=Signals(..., negatives=Negatives(...))."
            )
        z_s = self._z(self.student_map, self.student_states(student))  # (B, u)
        z_t = self._z(self.teacher_map, states_of(teacher, self.teacher_shape, "teacher").to(z_s))  # (B, u)
        groups, k = held.states.shape[:2]
        states = full_precision(held.states.detach()).to(z_s)  # (G, K, n, d_t)
        others = self._z(self.teacher_map, states.flatten(0, 1)).reshape(groups, k, -1)  # (G, K, u)
        return info_nce(z_s, z_t, others[held.group.to(z_s.device)], self.tau, held.keep)

    def _z(self, w: nn.Module, states: Tensor) -> Tensor:
        """Map all blocks of each row, (R, n, d), to a unit vector, (R, u)."""
        return unit(w(full_precision(states).flatten(1)))
