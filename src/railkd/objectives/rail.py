"""RAIL-KD: random intermediate layer mapping, layer-wise and concatenated.

Draw m of the N candidate teacher blocks at random and keep depth order: r(1) < .. < r(m). Each drawn block teaches one
student block in a shared space of u numbers. With masked means hs (B, s, d_s) and ht (B, n, d_t):

    layer-wise     a_i = W^S_i hs_i,  b_i = W^T_i ht_r(i);   sum_i alpha_i | a_i/|a_i| - b_i/|b_i| |^2
    concatenated   A = W^S [hs_1; ..; hs_m],  Bv = W^T [ht_r(1); ..; ht_r(m)];   | A/|A| - Bv/|Bv| |^2

Both are means over the batch.

Source: Haidar et al., "RAIL-KD: RAndom Intermediate Layer Mapping for Knowledge Distillation", Findings of NAACL 2022
(arXiv 2109.10164).

Differences from the paper, and what it leaves open:
- alpha_i = 1/m by default, so the term does not grow with the student; ``alpha="sum"`` is the plain sum.
- The draw is a pure function of (seed, index) and not of a global random state.
- The teacher's map can be frozen (``teacher_map``), because two trained maps have a solution of zero loss that carries
  nothing.
- ``match="all"`` and ``match="expected"`` are controls without randomness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from railkd.errors import RailkdError
from railkd.functional import normalized_distance
from railkd.mapping import Draw, Draws, check_choice, order_statistics
from railkd.objectives.base import Objective, Shape, states_of
from railkd.objectives.maps import Constants, Linear, MapBank, check_shared_size
from railkd.runtime.words import listed
from railkd.signals import Moments, Signals

PAPER = "Haidar et al. 2022, arXiv 2109.10164"
#: The blocks that all methods with draws read.
DRAWN = "1..s-1; drawn from 1..n-1"
TEACHER_MAPS = ("trained", "orthogonal", "whitening", "centring")
MAPS_BY = ("match", "block", "teacher-block")
MATCHES = ("drawn", "all", "expected")
#: Options that have no effect if every candidate takes part, with their defaults.
UNUSED_WITHOUT_DRAW: Mapping[str, Any] = MappingProxyType(
    {"strategy": "uniform", "ordered": True, "redraw": "epoch", "maps_by": "match"}
)


@dataclass(frozen=True)
class Maps:
    """The projections W^S and W^T of `RailLayerwise`.

    Args:
        shared_size: u, the size of the shared space.
        maps_by: index of the maps. ``match``: i for both models; ``block``: the teacher block r(i) for both;
            ``teacher-block``: r(i) for the teacher's maps and i for the student's.
        teacher_map: ``trained`` as in the paper, or frozen. ``orthogonal``: random, from ``map_seed``; ``whitening``:
            the top u principal components of each block, divided by their standard deviations; ``centring``: the same
            without the division. The last two need `RailLayerwise.fit`. With a frozen map each teacher block is a
            target of its own, so the student's maps are indexed by (match, teacher block).
        map_seed: determines the orthogonal maps.

    Raises:
        RailkdError: a choice is unknown, or shared_size is not between 1 and 65,536.
    """

    shared_size: int = 128
    maps_by: str = "match"
    teacher_map: str = "trained"
    map_seed: int = 0

    def __post_init__(self) -> None:
        check_choice("maps_by", self.maps_by, MAPS_BY)
        check_choice("teacher_map", self.teacher_map, TEACHER_MAPS)
        check_shared_size(self.shared_size)

    @property
    def frozen(self) -> bool:
        """True if the teacher's maps are not trained."""
        return self.teacher_map != "trained"


