"""RAIL-KD: Haidar et al., "RAIL-KD: RAndom Intermediate Layer Mapping for Knowledge Distillation", Findings of NAACL
2022 (arXiv 2109.10164).

Draw m of the N candidate teacher blocks at random, keep depth order, and pull the student's matched blocks towards them
in a shared space of u numbers:

    layer-wise     a_i = W^S_i hbar^S_i,  b_i = W^T_i hbar^T_r(i);   sum_i alpha_i | a_i/|a_i| - b_i/|b_i| |^2
    concatenated   A = W^S [hbar^S_1; ..; hbar^S_m],  Bv = W^T [hbar^T_r(1); ..; hbar^T_r(m)];   | A/|A| - Bv/|Bv| |^2

both as the mean over the batch, on masked means of the token states.

But (each an option; the default is the paper's reading as METHODS has it):
- alpha_i = 1/m, so that the term does not grow with the student; the public scripts take the plain sum
  (``alpha="sum"``);
- the draw is a pure function of (seed, index), not of global random state;
- the teacher's map may be frozen (``teacher_map``): both maps trainable admit a solution of zero loss that carries
  nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from railkd.errors import RailkdError
from railkd.functional import normalized_distance
from railkd.mapping import Draw, Draws, check_choice, order_statistics
from railkd.objectives.base import Objective, states_of
from railkd.objectives.maps import Constants, MapBank
from railkd.signals import Moments, Signals

TEACHER_MAPS = ("trained", "orthogonal", "whitening", "centring")
MAPS_BY = ("match", "block", "teacher-block")
MATCHES = ("drawn", "all", "expected")


@dataclass(frozen=True)
class Maps:
    """The choice of the projections W^S and W^T of `RailLayerwise`.

    Args:
        shared_size: u, the size of the shared space.
        maps_by: maps of both sides indexed by ``match`` i, or by teacher ``block`` r(i); ``teacher-block``: only the
            teacher's by r(i), the student's by i.
        teacher_map: ``trained`` (the paper), or frozen: ``orthogonal`` (drawn by ``map_seed``), ``whitening`` (the top
            u principal components of each block over their deviations) or ``centring`` (the same, not divided); the
            last two want `RailLayerwise.fit`. The student's maps are then indexed by (match, teacher block), since each
            block is a target of its own.
        map_seed: draws the orthogonal maps.

    Raises:
        RailkdError: an unknown choice, or a shared space without a component.
    """

    shared_size: int = 128
    maps_by: str = "match"
    teacher_map: str = "trained"
    map_seed: int = 0

    def __post_init__(self) -> None:
        check_choice("maps_by", self.maps_by, MAPS_BY)
        check_choice("teacher_map", self.teacher_map, TEACHER_MAPS)
        _check_size(self.shared_size)

    @property
    def frozen(self) -> bool:
        """True if the teacher's maps are not trained."""
        return self.teacher_map != "trained"


