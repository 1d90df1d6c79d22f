"""Tiny objectives with a random batch each, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from railkd.functional import UNLABELLED
from railkd.objectives import MethodSpec, Objective, method_spec
from railkd.signals import Moments, Negatives, Signals

#: A class, a row, a name or an address.
Method = str | MethodSpec | type[Objective]
#: (blocks, width) of the student and of the teacher, in words.
SHAPES = {
    "3 of 6, equal widths": ((3, 8), (6, 8)),
    "3 of 6, unlike widths": ((3, 8), (6, 12)),
    "3 of 12, equal widths": ((3, 8), (12, 8)),
    "3 of 12, unlike widths": ((3, 12), (12, 8)),
}
SMALL = SHAPES["3 of 6, equal widths"]


@dataclass
class Case:
    """An objective and one batch for it.

    Attributes:
        objective: built for the shapes of the signals.
        student: logits (B, C) and states (B, s, d_s), both leaves that take a gradient.
        teacher: logits (B, C) and states (B, n, d_t), and negatives if the objective asks for some.
        labels: (B,), the second of which is missing.
        draw: the teacher blocks of the first moment; None for a method that draws none.
    """

    objective: Objective
    student: Signals
    teacher: Signals
    labels: Tensor | None
    draw: Any

    def loss(self, **changed: Any) -> Tensor:
        """Return the loss of the batch, with another ``student``, ``teacher``, ``labels`` or ``draw`` if given."""
        parts = {"student": self.student, "teacher": self.teacher, "labels": self.labels, "draw": self.draw} | changed
        return self.objective(**parts)[0]


def find_method(method: Method) -> MethodSpec:
    """Return the row of a method.

    Args:
        method: a name, an address, a row or a class.
    """
    if isinstance(method, str):
        return method_spec(method)
    return method.checked() if isinstance(method, MethodSpec) else MethodSpec.of(method)


def build_small(method: Method, shapes: Any = SMALL, **options: Any) -> Objective:
    """Build an objective for small states. One that is fitted on the teacher is fitted on random states.

    Args:
        method: a name, an address, a row or a class.
        shapes: (blocks, width) of student and teacher.
        options: of the objective. ``shared_size`` is 8 by default.

    Returns:
        The objective.
    """
    spec = find_method(method)
    if "shared_size" in spec.options:
        options.setdefault("shared_size", 8)
    objective = spec.build(*shapes, **options)
    if objective.needs_fit:
        n, d = shapes[1]
        seen = torch.randn(100, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.double)
        objective.fit(Moments(100, seen.mean(0), torch.stack([block.T.cov() for block in seen.unbind(1)])))
    return objective


def make_case(
    method: Method,
    shapes: Any = SMALL,
    *,
    rows: int = 6,
    classes: int = 3,
    seed: int = 0,
    **options: Any,
) -> Case:
    """Make an objective and a random batch for it.

    Args:
        method: a name, an address, a row or a class.
        shapes: (blocks, width) of student and teacher.
        rows: B.
        classes: C.
        seed: of the numbers and of the draw.
        options: of the objective.

    Returns:
        The case.
    """
    torch.manual_seed(seed)
    objective = build_small(method, shapes, **options)
    (s, d_s), (n, d_t) = shapes
    student = Signals(torch.randn(rows, classes, requires_grad=True), torch.randn(rows, s, d_s, requires_grad=True))
    negatives = Negatives(torch.randn(2, 5, n, d_t), torch.arange(rows) % 2) if objective.negatives else None
    teacher = Signals(torch.randn(rows, classes), torch.randn(rows, n, d_t), negatives)
    labels = torch.arange(rows) % classes
    labels[1] = UNLABELLED
    return Case(objective, student, teacher, labels, objective.draw(seed, epoch=0, step=0) or None)


def of_rows(signals: Signals, rows: Any) -> Signals:
    """Return the signals of some rows.

    Args:
        signals: of a batch, with states.
        rows: an index, a slice or a list of indices.
    """
    held = signals.negatives
    others = None if held is None else Negatives(held.states, held.group[rows])
    assert signals.states is not None
    return Signals(signals.logits[rows], signals.states[rows], others)


def with_states(signals: Signals, states: Tensor) -> Signals:
    """Return a teacher's signals with other states of the batch, and its negatives in the same precision.

    Args:
        signals: of a batch.
        states: (B, n, d_t).
    """
    held = signals.negatives
    others = None if held is None else Negatives(held.states.to(states.dtype), held.group)
    return Signals(signals.logits.detach(), states, others)
