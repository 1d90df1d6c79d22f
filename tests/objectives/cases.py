"""Small objectives and one batch for each, shared by the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from railkd.functional import UNLABELLED
from railkd.objectives import METHODS, Objective, build_objective
from railkd.signals import Moments, Negatives, Signals

SHAPES = {
    "3 of 6, equal widths": ((3, 8), (6, 8)),
    "3 of 6, unlike widths": ((3, 8), (6, 12)),
    "3 of 12, equal widths": ((3, 8), (12, 8)),
    "3 of 12, unlike widths": ((3, 12), (12, 8)),
}
every_method = pytest.mark.parametrize("method", METHODS)
every_shape = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)

rail_methods = pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("rail-kd")])


@dataclass
class Case:
    """An objective and one batch for it."""

    objective: Objective
    student: Signals
    teacher: Signals
    labels: Tensor | None
    draw: Any

    def loss(self, **changed: Any) -> Tensor:
        parts = {"student": self.student, "teacher": self.teacher, "labels": self.labels, "draw": self.draw} | changed
        return self.objective(**parts)[0]


def build(method: str, shapes: Any = ((3, 8), (6, 8)), **options: Any) -> Objective:
    """An objective for small states, fitted where it wants to be."""
    if "shared_size" in METHODS[method].options:
        options.setdefault("shared_size", 8)
    objective = build_objective(method, *shapes, **options)
    if objective.needs_fit:
        n, d = shapes[1]
        seen = torch.randn(100, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.double)
        objective.fit(Moments(100, seen.mean(0), torch.stack([block.T.cov() for block in seen.unbind(1)])))
    return objective


def make(
    method: str, shapes: Any = ((3, 8), (6, 8)), *, rows: int = 6, classes: int = 3, seed: int = 0, **options: Any
) -> Case:
    torch.manual_seed(seed)
    objective = build(method, shapes, **options)
    (s, d_s), (n, d_t) = shapes
    student = Signals(torch.randn(rows, classes, requires_grad=True), torch.randn(rows, s, d_s, requires_grad=True))
    negatives = Negatives(torch.randn(2, 5, n, d_t), torch.arange(rows) % 2) if objective.negatives else None
    teacher = Signals(torch.randn(rows, classes), torch.randn(rows, n, d_t), negatives)
    labels = torch.arange(rows) % classes
    labels[1] = UNLABELLED
    return Case(objective, student, teacher, labels, objective.draw(seed, epoch=0, step=0) or None)


def of_rows(signals: Signals, rows: Any) -> Signals:
    held = signals.negatives
    others = None if held is None else Negatives(held.states, held.group[rows])
    assert signals.states is not None
    return Signals(signals.logits[rows], signals.states[rows], others)


def with_states(signals: Signals, states: Tensor) -> Signals:
    """A teacher's signals with other states of the batch; those of the negatives in the same precision."""
    held = signals.negatives
    others = None if held is None else Negatives(held.states.to(states.dtype), held.group)
    return Signals(signals.logits.detach(), states, others)
