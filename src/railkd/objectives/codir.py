"""CoDIR: Sun, Gan, Cheng, Fang, Wang, Liu 2020, "Contrastive Distillation on Intermediate Representations for Language
Model Compression" (arXiv 2009.14167).

But:
- negatives are rows of other classes read from the teacher cache, K for each class, shared by the batch and a pure
  function of (seed, step): exact and never stale. The authors keep memory banks of old states, and use a two-sided NCE;
- masked means instead of CLS states (an option of the cache, not of the method);
- rows without a label, and regression, take any other rows as negatives.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from railkd.errors import RailkdError
from railkd.functional import full_precision, info_nce, unit
from railkd.mapping import Draw
from railkd.objectives.base import Objective, states_of
from railkd.signals import Signals


class ContrastiveKD(Objective):
    """``-log e^(zs.zt/tau) / (e^(zs.zt/tau) + sum_k e^(zs.zt_k/tau))``, z = unit( W [all blocks concatenated] ) in R^u.

    Args:
        shared_size: u. tau: temperature of the contrast. negatives: K, rows for each class.
        options: see `Objective`.

    Example: zs = zt = (1, 0), one negative (0, 1), tau = 1: -log( e / (e + 1) ) = 0.3133.
    """

    def __init__(
        self,
        student_shape: tuple[int, int],
        teacher_shape: tuple[int, int],
        *,
        shared_size: int = 128,
        tau: float = 0.07,
        negatives: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        if not tau > 0 or negatives < 1 or shared_size < 1:
            raise RailkdError(
                f"got tau {tau}, {negatives} negatives, shared_size {shared_size}; wanted numbers above 0"
            )
        self.tau, self.negatives = tau, negatives
        self.student_map = nn.Linear(self.student_shape.blocks * self.student_shape.width, shared_size)
        self.teacher_map = nn.Linear(self.teacher_shape.blocks * self.teacher_shape.width, shared_size)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """See the class. ``draw`` is not used: every block takes part."""
        held = teacher.negatives
        if held is None:
            raise RailkdError(
                "CoDIR contrasts with other rows of the teacher cache, got none; train from a cache (without --live), "
                "or give teacher=Signals(..., negatives=Negatives(...))"
            )
        z_s = self._z(self.student_map, self.student_states(student))  # (B, u)
        z_t = self._z(self.teacher_map, states_of(teacher, self.teacher_shape, "teacher").to(z_s.device))
        groups, k = held.states.shape[:2]
        states = held.states.detach().to(z_s.device)
        others = self._z(self.teacher_map, states.flatten(0, 1)).reshape(groups, k, -1)  # (G, K, u)
        return info_nce(z_s, z_t, others[held.group.to(z_s.device)], self.tau, held.keep)

    def _z(self, w: nn.Module, states: Tensor) -> Tensor:
        return unit(w(full_precision(states).flatten(1)))
