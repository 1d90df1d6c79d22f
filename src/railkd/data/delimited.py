r"""Reads csv and tsv, whole or row by row: rows of text cells with a comma or a tab between them.

The rules, for reading and for writing (`railkd.data.delimited_writer`):

- The first line names the columns. Lines end in LF or CRLF. A row has as many cells as the header.
- In a file of one column every line is a row, and a blank line is an empty text. With more columns only the end of a
  file may have blank lines.
- csv (RFC 4180): cells are separated by commas, or by semicolons or tabs if the header holds no comma and the first row
  has as many cells as the header; a message says so. A cell may stand in double quotes, and must if it holds a comma, a
  quote or a line break. Quotes inside are doubled.
- tsv in a folder of GLUE: a quote is an ordinary character.
- Any other tsv: either no cell is quoted, or cells are quoted as in csv (with a tab in place of the comma), as pandas
  and Python's csv write it. It is read as quoted if every cell that starts with a quote is a complete quoted cell, and
  one of them needs it (doubled quotes, a tab, a line break) or the header is quoted too. A message says so. If the
  quotes of several lines fit each other and the lines fit the header too, the file can mean both and is refused.
  Otherwise quotes are ordinary characters.
- railkd writes a cell in quotes if it holds a tab, a quote or a line break, and then the header too, so that its files
  are read as written.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from railkd.data.delimited_writer import needs_quotes, quote
from railkd.errors import RailkdError
from railkd.runtime.words import shortened

MOST_COLUMNS = 10_000
QUOTED = "quoted cells are read without their quotes"
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
#: What stands between the cells of a csv -> the note for the user.
SEPARATED = {",": "", ";": "its cells are separated by semicolons", "\t": "its cells are separated by tabs"}
_WHOLE = re.compile(r'"(?:[^"]|"")*"', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
Rows = Iterator[list[str]]  # The header first.
Numbered = Iterator[tuple[int, list[str]]]  # The number of the line, from 1, and its cells.
#: Opens a text from its start, and returns its lines. The argument is that of `open`: which marks end a line.
OpenLines = Callable[[str], Iterable[str]]


@dataclass(frozen=True)
class Parsed:
    """A table of text.

    Attributes:
        columns: name -> cells, or a pyarrow table.
        note: what the user should know about how it was read; empty: nothing.
    """

    columns: Any
    note: str = ""


def check_names(names: Sequence[str], where: object) -> None:
    """Refuse too many columns, names that occur twice, and names with NUL, where Arrow would cut them.

    Args:
        names: of the columns.
        where: the file or source, for the message.

    Raises:
        RailkdError: the names are refused.
    """
    if len(names) > MOST_COLUMNS:
        raise RailkdError(
            f"{where}: has {len(names):,} columns. Expected at most {MOST_COLUMNS:,}. "
            "Fix: keep the columns of texts and labels, and check what separates the cells."
        )
    broken = next((name for name in names if _SURROGATE.search(name)), None)
    if broken is not None:
        raise RailkdError(f"{where}: column {shortened(broken)!r} holds half of a surrogate pair. Fix: rename it.")
    if any("\0" in name for name in names):
        raise RailkdError(f"{where}: a column name holds a NUL character. Expected a text file with a header line.")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise RailkdError(f"{where}: column {shortened(twice[0])!r} occurs more than once. Fix: rename one of them.")


def parse_csv(path: Path, text: str, mark: str = ",") -> Parsed:
    """Parse a comma-separated file.

    Args:
        path: of the file, for messages.
        text: its content.
        mark: what stands between the cells; see `separator`.

    Returns:
        The table. Wrong quotes or numbers of cells raise `RailkdError`.
    """
    return Parsed(_columns(csv_rows(path, in_memory(text), mark)), SEPARATED[mark])


def parse_tsv(path: Path, text: str, headerless: Sequence[str] = (), *, plain: bool = False) -> Parsed:
    """Parse a tab-separated file.

    Args:
        path: of the file, for messages.
        text: its content.
        headerless: names of the columns if the first line has as many cells and no names.
        plain: a quote is an ordinary character.

    Returns:
        The table, with a note if its cells were quoted. Wrong numbers of cells raise `RailkdError`.
    """
    open_rows, note = tsv_rows(path, in_memory(text), headerless, plain=plain or '"' not in text)
    return Parsed(_columns(open_rows()), note)


def in_memory(text: str) -> OpenLines:
    """Return the function that opens a text that is in memory."""
    return lambda newline: io.StringIO(text, newline=newline)


def in_bytes(data: bytes) -> OpenLines:
    """Return the function that opens a text that is in memory as bytes. What is not UTF-8 is replaced."""
    return lambda newline: io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", errors="replace", newline=newline)


def separator(open_lines: OpenLines) -> str:
    r"""Return what stands between the cells of a csv: a comma, or what else its header and its first row agree on.

    Args:
        open_lines: opens the file.

    Example:
        >>> separator(in_memory("text;label\ngood, really;1\n")), separator(in_memory("text\ngood; bad\n"))
        (';', ',')
    """
    if max(_widths(open_lines, ",")[:3]) > 1:
        return ","
    widths = {mark: _widths(open_lines, mark) for mark in SEPARATED if mark != ","}
    return next((mark for mark, (*_, first, second) in widths.items() if first == second > 1), ",")


def _widths(open_lines: OpenLines, mark: str) -> list[int]:
    """Return how many cells the header and the first row have; zeros if they are no csv."""
    try:
        rows = (row for row in csv.reader(open_lines(""), strict=True, delimiter=mark) if row)
        return [0, 0, *(len(row) for row in islice(rows, 2))]
    except csv.Error:
        return [0, 0]


def csv_rows(path: Path, open_lines: OpenLines, mark: str = ",") -> Rows:
    """Yield the header of a comma-separated file and then its rows, one at a time.

    Args:
        path: of the file, for messages.
        open_lines: opens the file.
        mark: what stands between the cells; see `separator`.

    Yields:
        Lists of cells, all of one length. Wrong quotes or numbers of cells raise `RailkdError`.

    Raises:
        RailkdError: the quotes are wrong.
    """
    try:
        yield from _even(
            path, _quoted(open_lines, mark, path), f"put cells that hold {_NAMES[mark]} into double quotes."
        )
    except csv.Error as error:
        raise RailkdError(f"{path}: {error}. Fix: close every quote, and double those inside.") from None


def tsv_rows(
    path: Path, open_lines: OpenLines, headerless: Sequence[str] = (), *, plain: bool = False
) -> tuple[Callable[[], Rows], str]:
    """Return a function that opens the header and the rows of a tab-separated file, which are read one at a time.

    The file is read once before, to see whether its cells are quoted, unless ``plain`` says that they are not.

    Args:
        path: of the file, for messages.
        open_lines: opens the file.
        headerless: names of the columns if the first line has as many cells and no names.
        plain: a quote is an ordinary character.

    Returns:
        The function, and a note if cells are quoted. The rows are lists of cells, all of one length. Wrong numbers of
        cells raise `RailkdError` when they are met.
    """

    def as_written() -> Numbered:
        return _with_header(_split(path, open_lines), headerless)

    quoted = None if plain else _read_as_quoted(path, open_lines, as_written)
    found = quoted or as_written
    hint = "take tabs and line breaks out of the cells."
    return lambda: _even(path, found(), hint), QUOTED * bool(quoted)


def _split(path: Path, open_lines: OpenLines) -> Numbered:
    """Yield the cells of each line of a tsv as they stand there, without the blank lines before the first other one."""
    started = False
    for number, line in enumerate(open_lines("\n"), 1):  # splitlines() would also split at U+2028 in a text
        line = line.removesuffix("\n").removesuffix("\r")
        if started or line:
            if not started and line.count("\t") >= MOST_COLUMNS:  # Checked here, before every line is split.
                check_names(line.split("\t"), path)
            started = True
            yield number, line.split("\t")


def _with_header(rows: Numbered, headerless: Sequence[str]) -> Numbered:
    """Yield a line with the names of the columns before the rows, if the first of them has as many cells."""
    for place, (number, row) in enumerate(rows):
        if not place and headerless and len(row) == len(headerless):
            yield 0, list(headerless)
        yield number, row


def _quoted(open_lines: OpenLines, mark: str, path: Path) -> Numbered:
    """Yield the rows of a file with quoted cells. An error of the csv module tells the line."""
    reader = csv.reader(open_lines(""), strict=True, delimiter=mark)
    limit = csv.field_size_limit(sys.maxsize)  # The default of 128 kB a cell is too small for a long document.
    started = False
    try:
        for row in reader:
            if len(row) > MOST_COLUMNS:
                check_names(row, path)
            cells = row or [""]
            if started or cells != [""]:
                started = True
                yield reader.line_num, cells
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num} is not csv: {error}") from None
    finally:
        csv.field_size_limit(limit)


@dataclass
class _Marks:
    """Facts about the quotes of a tsv, from one pass over it.

    Attributes:
        head: every name of a column is a complete quoted cell.
        even: every row has as many cells as the header, or is blank.
        needed: a cell holds what only quotes allow.
        broken: the first line with a cell that starts with a quote and is no complete quoted cell; 0: none.
    """

    head: bool = False
    even: bool = True
    needed: bool = False
    broken: int = 0

    @classmethod
    def of(cls, rows: Numbered) -> _Marks:
        found, width = cls(), 0
        for number, row in rows:
            if not width:
                width, found.head = len(row), all(map(_WHOLE.fullmatch, row))
            found.even = found.even and (len(row) == width or row == [""])
            for cell in row:
                if not cell.startswith('"'):
                    continue
                if not _WHOLE.fullmatch(cell):
                    found.broken = found.broken or number
                elif not found.needed:
                    found.needed = needs_quotes(cell[1:-1])
        return found


def _read_as_quoted(
    path: Path, open_lines: OpenLines, as_written: Callable[[], Numbered]
) -> Callable[[], Numbered] | None:
    """Return what opens the rows of a tsv whose cells are quoted; None: quotes are ordinary characters."""
    marks = _Marks.of(as_written())
    if marks.even and not marks.broken:
        return (lambda: _unquoted(as_written())) if marks.head or marks.needed else None
    try:
        rows = _quoted(open_lines, "\t", path)
        header = next(rows, (0, [""]))[1]
        if any(len(row) != len(header) and row != [""] for _, row in rows):
            return None
    except csv.Error:
        return None
    if marks.even and not _starts_with(open_lines, "\t".join(map(quote, header))):
        raise RailkdError(
            f"{path}: line {marks.broken} opens a quote that a later line closes, so that the lines may be one row or "
            "several. Fix: save the file as csv (with quotes) or as jsonl."
        )
    return lambda: _quoted(open_lines, "\t", path)


def _starts_with(open_lines: OpenLines, wanted: str) -> bool:
    found = ""
    for line in open_lines("\n"):
        found = (found + line).lstrip("\r\n")
        if len(found) >= len(wanted):
            break
    return found.startswith(wanted)


def _unquoted(rows: Numbered) -> Numbered:
    for number, row in rows:
        yield number, [cell[1:-1].replace('""', '"') if cell.startswith('"') else cell for cell in row]


def _even(path: Path, rows: Numbered, hint: str) -> Rows:
    """Yield the header and the rows, which must all be as long as it. Blank lines at the end are left out."""
    _, names = next(rows, (0, None))
    if names is None:
        raise RailkdError(f"{path}: expected a header line and rows, got an empty file.")
    check_names(names, path)
    yield names
    blank, empty = 0, True
    for line, row in rows:
        if len(names) > 1 and row == [""]:
            blank = blank or line
            continue
        if blank or len(row) != len(names):
            where, width = (blank, 1) if blank else (line, len(row))
            raise RailkdError(f"{path}: line {where} has {width} fields, the header has {len(names)}. Fix: {hint}")
        empty = False
        yield row
    if empty:
        raise RailkdError(f"{path}: expected at least one row below the header, got none.")


def _columns(rows: Rows) -> dict[str, list[str]]:
    """Return column -> cells."""
    names = next(rows)
    columns: Iterable[tuple[str, ...]] = zip(*rows, strict=True)
    return {name: list(cells) for name, cells in zip(names, columns, strict=True)}
