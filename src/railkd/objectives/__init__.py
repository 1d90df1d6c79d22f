"""The methods: one file and one class for each paper, the table `METHODS` of their names, and methods from outside.

>>> objective = build_objective("rail-kd-l", (3, 384), (6, 384), temperature=2.0)
>>> objective.weights["kd"] == 1 / 3
True
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from railkd.objectives.base import TERMS, Objective, Shape, states_of
from railkd.objectives.maps import Linear, map_between
from railkd.objectives.outside import known_methods, method_spec, register
from railkd.objectives.spec import MethodSpec
from railkd.objectives.table import METHODS
from railkd.signals import NO_POOLING, Signals


def stored_poolings(specs: Iterable[MethodSpec]) -> list[str]:
    """Return the poolings that a cache stores for several methods.

    Args:
        specs: rows of the table.

    Returns:
        Names of poolings; ``none`` alone if every method reads only logits.
    """
    return sorted({spec.pooling for spec in specs if spec.pooling}) or [NO_POOLING]


def build_objective(name: str | MethodSpec, student_shape: Shape, teacher_shape: Shape, **options: Any) -> Objective:
    """Build the objective of a method for a pair of models.

    Args:
        name: of a method (see `method_spec`), or a row.
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        options: those of `Objective` (``weights``, ``temperature``, ``problem_type``, class weights) and the method's
            own (``MethodSpec.options``).

    Returns:
        The objective, with new maps. Call `Objective.fit` before training if it ``needs_fit``.

    Raises:
        RailkdError: the method or an option is unknown, or a value is invalid for these models.
    """  # noqa: DOC502 - method_spec() and build() raise it
    spec = name if isinstance(name, MethodSpec) else method_spec(name)
    return spec.build(student_shape, teacher_shape, **options)


__all__ = [
    "Linear",
    "METHODS",
    "MethodSpec",
    "Objective",
    "Signals",
    "TERMS",
    "build_objective",
    "known_methods",
    "map_between",
    "method_spec",
    "register",
    "states_of",
]
