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
from typing import Any

import torch
from torch import Tensor, nn

from railkd import mapping
from railkd.errors import RailkdError, did_you_mean
from railkd.functional import normalized_distance
from railkd.mapping import Draw, order_statistics
from railkd.objectives.base import Objective, states_of
from railkd.objectives.maps import MapBank
from railkd.signals import Moments, Signals

CANDIDATES = ("intermediate", "all")
TEACHER_MAPS = ("trained", "orthogonal", "whitening", "centring")
MAPS_BY = ("match", "block", "teacher-block")
MATCHES = ("drawn", "all", "expected")


class _Rail(Objective):
    """The draw, shared by both variants."""

    #: How candidates and matched blocks are paired; the layer-wise variant knows others.
    match: str = "drawn"

    def __init__(
        self,
        student_shape: tuple[int, int],
        teacher_shape: tuple[int, int],
        *,
        candidates: str = "intermediate",
        redraw: str = "epoch",
        strategy: str = "uniform",
        ordered: bool = True,
        shared_size: int = 128,
        **options: Any,
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        _check("candidates", candidates, CANDIDATES)
        _check("redraw", redraw, mapping.REDRAWS)
        _check("strategy", strategy, mapping.STRATEGIES)
        if shared_size < 1:
            raise RailkdError(f"got shared_size {shared_size}, wanted at least 1 (128 is the default)")
        s, n = self.student_shape.blocks, self.teacher_shape.blocks
        everything = candidates == "all"
        self.m = s if everything else s - 1
        if self.m < 1:
            raise RailkdError(
                "a student of 1 block has no intermediate block to match; use candidates='all' "
                "(--candidates all), which matches its last block too"
            )
        self.candidates = mapping.candidates(n, include_last=everything)
        self.redraw, self.strategy, self.ordered, self.shared_size = redraw, strategy, ordered, shared_size
        # More matched blocks than candidates is said here, not at the first step.
        mapping.draw(self.m, self.candidates, seed=0, epoch=0)

    def draw(self, seed: int, *, epoch: int, step: int) -> Draw:
        """The teacher blocks that teach student blocks 1..m at this moment: a pure function of its arguments."""
        index = mapping.draw_index(self.redraw, epoch=epoch, step=step)
        return mapping.draw(
            self.m, self.candidates, seed=seed, epoch=index, strategy=self.strategy, ordered=self.ordered
        )

    def _matched(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, m, d_s) and (B, m, d_t) of the matched blocks, and the drawn positions (m,), 0-based."""
        h_s = self.student_states(student)
        wanted = self.m if self.match == "drawn" else len(self.candidates)
        if draw is None or len(draw) != wanted:
            raise RailkdError(
                f"got the draw {draw}, wanted {wanted} teacher blocks; objective.draw(seed, epoch=, step=) makes it"
            )
        if isinstance(draw, tuple) and not all(1 <= block <= self.teacher_shape.blocks for block in draw):
            raise RailkdError(f"got the draw {draw}, wanted teacher blocks from 1 to {self.teacher_shape.blocks}")
        drawn = torch.as_tensor(draw, device=h_s.device) - 1
        h_t = states_of(teacher, self.teacher_shape, "teacher", blocks=drawn)
        return h_s, h_t, drawn


class RailLayerwise(_Rail):
    """RAIL-KD^l: one pair of maps per match, alpha_i weighted.

    Args:
        candidates: ``intermediate``: teacher blocks 1..n-1 for student blocks 1..s-1; ``all``: 1..n for 1..s.
        redraw: once per ``epoch``, per optimizer ``step``, or ``never``.
        strategy, ordered: see `railkd.mapping.draw`.
        shared_size: u.
        alpha: ``mean`` (1/m each), ``sum`` (1 each), or m numbers.
        maps_by: maps of both sides indexed by ``match`` i, or by teacher ``block`` r(i); ``teacher-block``: only the
            teacher's by r(i), the student's by i.
        teacher_map: ``trained`` (the paper), or frozen: ``orthogonal`` (drawn by ``map_seed``), ``whitening`` (the top
            u principal components of each block over their deviations) or ``centring`` (the same, not divided); the
            last two want `fit`. The student's maps are then indexed by (match, teacher block), since each block is a
            target of its own.
        match: ``drawn`` (the paper); ``all``: every candidate teaches every matched block, mean; ``expected``: weighted
            by P(r(i) = t), which is the mean of ``drawn`` over all ordered draws. Both index the teacher's maps by
            block.
        options: see `Objective`.

    Example: with maps that are the identity, a student state (1, 0) taught by (0, 2): | (1, 0) - (0, 1) |^2 = 2.
    """

    def __init__(
        self,
        student_shape: tuple[int, int],
        teacher_shape: tuple[int, int],
        *,
        alpha: str | Sequence[float] = "mean",
        maps_by: str = "match",
        teacher_map: str = "trained",
        map_seed: int = 0,
        match: str = "drawn",
        **options: Any,
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        _check("maps_by", maps_by, MAPS_BY)
        _check("teacher_map", teacher_map, TEACHER_MAPS)
        _check("match", match, MATCHES)
        self.teacher_map, self.match = teacher_map, match
        self.frozen = teacher_map != "trained"
        self.by_block = self.frozen or match != "drawn" or maps_by != "match"
        self.student_by_block = match == "drawn" and maps_by == "block"
        self.alpha = _alphas(alpha, self.m)
        n, d_t, u = self.teacher_shape.blocks, self.teacher_shape.width, self.shared_size
        student_maps = self.m * n if self.frozen else n if self.student_by_block else self.m
        self.student_maps = MapBank(student_maps, self.student_shape.width, u)
        self.teacher_maps = MapBank(n if self.by_block else self.m, d_t, u)
        self.needs_fit = teacher_map in ("whitening", "centring")
        if self.frozen:
            self.teacher_maps.requires_grad_(False)
            self.teacher_maps.orthogonal_(map_seed)
        if self.needs_fit and u > d_t:
            raise RailkdError(
                f"teacher_map='{teacher_map}' keeps principal components: got shared_size {u}, wanted at most {d_t}"
            )
        self.fitted: Tensor
        self.register_buffer("fitted", torch.tensor(not self.needs_fit))
        self._known_fitted = not self.needs_fit  # reading a buffer at every step would wait for the device
        # Numbers and no buffer: some devices have no float64, and only one control reads them.
        self.chances = [[float(p) for p in row] for row in order_statistics(self.m, len(self.candidates))]  # (m, N)

    def fit(self, moments: Moments) -> None:
        """Set the frozen teacher maps from the moments of the teacher's states."""
        if self.needs_fit:
            self.teacher_maps.principal_(moments, whiten=self.teacher_map == "whitening")
            self.fitted.fill_(True)
            self._known_fitted = True

    def draw(self, seed: int, *, epoch: int, step: int) -> Draw:
        """See `_Rail.draw`; nothing is drawn where every candidate takes part."""
        return super().draw(seed, epoch=epoch, step=step) if self.match == "drawn" else self.candidates

    def projected(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> tuple[Tensor, Tensor]:
        """(B, m, u) and (B, m, u) of the drawn matches; without a draw (B, m, N, u) and (B, 1, N, u)."""
        if not self._known_fitted:
            if not bool(self.fitted):
                raise RailkdError(
                    f"teacher_map='{self.teacher_map}' is fitted on the teacher's states first: "
                    "objective.fit(cache.moments('mean')); a run from a cache does it by itself"
                )
            self._known_fitted = True
        h_s, h_t, drawn = self._matched(student, teacher, draw)
        match = torch.arange(self.m, device=h_s.device)
        if self.match == "drawn":
            by_draw = drawn if self.student_by_block else None
            a = self.student_maps(h_s, match * self.teacher_shape.blocks + drawn if self.frozen else by_draw)
            return a, self.teacher_maps(h_t, drawn if self.by_block else None)
        b = self.teacher_maps(h_t, drawn).unsqueeze(1)  # (B, 1, N, u)
        if not self.frozen:
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
            distance = (distance * distance.new_tensor(self.chances)).sum(dim=-1)
        return (distance * distance.new_tensor(self.alpha)).sum(dim=-1).mean()


class RailConcatenated(_Rail):
    """RAIL-KD^c: all matched blocks side by side, one map a side.

    Options as `RailLayerwise`, without alpha and the choice of maps.
    """

    def __init__(self, student_shape: tuple[int, int], teacher_shape: tuple[int, int], **options: Any) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        self.student_map = nn.Linear(self.m * self.student_shape.width, self.shared_size)
        self.teacher_map = nn.Linear(self.m * self.teacher_shape.width, self.shared_size)

    def projected(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> tuple[Tensor, Tensor]:
        """(B, 1, u) of both sides."""
        h_s, h_t, _ = self._matched(student, teacher, draw)
        a = self.student_map(h_s.flatten(1))  # (B, m * d_s) -> (B, u)
        b = self.teacher_map(h_t.flatten(1))
        return a.unsqueeze(1), b.unsqueeze(1)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """See the class."""
        return normalized_distance(*self.projected(student, teacher, draw)).mean()


def _check(option: str, got: Any, known: Sequence[str]) -> None:
    if got not in known:
        raise RailkdError(f"unknown {option} '{got}'; known: {', '.join(known)}.{did_you_mean(str(got), known)}")


def _alphas(alpha: str | Sequence[float], m: int) -> list[float]:
    named: Mapping[str, float] = {"mean": 1 / m, "sum": 1.0}
    if isinstance(alpha, str):
        _check("alpha", alpha, tuple(named))
        return [named[alpha]] * m
    values = [float(value) for value in alpha]
    if len(values) != m or not all(math.isfinite(value) and value >= 0 for value in values):
        raise RailkdError(f"got alpha {values}, wanted 'mean', 'sum' or {m} numbers >= 0, one per matched block")
    return values