class RailLayerwise(Objective):
    """RAIL-KD^l: one pair of maps per match, alpha_i weighted.

    Args:
        student_shape: (blocks, width) of the student.
        teacher_shape: (blocks, width) of the teacher.
        draws: see `railkd.mapping.Draws.between`; None: its defaults.
        maps: see `Maps`.
        alpha: ``mean`` (1/m each), ``sum`` (1 each), or m numbers.
        match: ``drawn`` (the paper); ``all``: every candidate teaches every matched block, mean; ``expected``: weighted
            by P(r(i) = t), which is the mean of ``drawn`` over all ordered draws. Both index the teacher's maps by
            block.
        options: see `Objective`.

    Example: with maps that are the identity, a student state (1, 0) taught by (0, 2): | (1, 0) - (0, 1) |^2 = 2.
    """

    groups = MappingProxyType({"draws": Draws.between, "maps": Maps})

    def __init__(
        self,
        student_shape: tuple[int, int],
        teacher_shape: tuple[int, int],
        *,
        draws: Draws | None = None,
        maps: Maps | None = None,
        alpha: str | Sequence[float] = "mean",
        match: str = "drawn",
        **options: Any,
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        check_choice("match", match, MATCHES)
        draws, maps = _draws_for(self, draws), maps or Maps()
        self.m, self.candidates, self.match, self.maps = draws.m, draws.candidates, match, maps
        self.draws = draws if match == "drawn" else None
        self.by_block = maps.frozen or match != "drawn" or maps.maps_by != "match"
        self.student_by_block = match == "drawn" and maps.maps_by == "block"
        self.alpha = Constants(_alphas(alpha, self.m))  # (m,)
        n, d_t, u = self.teacher_shape.blocks, self.teacher_shape.width, maps.shared_size
        student_maps = self.m * n if maps.frozen else n if self.student_by_block else self.m
        self.student_maps = MapBank(student_maps, self.student_shape.width, u)
        self.teacher_maps = MapBank(n if self.by_block else self.m, d_t, u)
        self.needs_fit = maps.teacher_map in ("whitening", "centring")
        if maps.frozen:
            self.teacher_maps.requires_grad_(False)
            self.teacher_maps.orthogonal_(maps.map_seed)
        if self.needs_fit and u > d_t:
            raise RailkdError(
                f"teacher_map='{maps.teacher_map}' keeps principal components: got shared_size {u}, wanted at most "
                f"{d_t}"
            )
        self.fitted: Tensor
        self.register_buffer("fitted", torch.tensor(not self.needs_fit))
        self._known_fitted = not self.needs_fit  # reading a buffer at every step would wait for the device
        chances = order_statistics(self.m, len(self.candidates))
        self.chances = Constants([[float(p) for p in row] for row in chances])  # (m, N)

    def fit(self, moments: Moments) -> None:
        """Set the frozen teacher maps from the moments of the teacher's states."""
        if self.needs_fit:
            self.teacher_maps.principal_(moments, whiten=self.maps.teacher_map == "whitening")
            self.fitted.fill_(True)
            self._known_fitted = True

    def draw(self, seed: int, *, epoch: int, step: int) -> Draw:
        """Return the draw of a moment, or all candidates where every one takes part."""
        return self.candidates if self.draws is None else self.draws.at(seed, epoch=epoch, step=step)

    def projected(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> tuple[Tensor, Tensor]:
        """Return (B, m, u) and (B, m, u) of the drawn matches; without a draw (B, m, N, u) and (B, 1, N, u)."""
        if not self._known_fitted:
            if not bool(self.fitted):
                raise RailkdError(
                    f"teacher_map='{self.maps.teacher_map}' is fitted on the teacher's states first: "
                    "objective.fit(cache.moments('mean')); a run from a cache does it by itself"
                )
            self._known_fitted = True
        wanted = self.m if self.match == "drawn" else len(self.candidates)
        h_s = self.student_states(student)  # (B, m, d_s)
        h_t, drawn = _drawn_states(self, teacher, draw, wanted, h_s.device)  # (B, wanted, d_t), (wanted,)
        match = torch.arange(self.m, device=h_s.device)
        if self.match == "drawn":
            by_draw = drawn if self.student_by_block else None
            a = self.student_maps(h_s, match * self.teacher_shape.blocks + drawn if self.maps.frozen else by_draw)
            return a, self.teacher_maps(h_t, drawn if self.by_block else None)
        b = self.teacher_maps(h_t, drawn).unsqueeze(1)  # (B, 1, N, u)
        if not self.maps.frozen:
            return self.student_maps(h_s, None).unsqueeze(2), b  # (B, m, 1, u)
        pairs = match.unsqueeze(1) * self.teacher_shape.blocks + drawn  # (m, N)
        repeated = h_s.unsqueeze(2).expand(-1, -1, len(drawn), -1).flatten(1, 2)  # (B, m * N, d_s)
        return self.student_maps(repeated, pairs.flatten()).unflatten(1, tuple(pairs.shape)), b

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """See the class."""
        distance = normalized_distance(*self.projected(student, teacher, draw))  # (B, m) or (B, m, N)
        if self.match == "all":
            distance = distance.mean(dim=-1)
        elif self.match == "expected":
            distance = (distance * self.chances.values).sum(dim=-1)
        return (distance * self.alpha.values).sum(dim=-1).mean()


class RailConcatenated(Objective):
    """RAIL-KD^c: all matched blocks side by side, one map a side.

    Args:
        student_shape: (blocks, width) of the student.
        teacher_shape: (blocks, width) of the teacher.
        draws: see `railkd.mapping.Draws.between`; None: its defaults.
        shared_size: u, the size of the shared space.
        options: see `Objective`.
    """

    groups = MappingProxyType({"draws": Draws.between})

    def __init__(
        self,
        student_shape: tuple[int, int],
        teacher_shape: tuple[int, int],
        *,
        draws: Draws | None = None,
        shared_size: int = 128,
        **options: Any,
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        _check_size(shared_size)
        self.draws = _draws_for(self, draws)
        self.m = self.draws.m
        self.student_map = nn.Linear(self.m * self.student_shape.width, shared_size)
        self.teacher_map = nn.Linear(self.m * self.teacher_shape.width, shared_size)

    def projected(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> tuple[Tensor, Tensor]:
        """Return (B, 1, u) of both sides."""
        h_s = self.student_states(student)  # (B, m, d_s)
        h_t, _ = _drawn_states(self, teacher, draw, self.m, h_s.device)  # (B, m, d_t)
        a = self.student_map(h_s.flatten(1))  # (B, m * d_s) -> (B, u)
        b = self.teacher_map(h_t.flatten(1))
        return a.unsqueeze(1), b.unsqueeze(1)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """See the class."""
        return normalized_distance(*self.projected(student, teacher, draw)).mean()


def _draws_for(objective: Objective, draws: Draws | None) -> Draws:
    """Return the given draws, or the paper's for this pair of models; refuse blocks that a model lacks."""
    s, n = objective.student_shape.blocks, objective.teacher_shape.blocks
    draws = draws or Draws.between(s, n)
    if draws.m > s or not all(1 <= block <= n for block in draws.candidates):
        raise RailkdError(
            f"got draws of {draws.m} out of the teacher blocks {draws.candidates}, wanted at most {s} out of 1 to {n}"
        )
    return draws


def _drawn_states(
    objective: Objective, teacher: Signals, draw: Tensor | Draw | None, wanted: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the teacher's states of the drawn blocks (B, wanted, d_t) and their 0-based positions (wanted,)."""
    if draw is None or len(draw) != wanted:
        raise RailkdError(
            f"got the draw {draw}, wanted {wanted} teacher blocks; objective.draw(seed, epoch=, step=) makes it"
        )
    n = objective.teacher_shape.blocks
    if isinstance(draw, tuple) and not all(1 <= block <= n for block in draw):
        raise RailkdError(f"got the draw {draw}, wanted teacher blocks from 1 to {n}")
    drawn = torch.as_tensor(draw, device=device) - 1
    return states_of(teacher, objective.teacher_shape, "teacher", blocks=drawn), drawn


def _check_size(shared_size: int) -> None:
    if shared_size < 1:
        raise RailkdError(f"got shared_size {shared_size}, wanted at least 1 (128 is the default)")


def _alphas(alpha: str | Sequence[float], m: int) -> list[float]:
    named: Mapping[str, float] = {"mean": 1 / m, "sum": 1.0}
    if isinstance(alpha, str):
        check_choice("alpha", alpha, tuple(named))
        return [named[alpha]] * m
    values = [float(value) for value in alpha]
    if len(values) != m or not all(math.isfinite(value) and value >= 0 for value in values):
        raise RailkdError(f"got alpha {values}, wanted 'mean', 'sum' or {m} numbers >= 0, one per matched block")
    return values
