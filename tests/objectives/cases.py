"""Small objectives and one batch for each, shared by the tests of this folder."""

from __future__ import annotations

import pytest

from railkd.objectives import METHODS
from railkd.testing import Case, build_small, every_shape, make_case, of_rows, with_states

every_method = pytest.mark.parametrize("method", METHODS)
rail_methods = pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("rail-kd")])
build, make = build_small, make_case

__all__ = ["Case", "build", "every_method", "every_shape", "make", "of_rows", "rail_methods", "with_states"]
