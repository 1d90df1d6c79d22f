r"""Writes csv and tsv, by the rules of `railkd.data.delimited`, one row at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_IN_TSV = re.compile('["\t\n\r]')
_IN_CSV = re.compile('[",\n\r]')


def format_tsv(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""Return rows as the text of a tsv.

    Args:
        rows: with the same columns; None is an empty cell.

    Example:
        >>> format_tsv([{"text": 'so "good" it is', "n": 1}])
        '"text"\t"n"\n"so ""good"" it is"\t1\n'
    """
    quoted = any(needs_quotes(str(cell)) for row in rows for cell in (*row, *row.values()))
    return "".join(tsv_lines(rows or [], quoted=quoted)) or "index\n"


def needs_quotes(cell: str) -> bool:
    """Return whether a cell of a tsv is written in quotes."""
    return _IN_TSV.search(cell) is not None


def tsv_lines(rows: Iterable[Mapping[str, Any]], *, quoted: bool) -> Iterator[str]:
    """Yield the lines of a tsv.

    Args:
        rows: with the same columns; None is an empty cell.
        quoted: a cell needs quotes, so that the header has them too.

    Yields:
        The header, if there is a row, and a line for each row.
    """
    for place, row in enumerate(rows):
        if not place:
            yield "\t".join(map(quote, row) if quoted else row) + "\n"
        cells = ["" if cell is None else str(cell) for cell in row.values()]
        yield "\t".join(quote(cell) if _IN_TSV.search(cell) else cell for cell in cells) + "\n"


def csv_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    r"""Yield the lines of a csv: the header, if there is a row, and a line for each row.

    Args:
        rows: with the same columns; None is an empty cell.

    Example:
        >>> list(csv_lines([{"a": "x, y", "b": 1}]))
        ['a,b\n', '"x, y",1\n']
    """
    for place, row in enumerate(rows):
        if not place:
            yield _csv_line(row)
        yield _csv_line(row.values())


def _csv_line(cells: Iterable[Any]) -> str:
    texts = ("" if cell is None else str(cell) for cell in cells)
    return ",".join(quote(text) if _IN_CSV.search(text) else text for text in texts) + "\n"


def quote(cell: str) -> str:
    """Return a cell in quotes."""
    return '"' + cell.replace('"', '""') + '"'
