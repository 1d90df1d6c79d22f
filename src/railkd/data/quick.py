"""Reads text formats with pyarrow, thirty times as fast as the strict readers, where both give the same table.

Each function returns None where they might differ, or where a file is refused. Then `railkd.data.delimited` or
`railkd.data.formats` reads the file, or explains what is wrong with it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from railkd.data.delimited import MOST_COLUMNS

if TYPE_CHECKING:
    import numpy as np

#: Lines of a JSON file that tell the types of its columns.
SAMPLE = 1000
#: Bytes that pyarrow reads at once. A longer row is left to the strict readers.
_BLOCK = 1 << 24
_BOM = b"\xef\xbb\xbf"
#: Every integer below it is a float too.
_EXACT = 2.0**53


def quick_csv(data: bytes, mark: str) -> Any:
    """Return the table of a csv, or None.

    Args:
        data: its bytes.
        mark: what stands between its cells.
    """
    import numpy as np

    data = data.removeprefix(_BOM)
    if b'"' in data and not _well_quoted(np.frombuffer(data, dtype=np.uint8), ord(mark)):
        return None
    return _delimited(data, mark, quoted=True)


def quick_tsv(data: bytes, *, plain: bool) -> Any:
    """Return the table of a tsv with a header, or None. If a cell starts with a quote, the strict reader decides.

    Args:
        data: its bytes.
        plain: a quote is an ordinary character.
    """
    data = data.removeprefix(_BOM)
    if not plain and (data.startswith(b'"') or b'\t"' in data or b'\n"' in data):
        return None
    return _delimited(data, "\t", quoted=False)


def _delimited(data: bytes, mark: str, *, quoted: bool) -> Any:
    """Return the table of a file whose quotes, if they count, are as they should be."""
    import pyarrow as pa
    from pyarrow import csv

    if data.startswith(_BOM):  # a second one is a part of the header, which pyarrow would remove
        return None
    head = data[: data.find(b"\n") + 1]
    width = head.count(mark.encode()) + 1
    if not head.strip() or head.count(b'"') % 2 or width > MOST_COLUMNS or _has_lone_returns(data):
        return None
    try:
        # The header is read as a row, so that it is read as the others are.
        table = csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(autogenerate_column_names=True, block_size=_BLOCK),
            parse_options=csv.ParseOptions(
                delimiter=mark,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
                ignore_empty_lines=False,
            ),
            convert_options=csv.ConvertOptions(
                column_types={f"f{number}": pa.string() for number in range(width)},
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:  # rows of several lengths, no UTF-8, a row longer than a block
        return None
    names = [column[0].as_py() for column in table.columns]
    good = len(set(names)) == len(names) and names != [""] and "\0" not in "".join(names)
    if not good or table.num_rows < 2 or (len(names) > 1 and _has_empty_row(table)):
        return None
    return table.slice(1).rename_columns(names)


def _has_empty_row(table: Any) -> bool:
    """Return whether all cells of a row are empty: pyarrow reads a blank line so."""
    from pyarrow import compute

    empty = compute.equal(table.column(0), "")
    for column in table.columns[1:]:
        if not compute.any(empty).as_py():
            return False
        empty = compute.and_(empty, compute.equal(column, ""))
    return bool(compute.any(empty).as_py())


def _has_lone_returns(data: bytes) -> bool:
    """Return whether a carriage return ends a line alone, or stands in a cell."""
    return data.count(b"\r") != data.count(b"\r\n")


def _well_quoted(text: np.ndarray, mark: int) -> bool:
    """Return whether every quote opens a cell, closes one, or is one of two inside of a quoted cell.

    If it holds for all quotes before one, it is known whether that one is inside of a quoted cell: every second is.

    Args:
        text: (N,) uint8, the bytes of a csv in which no return stands alone.
        mark: what stands between cells.
    """
    import numpy as np

    places = np.flatnonzero(text == ord('"'))
    if len(places) % 2:
        return False
    opens, closes = places[::2], places[1::2]
    doubled = opens[1:] == closes[:-1] + 1
    before, after = text[opens - 1], text[np.minimum(closes + 1, len(text) - 1)]
    starts = (before == mark) | (before == ord("\n"))
    ends = (after == mark) | (after == ord("\n")) | (after == ord("\r")) | (closes == len(text) - 1)
    starts[0] |= opens[0] == 0
    starts[1:] |= doubled
    ends[:-1] |= doubled
    return bool(starts.all() and ends.all())


def first_lines(data: bytes, count: int) -> bytes:
    r"""Return so many lines of a text.

    Args:
        data: the text.
        count: of lines.

    Example:
        >>> first_lines(b'a\nb\nc\n', 2)
        b'a\nb\n'
    """
    found = re.compile(rb"(?:[^\n]*\n){%d}" % count).match(data)
    return found[0] if found else data


def quick_json(data: bytes, schema: Any) -> Any:
    """Return the table of a file with one JSON object a line, or None.

    Args:
        data: its bytes.
        schema: names and types of the columns, as the strict reader finds them in the first lines. A key or a type that
            comes later is left to the strict reader.
    """
    import pyarrow as pa
    from pyarrow import compute, json

    floats = [field.name for field in schema if field.type == pa.float64()]
    known = (pa.string(), pa.int64(), pa.bool_(), pa.null(), pa.float64(), pa.list_(pa.string()), pa.list_(pa.int64()))
    data = data.removeprefix(_BOM).rstrip(b"\r\n \t")
    rows = data.count(b"\n") + 1
    # One object a line: every line break stands between two objects, and there are as many objects as lines.
    between = data.count(b"}\n{") + data.count(b"}\r\n{")
    if between != rows - 1 or not data.startswith(b"{") or any(field.type not in known for field in schema):
        return None
    try:
        table = json.read_json(
            pa.BufferReader(data),
            read_options=json.ReadOptions(block_size=_BLOCK),
            parse_options=json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
        table.validate(full=True)  # that all strings are UTF-8
    except pa.ArrowInvalid:
        return None
    large = (compute.max(compute.abs(table.column(name))).as_py() for name in floats)
    exact = all(value is None or value < _EXACT for value in large)
    return table if exact and table.num_rows == rows and table.schema.equals(schema) else None
