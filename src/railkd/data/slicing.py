"""Takes a part of the rows of a source, as in ``train[:1000]`` or ``train[10%:20%]``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from railkd.errors import RailkdError

if TYPE_CHECKING:
    import datasets

_SLICE = re.compile(r"(.*?)(\[(-?\d+%?)?:(-?\d+%?)?\])", re.DOTALL)


def split_slice(text: str) -> tuple[str, str]:
    """Split the slice from the text of a source.

    Args:
        text: as a user writes it.

    Returns:
        The text without the slice, and the slice; empty: there is none.

    Example:
        >>> split_slice("glue/RTE:train[10%:20%]"), split_slice("rows.tsv")
        (('glue/RTE:train', '[10%:20%]'), ('rows.tsv', ''))
    """
    found = _SLICE.fullmatch(text)
    return (found[1], found[2]) if found else (text, "")


def name_of(cut: str) -> str:
    """Return what a slice adds to the name of its source, other for each slice.

    Args:
        cut: the slice.

    Example:
        >>> name_of("[:1000]"), name_of("[10%:20%]"), name_of("[-500:]"), name_of("[:]")
        ('-to-1000', '-from-10pct-to-20pct', '-from-minus500', '')
    """
    first, last = cut[1:-1].replace("%", "pct").replace("-", "minus").split(":")
    return f"-from-{first}" * bool(first) + f"-to-{last}" * bool(last)


def bounds(cut: str, count: int) -> tuple[int, int]:
    """Return the first row of a slice and the row after its last one.

    Args:
        cut: the slice. Negative numbers count from the end, and percentages are rounded to whole rows.
        count: number of all rows.

    Returns:
        Two numbers from 0 to ``count``.

    Example:
        >>> bounds("[:1000]", 5000), bounds("[-2:]", 10), bounds("[10%:20%]", 55)
        ((0, 1000), (8, 10), (6, 11))
    """
    first, last = (_row(mark, count) for mark in cut[1:-1].split(":"))
    start, stop, _ = slice(first, last).indices(count)
    return start, stop


def _row(mark: str, count: int) -> int | None:
    if not mark:
        return None
    return round(int(mark[:-1]) * count / 100) if mark.endswith("%") else int(mark)


def take(rows: datasets.Dataset, cut: str, where: str) -> datasets.Dataset:
    """Return the rows of a slice.

    Args:
        rows: all rows.
        cut: the slice; empty: all of them.
        where: the source, for the message.

    Raises:
        RailkdError: the slice holds no row.
    """
    if not cut:
        return rows
    start, stop = bounds(cut, len(rows))
    if start >= stop:
        raise RailkdError(f"{where}: the slice {cut} holds none of the {len(rows):,} rows. Fix: name other rows.")
    return rows.select(range(start, stop))
