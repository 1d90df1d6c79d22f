"""What every objective shares: the weighted sum of task, logit and intermediate terms.

    loss = lambda_1 CE + lambda_2 KD + lambda_3 intermediate,   lambda >= 0, summing to 1

An objective is a `torch.nn.Module` on tensors alone: it never sees a model, a config or a logger, and works in any
loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from railkd.errors import RailkdError
from railkd.functional import full_precision
from railkd.mapping import Draw, Draws
from railkd.signals import BlockShape, Moments, Signals
from railkd.tasks import task_of

TERMS = ("ce", "kd", "intermediate")


class Objective(nn.Module):
    """Base of all methods: subclasses say which terms they have and compute the intermediate one.

    A class is this one or a method: methods have no subclasses and share code by functions and values.

    Args:
        student_shape, teacher_shape: (blocks, width) of both models.
        weights: lambda of [CE, KD, intermediate], any scale; None: equal. Terms that the method lacks are dropped, the
            rest normalised.
        temperature: T of the logit term.
        problem_type: None: regression when there is one output, single-label classification otherwise.

    Attributes:
        terms: the terms this method has.
        weights: the normalised weights of those terms.
        m: the student blocks whose states are read: 1..m, all of them where a method does not say less.
        draws: how teacher blocks are drawn; None for a method that draws none.
        groups: keyword of the constructor -> function that makes its value from the options of a user; its parameters
            ``s`` and ``n`` receive the blocks of student and teacher, the others are options by their own names.
    """

    terms: ClassVar[tuple[str, ...]] = TERMS
    groups: ClassVar[Mapping[str, Callable[..., Any]]] = MappingProxyType({})

    #: Wants `fit` before the first batch.
    needs_fit: bool = False
    #: Rows of other examples that each batch is contrasted with, for each class; 0: none.
    negatives: int = 0

    def __init__(
        self,
        student_shape: tuple[int, int],
        teacher_shape: tuple[int, int],
        *,
        weights: Sequence[float] | None = None,
        temperature: float = 1.0,
        problem_type: str | None = None,
    ) -> None:
        super().__init__()
        self.student_shape, self.teacher_shape = BlockShape(*student_shape), BlockShape(*teacher_shape)
        self.m = self.student_shape.blocks
        self.draws: Draws | None = None
        self.weights = normalised_weights(weights, self.terms)
        if not (math.isfinite(temperature) and temperature > 0):
            raise RailkdError(f"got temperature {temperature}, wanted a finite number above 0 (1 is the default)")
        self.temperature = float(temperature)
        self.problem_type = problem_type and task_of(problem_type).problem_type

    def forward(
        self,
        student: Signals,
        teacher: Signals | None = None,
        labels: Tensor | None = None,
        draw: Tensor | Draw | None = None,
        *,
        intermediate_scale: Tensor | float = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss of one batch, and its terms unweighted and detached.

        Args:
            student: of the model that learns: logits (B, C), states (B, s, d_s), or those of blocks 1..m alone.
            teacher: logits (B, C), states (B, n, d_t); may be None where no term but CE has weight.
            labels: see `railkd.functional.task_loss`; None or marked rows are unlabelled.
            draw: teacher blocks of this moment (1-based), for methods that draw.
            intermediate_scale: factor on lambda_3 at this moment, of a schedule.

        Returns:
            (scalar loss, {"ce": ..., "kd": ..., "intermediate": ...} as far as they have weight).
        """
        # Distances of unit vectors are small differences: under autocast, too, they are taken in full precision.
        with torch.autocast(student.logits.device.type, enabled=False):
            terms = self._terms(student, teacher, labels, draw)
        scale = {"intermediate": intermediate_scale}
        parts = [self.weights[name] * scale.get(name, 1.0) * term for name, term in terms.items()]
        loss = torch.stack(parts).sum()
        return loss, {name: term.detach() for name, term in terms.items()}

    def _terms(
        self, student: Signals, teacher: Signals | None, labels: Tensor | None, draw: Tensor | Draw | None
    ) -> dict[str, Tensor]:
        """The terms that have weight, by name."""
        task = task_of(self.problem_type, student.logits.shape[-1])
        terms: dict[str, Tensor] = {}
        if self.weights.get("ce"):
            terms["ce"] = task.loss(student.logits, labels)
        if not self.weights.get("kd") and not self.weights.get("intermediate"):
            return terms
        if teacher is None:
            raise RailkdError(f"{type(self).__name__} needs the teacher's signals, got none")
        teacher = teacher.detached()
        if self.weights.get("kd"):
            terms["kd"] = task.kd(student.logits, teacher.logits, self.temperature)
        if self.weights.get("intermediate"):
            terms["intermediate"] = self.intermediate(student, teacher, draw)
        return terms

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """The term on block states; a scalar, mean over the batch."""
        raise RailkdError(f"{type(self).__name__} has no intermediate term")

    def student_states(self, student: Signals) -> Tensor:
        """The states (B, m, d_s) of the student blocks that are read, checked, in float32 at least."""
        read = self.student_shape._replace(blocks=self.m)
        if student.states is not None and student.states.shape[1:] == tuple(read):
            return states_of(student, read, "student")
        return states_of(student, self.student_shape, "student")[:, : self.m]

    def fit(self, moments: Moments) -> None:
        """Set what is fitted on the teacher's states; most methods fit nothing."""

    def draw(self, seed: int, *, epoch: int, step: int) -> Draw:
        """Return the teacher blocks that the term reads at a moment of training; empty if it reads fixed ones.

        Args:
            seed: of the run.
            epoch: epochs finished before the moment.
            step: optimizer steps finished before the moment.
        """
        return () if self.draws is None else self.draws.at(seed, epoch=epoch, step=step)

    def projected(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> tuple[Tensor, Tensor] | None:
        """Return the vectors that the intermediate term compares, (B, ..., u) of each side, for the gauges.

        None for a method without projections into a shared space.
        """
        return None


def normalised_weights(weights: Sequence[float] | None, terms: Sequence[str]) -> dict[str, float]:
    """[CE, KD, intermediate] to the weights of the terms a method has, summing to 1.

    >>> normalised_weights([1, 1, 2], ("ce", "kd"))
    {'ce': 0.5, 'kd': 0.5}
    """
    given = [1.0] * len(TERMS) if weights is None else [float(w) for w in weights]
    wanted = f"{len(TERMS)} numbers >= 0 for [CE, KD, intermediate], not all 0"
    if len(given) != len(TERMS) or not all(math.isfinite(w) and w >= 0 for w in given):
        raise RailkdError(f"got weights {given}, wanted {wanted}")
    kept = {name: w for name, w in zip(TERMS, given, strict=True) if name in terms}
    total = sum(kept.values())
    if total == 0:
        raise RailkdError(f"got weights {given}: nothing is left for the terms {', '.join(terms)}; wanted {wanted}")
    return {name: w / total for name, w in kept.items()}


def states_of(signals: Signals, shape: BlockShape, who: str, *, blocks: Tensor | None = None) -> Tensor:
    """The pooled states (B, n, d), checked against the shape the objective was made for, in float32 at least.

    With ``blocks`` (m,), 0-based, those alone, on their device: (B, m, d).
    """
    if signals.states is None:
        raise RailkdError(f"the {who}'s signals hold logits only, wanted pooled states of {shape.blocks} blocks too")
    if tuple(signals.states.shape[1:]) != tuple(shape):
        raise RailkdError(
            f"got {who} states of {tuple(signals.states.shape[1:])} (blocks, width), wanted {tuple(shape)}; "
            "build the objective for this pair of models"
        )
    if blocks is None:
        return full_precision(signals.states)
    return full_precision(signals.states.to(blocks.device)[:, blocks])