class RailLayerwise(Objective):
    """RAIL-KD^l: ``sum_i alpha_i | unit(a_i) - unit(b_i) |^2``, one pair of maps for each match.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        draws: see `railkd.mapping.Draws.between`. Default: its defaults.
        maps: see `Maps`. Default: its defaults.
        alpha: weights of the matches: ``mean`` (1/m each), ``sum`` (1 each), or m numbers, as text 1,2,...
        match: ``drawn`` as in the paper; ``all``: every candidate teaches every matched block, mean; ``expected``:
            weighted by P(r(i) = t), which is the mean of ``drawn`` over all ordered draws. The last two draw nothing
            and index the teacher's maps by block.
        options: see `Objective`.

    Raises:
        RailkdError: an option is invalid for these models.

    Example: with identity maps, the student state (1, 0) and the teacher state (0, 2): | (1, 0) - (0, 1) |^2 = 2.
    """

    paper = PAPER
    reads = f"{DRAWN}, layer-wise"
    pooling = "mean"
    groups = MappingProxyType({"draws": Draws.between, "maps": Maps})

    def __init__(
        self,
        student_shape: Shape,
        teacher_shape: Shape,
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
        if match != "drawn":
            _refuse_unused(f"match='{match}' draws nothing and has", draws, maps, UNUSED_WITHOUT_DRAW)
        if maps.frozen:
            _refuse_unused(f"teacher_map='{maps.teacher_map}' is fixed and has", draws, maps, {"maps_by": "match"})
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
                f"teacher_map='{maps.teacher_map}' keeps principal components of states of {d_t} numbers. Expected at "
                f"most {d_t}, got shared_size {u}."
            )
        self.fitted: Tensor
        self.register_buffer("fitted", torch.tensor(not self.needs_fit))
        self._known_fitted = not self.needs_fit  # reading a buffer at every step would wait for the device
        chances = order_statistics(self.m, len(self.candidates))
        self.chances = Constants([[float(p) for p in row] for row in chances])  # (m, N)

    def fit(self, moments: Moments) -> None:
        """Set the frozen teacher maps.

        Args:
            moments: mean (n, d_t) and covariance (n, d_t, d_t) of the teacher's states.
        """
        if self.needs_fit:
            self.teacher_maps.principal_(moments, whiten=self.maps.teacher_map == "whitening")
            self.fitted.fill_(True)
            self._known_fitted = True

    def draw(self, seed: int, *, epoch: int, step: int) -> Draw:
        """Return the draw of a moment, see `Objective.draw`; all candidates if every one takes part."""
        return self.candidates if self.draws is None else self.draws.at(seed, epoch=epoch, step=step)

    def projected(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> tuple[Tensor, Tensor]:
        """Return the projected states of both models.

        Args:
            student: states (B, s, d_s) or (B, m, d_s).
            teacher: states (B, n, d_t).
            draw: (m,) drawn blocks; (N,) all candidates if ``match`` is not ``drawn``.

        Returns:
            (B, m, u) of both for ``drawn``. Otherwise (B, m, 1, u) or (B, m, N, u) of the student and (B, 1, N, u) of
            the teacher.

        Raises:
            RailkdError: the maps need `fit` first, or the draw or the signals do not fit the objective.
        """
        if not self._known_fitted:
            if not bool(self.fitted):
                raise RailkdError(
                    f"teacher_map='{self.maps.teacher_map}' is not fitted on the teacher's states yet. Fix: call "
                    "objective.fit(cache.moments('mean')), or train from a cache with DistillationTrainer."
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
        """Return the term, a scalar; see `Objective.intermediate`. ``draw``: see `projected`."""
        distance = normalized_distance(*self.projected(student, teacher, draw))  # (B, m) or (B, m, N)
        if self.match == "all":
            distance = distance.mean(dim=-1)
        elif self.match == "expected":
            distance = (distance * self.chances.values).sum(dim=-1)
        return (distance * self.alpha.values).sum(dim=-1).mean()


class RailConcatenated(Objective):
    """RAIL-KD^c: ``| unit(A) - unit(Bv) |^2``, all matched blocks concatenated, one map for each model.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        draws: see `railkd.mapping.Draws.between`. Default: its defaults.
        shared_size: u, the size of the shared space.
        options: see `Objective`.

    Raises:
        RailkdError: an option is invalid for these models.
    """

    paper = PAPER
    reads = f"{DRAWN}, concatenated"
    pooling = "mean"
    groups = MappingProxyType({"draws": Draws.between})

    def __init__(
        self,
        student_shape: Shape,
        teacher_shape: Shape,
        *,
        draws: Draws | None = None,
        shared_size: int = 128,
        **options: Any,
    ) -> None:
        super().__init__(student_shape, teacher_shape, **options)
        check_shared_size(shared_size)
        self.draws = _draws_for(self, draws)
        self.m = self.draws.m
        self.student_map = Linear(self.m * self.student_shape.width, shared_size)
        self.teacher_map = Linear(self.m * self.teacher_shape.width, shared_size)

    def projected(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> tuple[Tensor, Tensor]:
        """Return the projected concatenations of both models.

        Args:
            student: states (B, s, d_s) or (B, m, d_s).
            teacher: states (B, n, d_t).
            draw: (m,) drawn blocks.

        Returns:
            (B, 1, u) of student and teacher.
        """
        h_s = self.student_states(student)  # (B, m, d_s)
        h_t, _ = _drawn_states(self, teacher, draw, self.m, h_s.device)  # (B, m, d_t)
        a = self.student_map(h_s.flatten(1))  # (B, m * d_s) -> (B, u)
        b = self.teacher_map(h_t.flatten(1))
        return a.unsqueeze(1), b.unsqueeze(1)

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """Return the term, a scalar; see `Objective.intermediate`. ``draw``: see `projected`."""
        return normalized_distance(*self.projected(student, teacher, draw)).mean()


def _draws_for(objective: Objective, draws: Draws | None) -> Draws:
    """Return the given draws, or the paper's for this pair of models. Refuse blocks that a model lacks."""
    s, n = objective.student_shape.blocks, objective.teacher_shape.blocks
    draws = draws or Draws.between(s, n)
    if draws.m > s or not all(1 <= block <= n for block in draws.candidates):
        raise RailkdError(
            f"Expected draws of at most {s} out of 1 to {n}, got {draws.m} out of the teacher blocks "
            f"{draws.candidates}."
        )
    return draws


def _drawn_states(
    objective: Objective, teacher: Signals, draw: Tensor | Draw | None, wanted: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the teacher's states of the drawn blocks (B, wanted, d_t) and their 0-based positions (wanted,)."""
    if draw is None or len(draw) != wanted:
        raise RailkdError(
            f"Expected {wanted} teacher blocks, got the draw {draw}. Fix: use objective.draw(seed, epoch=, step=)."
        )
    # A tensor of another device is not read, because that would wait for the device.
    if objective.checks_draws and (not isinstance(draw, Tensor) or draw.device.type == "cpu"):
        n, blocks = objective.teacher_shape.blocks, draw.tolist() if isinstance(draw, Tensor) else list(draw)
        if not all(isinstance(block, Integral) and 1 <= int(block) <= n for block in blocks):
            raise RailkdError(f"Expected teacher blocks from 1 to {n}, got the draw {tuple(blocks)}.")
    drawn = torch.as_tensor(draw, device=device) - 1
    return states_of(teacher, objective.teacher_shape, "teacher", blocks=drawn), drawn


def _refuse_unused(reason: str, draws: Draws, maps: Maps, defaults: Mapping[str, Any]) -> None:
    given = vars(draws) | vars(maps)
    unused = [f"{name}={given[name]!r}" for name, default in defaults.items() if given[name] != default]
    if unused:
        raise RailkdError(
            f"{reason} one teacher map for each block, so {listed(unused)} would have no effect. Fix: leave it out."
        )


def _alphas(alpha: str | Sequence[float], m: int) -> list[float]:
    """Return alpha_1..alpha_m."""
    named: Mapping[str, float] = {"mean": 1 / m, "sum": 1.0}
    if isinstance(alpha, str) and alpha in named:
        return [named[alpha]] * m
    try:
        values = [float(value) for value in (alpha.split(",") if isinstance(alpha, str) else alpha)]
    except ValueError:
        raise RailkdError(f"Expected mean, sum, or numbers joined by commas, got alpha '{alpha}'.") from None
    if len(values) != m or not all(math.isfinite(value) and value >= 0 for value in values):
        raise RailkdError(f"Expected 'mean', 'sum' or {m} numbers >= 0, one per matched block, got alpha {values}.")
    return values
