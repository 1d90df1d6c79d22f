"""Lets a rehearsal read the first rows of each class only. Everywhere else all rows are read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from railkd.data.label_names import parse_number

if TYPE_CHECKING:
    from datasets import Dataset

#: Of up to `_FEW` classes each has the number of rows. Of more classes the first `_MANY` have a row each.
_FEW, _MANY = 50, 2000


@dataclass
class _Limit:
    """How many rows of a class are read, and what has been read: (source, split, label columns) -> rows."""

    rows: int
    known: dict[Any, Dataset] = field(default_factory=dict)


_limit: ContextVar[_Limit | None] = ContextVar("first_rows", default=None)


@contextmanager
def read_first_rows(count: int) -> Iterator[None]:
    """Limit the rows that are read inside a ``with`` block, and read each source once.

    Args:
        count: rows of each class; of numbers and of rows without labels: rows in all; of more than 50 classes: rows in
            all, and beside them the first row of each class.

    Yields:
        Nothing.
    """
    token = _limit.set(_Limit(count))
    try:
        yield
    finally:
        _limit.reset(token)


def limited(key: Any, load: Callable[[], Dataset], find_labels: Callable[[Dataset], Sequence[str]]) -> Dataset:
    """Return the rows of a source, or its first ones inside `read_first_rows`.

    Args:
        key: names the source and how it is read.
        load: reads all rows.
        find_labels: returns the label columns of the rows; none if labels are not read.

    Returns:
        The rows, in their order.
    """
    limit = _limit.get()
    if limit is None:
        return load()
    if key not in limit.known:
        rows = load()
        limit.known[key] = rows.select(_first_of_each(rows, find_labels(rows), limit.rows))
    return limit.known[key]


def _first_of_each(rows: Dataset, labels: Sequence[str], count: int) -> list[int]:
    """Return the places of the first rows of each class. Rows without labels are one class."""
    columns = [rows[name][:] for name in labels]
    values = list(map(repr, zip(*columns, strict=True))) if labels else [""] * len(rows)
    many = len(set(values)) > _FEW
    if many and any(map(_has_fraction, columns[0])):  # numbers and not classes
        return list(range(min(count, len(rows))))
    seen: Counter[str] = Counter()
    chosen = []
    for place, value in enumerate(values):
        seen[value] += 1
        if (place < count or (seen[value] == 1 and len(seen) <= _MANY)) if many else seen[value] <= count:
            chosen.append(place)
    return chosen


def _has_fraction(value: Any) -> bool:
    number = parse_number(value)
    return number is not None and math.isfinite(number) and not number.is_integer()
