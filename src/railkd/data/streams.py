"""Reads the rows of a source of any size one after the other, with all their columns.

A first pass finds what must be known before the first row is written: how a tsv is quoted, which keys JSON lines have,
how many rows there are, and whether all texts are texts. The rows are never all in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from railkd.data.binary_files import open_parquet
from railkd.data.columns import Columns
from railkd.data.delimited import SEPARATED, csv_rows, separator, tsv_rows
from railkd.data.delimited_writer import needs_quotes
from railkd.data.formats import check_keys, glue_layout, json_rows, known_format, readable
from railkd.data.reader import TEXT_COLUMNS
from railkd.data.reading import Reading, blank_note, check_text, choose_columns, compare_training
from railkd.data.sources import Source
from railkd.data.spooled import named_by
from railkd.data.text_files import text_lines
from railkd.errors import RailkdError
from railkd.runtime.words import joined

#: Rows of an Arrow table that are in memory at once, and rows of a sample.
_AT_ONCE, _SAMPLE = 1024, 1000
Row = Mapping[str, Any]


@dataclass(frozen=True)
class RowStream:
    """Rows with all their columns.

    Attributes:
        names: of the columns. Rows of JSON lines may lack some.
        open: returns the rows from the first one on.
        note: what the user should know about how they are read; empty: nothing.
    """

    names: tuple[str, ...]
    open: Callable[[], Iterator[Row]]
    note: str = ""


@dataclass(frozen=True)
class TextStream:
    """The rows of one source, and what a first pass over them has found.

    Attributes:
        source: where they come from.
        rows: with all their columns.
        columns: the text columns that are read.
        count: number of rows.
        sample: texts by role, of up to 1,000 rows evenly spread.
        quoted: a cell needs quotes in a tsv.
        notes: what the user should know, in words.
    """

    source: Source
    rows: RowStream
    columns: Columns
    count: int
    sample: dict[str, list[str]]
    quoted: bool
    notes: tuple[str, ...]

    @property
    def described(self) -> str:
        """The columns that are read, in words."""
        return f"text: {joined(self.columns.text, ' + ')}; no labels read"

    def blocks(self, size: int) -> Iterator[list[Row]]:
        """Yield the rows in their order, so many at once."""
        rows = self.rows.open()
        while block := list(islice(rows, size)):
            yield block

    def texts(self, block: list[Row]) -> dict[str, list[str]]:
        """Return text by role -> the texts of some rows."""
        return {role: [row[name] for row in block] for role, name in zip(TEXT_COLUMNS, self.columns.text, strict=False)}


def read_stream(source: Source, reading: Reading, *, split: str) -> TextStream:
    """Look through a source once, so that its rows can be read one after the other.

    What `railkd.data.reader.read` refuses of rows without labels is refused here too.

    Args:
        source: where the rows are.
        reading: which columns to take.
        split: train, dev or test, where the source holds several.

    Returns:
        The rows.

    Raises:
        RailkdError: the source has no rows.
    """
    rows = open_rows(source, split)
    columns = choose_columns(source, reading, rows.names, False)
    found = _Survey()
    for row in rows.open():
        found.add(row, columns.text, source.text)
    if not found.count:
        raise RailkdError(f"{source.text}: expected at least one row, got none.")
    notes = (
        rows.note,
        compare_training(reading, columns.text, rows.names, source),
        blank_note(found.blank, found.first_blank) if found.blank else "",
    )
    sample = dict(zip(TEXT_COLUMNS, map(list, zip(*found.sample, strict=True)), strict=False))
    quoted = found.quoted or any(map(needs_quotes, rows.names))
    said = tuple(f"{source.text}: {note}" for note in notes if note)
    return TextStream(source, rows, columns, found.count, sample, quoted, said)


def plain_cell(value: Any) -> Any:
    """Return a value for a cell of csv or tsv.

    Args:
        value: several labels are joined as `railkd.tasks.multilabel` reads them; other lists and mappings become JSON.

    Example:
        >>> plain_cell(["glad", "sad"]), plain_cell({"en": 1}), plain_cell(None)
        ('glad|sad', '{"en": 1}', '')
    """
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "|".join(value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else value


class _Survey:
    """Gathers facts about the rows of a stream in one pass over them."""

    def __init__(self) -> None:
        self.count, self.blank, self.first_blank, self.quoted = 0, 0, 0, False
        self.sample: list[tuple[str, ...]] = []
        self._step = 1

    def add(self, row: Row, columns: tuple[str, ...], where: str) -> None:
        """Look at the next row."""
        taken = self.count % self._step == 0
        self.count += 1
        texts = tuple(check_text(row.get(name), self.count, name, where) for name in columns)
        if taken:
            self.sample.append(texts)
        if len(self.sample) > _SAMPLE:  # every second one of them stays: they are evenly spread
            self.sample, self._step = self.sample[::2], 2 * self._step
        if not all(map(str.strip, texts)):
            self.blank, self.first_blank = self.blank + 1, self.first_blank or self.count
        cells = "\0".join(str(plain_cell(value)) for value in row.values())
        self.quoted = self.quoted or needs_quotes(cells)
        try:
            cells.encode()
        except UnicodeEncodeError:
            raise RailkdError(
                f"{where}: row {self.count} holds half of a surrogate pair, which is no character. Fix: correct the "
                "text, or write it as UTF-8 instead of escapes."
            ) from None


# ---- formats -------------------------------------------------------------------------------------------------------


def open_rows(source: Source, split: str) -> RowStream:
    """Return the rows of a source.

    Args:
        source: a file is read as a stream; Arrow files, their folders and sets on the hub lie on the disk as they are.
        split: train, dev or test, where the source holds several.

    Returns:
        The rows.
    """
    path = source.file(split)
    with named_by(source.base, [] if path is None else [path]):
        stream = _OPEN.get(known_format(path).suffix) if path is not None else None
    if path is None or stream is None:
        rows = source.rows(split)

        def slices() -> Iterator[Row]:
            for start in range(0, len(rows), _AT_ONCE):
                yield from rows.select(range(start, min(start + _AT_ONCE, len(rows)))).to_list()

        return RowStream(tuple(rows.column_names), slices)
    with named_by(source.base, [path]), readable(path):
        found = stream(path)

    def told() -> Iterator[Row]:
        with named_by(source.base, [path]), readable(path):
            yield from found.open()

    return RowStream(found.names, told, found.note)


def _tsv(path: Path) -> RowStream:
    headerless, plain = glue_layout(path)
    open_table, note = tsv_rows(path, partial(text_lines, path), headerless, plain=plain)
    return _named(open_table, note)


def _csv(path: Path) -> RowStream:
    open_lines = partial(text_lines, path)
    mark = separator(open_lines)
    return _named(lambda: csv_rows(path, open_lines, mark), SEPARATED[mark])


def _named(open_table: Callable[[], Iterator[list[str]]], note: str = "") -> RowStream:
    names = tuple(next(open_table()))

    def rows() -> Iterator[Row]:
        table = open_table()
        next(table)
        return (dict(zip(names, cells, strict=True)) for cells in table)

    return RowStream(names, rows, note)


def _jsonl(path: Path) -> RowStream:
    names: dict[str, None] = {}
    for row in json_rows(path, partial(text_lines, path)):
        names.update(dict.fromkeys(row))
    check_keys(path, names)
    return RowStream(tuple(names), lambda: json_rows(path, partial(text_lines, path)))


def _parquet(path: Path) -> RowStream:
    def rows() -> Iterator[Row]:
        with open_parquet(path) as file:
            for batch in file.iter_batches(_AT_ONCE):
                yield from batch.to_pylist()

    with open_parquet(path) as file:
        return RowStream(tuple(file.schema_arrow.names), rows)


_OPEN: dict[str, Callable[[Path], RowStream]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".json": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
