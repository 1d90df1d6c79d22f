"""Laws that every method in the table keeps: those of `railkd.testing`, for each row of `METHODS`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from objectives.cases import every_method
from railkd.objectives import METHODS, TERMS, Objective, build_objective
from railkd.testing import ObjectiveLaws


class _OfOurs(ObjectiveLaws):
    def check_taught(self, taught: Sequence[bool]) -> None:
        """Every intermediate block is taught, but for the method that teaches the last one alone."""
        assert list(taught) == [False, False, True] if self.method == "last-block" else all(taught[:-1])


for _name in METHODS:
    globals()[f"Test_{_name.replace('-', '_')}"] = type(f"Test_{_name}", (_OfOurs,), {"method": _name})


def test_the_defaults_are_equal_weights() -> None:
    assert build_objective("kd", (3, 8), (6, 8)).weights == {"ce": 0.5, "kd": 0.5}
    assert build_objective("rail-kd-l", (3, 8), (6, 8)).weights == pytest.approx(dict.fromkeys(TERMS, 1 / 3))


@every_method
def test_a_method_is_the_base_or_final(method: str) -> None:
    cls = METHODS[method].objective
    assert cls.__bases__ == (Objective,) and cls.__subclasses__() == []
