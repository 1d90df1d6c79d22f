"""The base of every objective: the weighted sum of task, logit and intermediate terms.

Equation: ``loss = lambda_1 CE + lambda_2 KD + lambda_3 intermediate`` with lambda >= 0 and lambda_1 + lambda_2 +
lambda_3 = 1, as in RAIL-KD, Haidar et al. 2022 (arXiv 2109.10164). A schedule can scale lambda_3 during training, which
is an addition of this library.

An objective is a `torch.nn.Module` on tensors. It reads no model, config or logger, so it works in any training loop.
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
from railkd.objectives.class_weights import checked_class_weights, weights_of_rows
from railkd.signals import BlockShape, Moments, Signals
from railkd.tasks import task_of

TERMS = ("ce", "kd", "intermediate")

#: (number of blocks, width) of a model; a `railkd.signals.BlockShape` is one.
Shape = tuple[int, int]


class Objective(nn.Module):
    """Base of all methods. A subclass names its terms and computes the intermediate one.

    A method has no subclasses: methods share code by functions and values. Its options are the keyword-only parameters
    of the constructor: their annotations and the ``Args:`` of the docstring make flags and help.

    Args:
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        weights: lambda of [CE, KD, intermediate] at any scale. Weights of terms that the method lacks are dropped, the
            others are normalised. Default: equal.
        temperature: T of the logit term.
        problem_type: of transformers. Default: regression for one output, single-label classification for more.
        class_weights: (C,) factor of each class in the task term, see `railkd.objectives.class_weights`.
        class_weights_on_logits: a row has this factor in the logit term too.

    Attributes:
        paper: the source of the method.
        reads: the blocks that it reads, in words.
        pooling: the pooled states that it reads, "mean" or "cls"; None: it reads only logits.
        terms: the terms of this method.
        weights: the normalised weights of those terms.
        m: the method reads the student blocks 1..m. Default: all.
        draws: the rule by which teacher blocks are drawn; None for a method that draws none.
        checks_draws: check each draw that is in main memory. A trainer whose draws come from `draw` turns this off.
        groups: keyword of the constructor -> function that makes its value from the options of a user. The parameters
            ``s`` and ``n`` of the function are the numbers of blocks; the others are names of options.

    Raises:
        RailkdError: a weight, the temperature or the problem type is invalid, or the class weights have no effect.
    """

    paper: ClassVar[str] = "-"
    reads: ClassVar[str] = "-"
    pooling: ClassVar[str | None] = None
    terms: ClassVar[tuple[str, ...]] = TERMS
    groups: ClassVar[Mapping[str, Callable[..., Any]]] = MappingProxyType({})

    #: True if `fit` must be called before the first batch.
    needs_fit: bool = False
    #: True if the student learns the teacher's states themselves, number by number: principal components do not do.
    own_coordinates: ClassVar[bool] = False
    #: True if the intermediate term compares the rows of a batch with each other, so that it depends on all of them.
    over_pairs: ClassVar[bool] = False
    class_weights: Tensor | None
    #: Number of other rows, for each class, that a batch is contrasted with.
    negatives: int = 0
    #: True if those rows have other classes; False if they are any rows.
    negatives_by_class: ClassVar[bool] = True
    #: True if `term_scales` changes during training.
    staged: ClassVar[bool] = False

    def __init__(
        self,
        student_shape: Shape,
        teacher_shape: Shape,
        *,
        weights: Sequence[float] | None = None,
        temperature: float = 1.0,
        problem_type: str | None = None,
        class_weights: Sequence[float] | None = None,
        class_weights_on_logits: bool = False,
    ) -> None:
        super().__init__()
        self.student_shape, self.teacher_shape = BlockShape(*student_shape), BlockShape(*teacher_shape)
        self.m = self.student_shape.blocks
        self.draws: Draws | None = None
        self.checks_draws = True
        self.weights = normalised_weights(weights, self.terms)
        if not (math.isfinite(temperature) and temperature > 0):
            raise RailkdError(f"Expected a finite number above 0 (default 1), got temperature {temperature}.")
        self.temperature = float(temperature)
        self.problem_type = problem_type and task_of(problem_type).problem_type
        checked = checked_class_weights(class_weights, class_weights_on_logits, self.weights, self.problem_type)
        self.register_buffer("class_weights", checked, persistent=False)
        self.class_weights_on_logits = class_weights_on_logits

    def forward(
        self,
        student: Signals,
        teacher: Signals | None = None,
        labels: Tensor | None = None,
        draw: Tensor | Draw | None = None,
        *,
        intermediate_scale: Tensor | float = 1.0,
        term_scales: Tensor | Sequence[float] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted loss of one batch.

        Args:
            student: logits (B, C), states (B, s, d_s), or those of blocks 1..m alone, (B, m, d_s).
            teacher: logits (B, C), states (B, n, d_t); can be None if only CE has weight.
            labels: (B,) or (B, C), see `railkd.functional.task_loss`; None if no row has a label.
            draw: (wanted,) teacher blocks of this moment, counted from 1, for methods that draw.
            intermediate_scale: factor on lambda_3 at this moment, from a schedule.
            term_scales: (3,) factors on the weights of [CE, KD, intermediate] at this moment, see `term_scales`.

        Returns:
            The loss, a scalar, and the terms that have weight by name: scalars without weight and gradient.
        """
        # Distances of unit vectors are small differences, so they need full precision under autocast too.
        with torch.autocast(student.logits.device.type, enabled=False):
            _check_rows(student, teacher, labels)
            terms = self._terms(student, teacher, labels, draw)
        scale = {"intermediate": intermediate_scale}
        if term_scales is not None:
            scale = {name: scale.get(name, 1.0) * factor for name, factor in zip(TERMS, term_scales, strict=True)}
        parts = [self.weights[name] * scale.get(name, 1.0) * term for name, term in terms.items()]
        loss = torch.stack(parts).sum()
        return loss, {name: term.detach() for name, term in terms.items()}

    def _terms(
        self, student: Signals, teacher: Signals | None, labels: Tensor | None, draw: Tensor | Draw | None
    ) -> dict[str, Tensor]:
        """Return the terms that have weight, by name."""
        task = task_of(self.problem_type, student.logits.shape[-1])
        terms: dict[str, Tensor] = {}
        if self.weights.get("ce"):
            weights = {} if self.class_weights is None else {"class_weights": self.class_weights}
            terms["ce"] = task.loss(student.logits, labels, **weights)
        if not self.weights.get("kd") and not self.weights.get("intermediate"):
            return terms
        if teacher is None:
            raise RailkdError(f"{type(self).__name__} needs the teacher's signals, but got none.")
        teacher = teacher.detached()
        if self.weights.get("kd"):
            theirs, of_rows = teacher.logits_beside(student.logits), self._row_weights(labels)
            terms["kd"] = task.kd(student.logits, theirs, self.temperature, **of_rows)
        if self.weights.get("intermediate"):
            terms["intermediate"] = self.intermediate(student, teacher, draw)
        return terms

    def _row_weights(self, labels: Tensor | None) -> dict[str, Tensor]:
        """Return the weights of rows in the logit term by the name of the argument; none if all rows weigh 1."""
        if self.class_weights is None or not self.class_weights_on_logits or labels is None:
            return {}
        return {"row_weights": weights_of_rows(self.class_weights, labels)}

    def intermediate(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> Tensor:
        """Return the term on block states, a scalar, mean over the batch. Every method with such a term overrides it.

        Args:
            student: states (B, s, d_s), or those of blocks 1..m alone, (B, m, d_s).
            teacher: states (B, n, d_t).
            draw: see `forward`.

        Raises:
            RailkdError: the method has no such term, or the signals do not fit the objective.
        """
        raise RailkdError(f"{type(self).__name__} has no intermediate term.")

    def student_states(self, student: Signals) -> Tensor:
        """Return the states of the student blocks that the method reads, in float32 or float64.

        Args:
            student: states (B, s, d_s) or (B, m, d_s).

        Returns:
            (B, m, d_s).
        """
        read = self.student_shape._replace(blocks=self.m)
        if student.states is not None and student.states.shape[1:] == tuple(read):
            return states_of(student, read, "student")
        return states_of(student, self.student_shape, "student")[:, : self.m]

    def fit(self, moments: Moments) -> None:
        """Set the parameters that are fitted on the teacher's states; most methods have none.

        Args:
            moments: mean (n, d_t) and covariance (n, d_t, d_t) of the teacher's states.
        """

    def term_scales(self, progress: float) -> tuple[float, float, float]:
        """Return the factors on the weights of [CE, KD, intermediate] at a moment; a method in stages overrides it.

        Args:
            progress: share of the training that is done, in [0, 1].

        Returns:
            Three factors.
        """
        return (1.0, 1.0, 1.0)

    def draw(self, seed: int, *, epoch: int, step: int) -> Draw:
        """Return the teacher blocks that the term reads at a moment of training; empty if it reads fixed ones.

        Args:
            seed: of the run.
            epoch: epochs finished before the moment.
            step: optimizer steps finished before the moment.

        Returns:
            Teacher blocks, counted from 1.
        """
        return () if self.draws is None else self.draws.at(seed, epoch=epoch, step=step)

    def projected(self, student: Signals, teacher: Signals, draw: Tensor | Draw | None) -> tuple[Tensor, Tensor] | None:
        """Return the vectors that the intermediate term compares, for the gauges.

        Args:
            student: states (B, s, d_s) or (B, m, d_s).
            teacher: states (B, n, d_t).
            draw: see `forward`.

        Returns:
            (B, ..., u) of student and teacher; None for a method without projections into a shared space.
        """
        return None


def _check_rows(student: Signals, teacher: Signals | None, labels: Tensor | None) -> None:
    """Refuse an empty batch, and tensors of another number of rows, which would broadcast. Reads shapes only."""
    rows = student.logits.shape[0]
    if rows == 0:
        raise RailkdError("Expected a batch of at least one row, got an empty one.")
    given = {"student states": student.states, "labels": labels}
    if teacher is not None:
        given |= {"teacher logits": teacher.logits, "teacher states": teacher.states}
    for name, tensor in given.items():
        if tensor is not None and tensor.shape[:1] != (rows,):
            raise RailkdError(f"Expected {name} of {rows} rows, as the student's logits, got {tuple(tensor.shape)}.")


def normalised_weights(weights: Sequence[float] | None, terms: Sequence[str]) -> dict[str, float]:
    """Return the weights of the terms of a method, whose sum is 1.

    Args:
        weights: of [CE, KD, intermediate], at any scale; None: equal.
        terms: the terms of the method.

    Returns:
        Term -> weight.

    Raises:
        RailkdError: not three finite numbers >= 0, or all weights of the method's terms are 0.

    >>> normalised_weights([1, 1, 2], ("ce", "kd"))
    {'ce': 0.5, 'kd': 0.5}
    """
    given = [1.0] * len(TERMS) if weights is None else [float(w) for w in weights]
    wanted = f"{len(TERMS)} numbers >= 0 for [CE, KD, intermediate], not all 0"
    if len(given) != len(TERMS) or not all(math.isfinite(w) and w >= 0 for w in given):
        raise RailkdError(f"Expected {wanted}, got weights {given}.")
    kept = {name: w for name, w in zip(TERMS, given, strict=True) if name in terms}
    total = sum(kept.values())
    if total == 0:
        raise RailkdError(f"Expected {wanted}, got weights {given}: nothing is left for the terms {', '.join(terms)}.")
    return {name: w / total for name, w in kept.items()}


def intermediate_blocks(student_shape: BlockShape, method: str) -> int:
    """Return the number of intermediate student blocks, 1..s-1.

    Args:
        student_shape: (blocks s, width d_s).
        method: for the message.

    Returns:
        s - 1.

    Raises:
        RailkdError: the student has only one block.
    """
    if student_shape.blocks < 2:
        raise RailkdError(
            f"{method} teaches the intermediate student blocks 1..s-1. Expected a student of at least 2 blocks, got "
            f"{student_shape.blocks}."
        )
    return student_shape.blocks - 1


def states_of(signals: Signals, shape: BlockShape, who: str, *, blocks: Tensor | None = None) -> Tensor:
    """Return the pooled states of a model, in float32 or float64.

    Args:
        signals: states (B, n, d).
        shape: (n, d), for which the objective was built.
        who: ``student`` or ``teacher``, for messages.
        blocks: (m,) indices counted from 0. Default: all blocks.

    Returns:
        (B, n, d); with ``blocks`` (B, m, d), on the device of ``blocks``.

    Raises:
        RailkdError: the signals hold no states, or states of another shape.
    """
    if signals.states is None:
        raise RailkdError(f"Expected pooled states of {shape.blocks} blocks, but the {who}'s signals hold logits only.")
    if tuple(signals.states.shape[1:]) != tuple(shape):
        raise RailkdError(
            f"Expected {tuple(shape)} (blocks, width), got {who} states of {tuple(signals.states.shape[1:])}. "
            "Fix: build the objective for this pair of models."
        )
    if blocks is None:
        return full_precision(signals.states)
    return full_precision(signals.states.to(blocks.device)[:, blocks])
