"""RAIL-NCE: RAIL-KD's draws, with a contrast in place of the distance, so that a constant student loses.

Equation: for each matched student block i ``-log e^(a_i.b_i/tau) / ( e^(a_i.b_i/tau) + sum_k e^(a_i.b_ik/tau) )``,
mean over the batch and over i, with a_i = unit( W^S hs_i ), b_i = unit( (ht_r(i) - mu_r(i)) V_r(i) ), and b_ik the same
of K other cached rows of block r(i). V_t holds the top u principal components of block t; V and mu are fitted on the
cache and frozen. The student has a map for each pair (match, teacher block), as wherever the targets are frozen.

Sources: the draws are those of RAIL-KD, Haidar et al. 2022 (arXiv 2109.10164); the contrast is InfoNCE, van den Oord et
al. 2018 (arXiv 1807.03748), as CoDIR uses it (arXiv 2009.14167). The combination is an addition of this library.

Differences from CoDIR: block by block, the teacher's side is frozen, and the K rows are any rows, not those of other
classes, so that the term asks for more than the class.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from railkd.errors import RailkdError
from railkd.functional import full_precision, info_nce, unit
from railkd.mapping import Draw, Draws
from railkd.objectives.base import Objective, Shape
from railkd.objectives.rail import DRAWN, Maps, RailLayerwise
from railkd.signals import Moments, Signals


class RailNCE(Objective):
    """InfoNCE of each drawn block's centred state among those of other rows.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        draws: see `railkd.mapping.Draws.between`. Default: its defaults.
        shared_size: u, the number of principal components.
        tau: temperature of the contrast.
        negatives: K, the number of other rows.
        options: see `Objective`.

    Raises:
        RailkdError: tau or negatives is not above 0.
    """

    paper = "ours: RAIL-KD, contrasted"
    reads = DRAWN
    pooling = "mean"
    groups = MappingProxyType({"draws": Draws.between})
    needs_fit = True
    negatives_by_class = False

    def __init__(
        self,
        student_shape: Shape,
        teacher_shape: Shape,
        *,
        draws: Draws | None = None,
        shared_size: int = 128,
        tau: float = 0.07,
        negatives: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        if not tau > 0 or negatives < 1:
            raise RailkdError(f"Expected numbers above 0, got tau {tau} and {negatives} negatives.")
        maps = Maps(shared_size=shared_size, teacher_map="centring")
        self.rail = RailLayerwise(student_shape, teacher_shape, draws=draws, maps=maps)
        self.draws, self.m, self.tau, self.negatives = self.rail.draws, self.rail.m, tau, negatives

    def fit(self, moments: Moments) -> None:
        """Set the frozen maps of the teacher; see `Objective.fit`."""
        self.rail.fit(moments)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """Return the term, a scalar; see `Objective.intermediate`. Needs negatives. ``draw``: (m,) drawn blocks."""
        self.rail.checks_draws = self.checks_draws
        a, b = map(unit, self.rail.projected(student, teacher, draw))  # (B, m, u)
        held = teacher.negatives
        if held is None:
            raise RailkdError(
                "RAIL-NCE contrasts with other rows of the teacher cache, but got none. Fix: train from a cache "
                "(without --live), or give teacher=Signals(..., negatives=Negatives(...))."
            )
        drawn = torch.as_tensor(draw, device=a.device) - 1  # (m,), checked by `projected`
        rows = full_precision(held.states.detach().to(a.device)[:, :, drawn]).to(a)  # (G, K, m, d_t)
        others = unit(self.rail.teacher_maps(rows.flatten(0, 1), drawn)).unflatten(0, rows.shape[:2])  # (G, K, m, u)
        others = others[held.group.to(a.device)]  # (B, K, m, u)
        terms = [info_nce(a[:, i], b[:, i], others[:, :, i], self.tau, held.keep) for i in range(self.m)]
        return torch.stack(terms).mean()
