"""Cases of a test of which `make test` runs the telling ones, and `make test-thorough` the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from railkd.objectives import METHODS


def unless(telling: Callable[[Any], bool], cases: Iterable[Any]) -> list[Any]:
    """Return the cases as parameters; those that are not telling have the marker ``thorough``.

    A case of several values is a tuple.
    """
    return [
        case
        if telling(case)
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.thorough)
        for case in cases
    ]


#: The first method of each class of objectives, and two that differ from the first of their class by a step of their
#: own. The others choose their blocks otherwise, which tests of objectives and draws see for all methods.
_CLASSES = [spec.objective for spec in METHODS.values()]
TELLING = {name for i, name in enumerate(METHODS) if _CLASSES.index(_CLASSES[i]) == i} | {"rail-kd-w", "rail-expected"}


def methods(names: Iterable[str] = METHODS) -> list[Any]:
    """Return names of methods as parameters: one of each class of objectives for `make test`."""
    return unless(TELLING.__contains__, names)
