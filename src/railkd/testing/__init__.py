"""The laws of railkd for methods of your own (``pip install 'railkd[testing]'``).

A test file needs three lines::

    from railkd.testing import ObjectiveLaws

    class TestMine(ObjectiveLaws):
        method = Mine

pytest then builds the objective for tiny random states and holds it to each law. A law that fails says what that means
for training.
"""

from __future__ import annotations

from railkd.testing.cases import Case, build_small, make_case, of_rows, with_states
from railkd.testing.laws import ObjectiveLaws, every_shape

__all__ = ["Case", "ObjectiveLaws", "build_small", "every_shape", "make_case", "of_rows", "with_states"]
