r"""Reads and writes csv and tsv: rows of text cells with a comma or a tab between them.

The rules, for reading and for writing:

- The first line names the columns. Lines end in LF or CRLF. A row has as many cells as the header.
- In a file of one column every line is a row, and a blank line is an empty text. With more columns only the end of a
  file may have blank lines.
- csv (RFC 4180): a cell may stand in double quotes, and must if it holds a comma, a quote or a line break. Quotes
  inside are doubled.
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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from railkd.errors import RailkdError
from railkd.runtime.words import shortened

MOST_COLUMNS = 10_000
QUOTED = "quoted cells are read without their quotes"
_WHOLE = re.compile(r'"(?:[^"]|"")*"', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NEEDS_QUOTES = re.compile('["\t\n\r]')
Rows = list[tuple[int, list[str]]]  # The number of the line, from 1, and its cells.


@dataclass(frozen=True)
class Parsed:
    """A table of text.

    Attributes:
        columns: name -> cells.
        note: what the user should know about how it was read; empty: nothing.
    """

    columns: dict[str, list[str]]
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


def split_lines(text: str) -> list[str]:
    """Return the lines, which end in LF or CRLF only: splitlines() would also split at U+2028 or U+0085 in a text.

    Args:
        text: of a file.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def parse_csv(path: Path, text: str) -> Parsed:
    """Parse a comma-separated file.

    Args:
        path: of the file, for messages.
        text: its content.

    Returns:
        The table.

    Raises:
        RailkdError: the quotes or the numbers of cells are wrong.
    """
    try:
        rows = _quoted(text, ",", path)
    except csv.Error as error:
        raise RailkdError(f"{path}: {error}. Fix: close every quote, and double those inside.") from None
    return Parsed(_columns(path, rows, "put cells that hold a comma into double quotes."))


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
    lines = split_lines(text)
    first = next(filter(None, lines))
    if first.count("\t") >= MOST_COLUMNS:  # Checked here, before every line is split.
        check_names(first.split("\t"), path)
    rows = _without_blank_start([(number, line.split("\t")) for number, line in enumerate(lines, 1)])
    if headerless and len(rows[0][1]) == len(headerless):
        rows.insert(0, (0, list(headerless)))
    quoted = None if plain or '"' not in text else _read_as_quoted(path, text, rows)
    return Parsed(_columns(path, quoted or rows, "take tabs and line breaks out of the cells."), QUOTED * bool(quoted))


def format_tsv(rows: Sequence[dict[str, Any]]) -> str:
    r"""Return rows as the text of a tsv.

    Args:
        rows: with the same columns; None is an empty cell.

    Example:
        >>> format_tsv([{"text": 'so "good" it is', "n": 1}])
        '"text"\t"n"\n"so ""good"" it is"\t1\n'
    """
    names = list(rows[0]) if rows else ["index"]
    lines = [["" if row[name] is None else str(row[name]) for name in names] for row in rows]
    quoted = any(map(_NEEDS_QUOTES.search, (*names, *(cell for line in lines for cell in line))))
    head = map(_quote, names) if quoted else names
    body = ([_quote(cell) if _NEEDS_QUOTES.search(cell) else cell for cell in line] for line in lines)
    return "".join("\t".join(line) + "\n" for line in (head, *body))


def _quote(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def _quoted(text: str, mark: str, path: Path) -> Rows:
    """Return the rows of a file with quoted cells. An error of the csv module tells the line."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=mark)
    limit = csv.field_size_limit(sys.maxsize)  # The default of 128 kB a cell is too small for a long document.
    rows: Rows = []
    try:
        for row in reader:
            if len(row) > MOST_COLUMNS:
                check_names(row, path)
            rows.append((reader.line_num, row or [""]))
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num} is not csv: {error}") from None
    finally:
        csv.field_size_limit(limit)
    return _without_blank_start(rows)


def _read_as_quoted(path: Path, text: str, rows: Rows) -> Rows | None:
    """Return the rows of a tsv whose cells are quoted; None: quotes are ordinary characters."""
    width = len(rows[0][1])
    marked = [cell for _, row in rows for cell in row if cell.startswith('"')]
    complete = all(map(_WHOLE.fullmatch, marked))
    head = all(map(_WHOLE.fullmatch, rows[0][1]))
    even = all(len(row) == width or row == [""] for _, row in rows)
    if even and complete:
        return _unquoted(rows) if head or any(_NEEDS_QUOTES.search(cell[1:-1]) for cell in marked) else None
    try:
        found = _quoted(text, "\t", path)
    except csv.Error:
        return None
    if any(len(row) != len(found[0][1]) and row != [""] for _, row in found):
        return None
    if even and not text.lstrip("\r\n").startswith("\t".join(map(_quote, found[0][1]))):
        number = next(line for line, row in rows for cell in row if cell[:1] == '"' and not _WHOLE.fullmatch(cell))
        raise RailkdError(
            f"{path}: line {number} opens a quote that a later line closes, so that the lines may be one row or "
            "several. Fix: save the file as csv (with quotes) or as jsonl."
        )
    return found


def _without_blank_start(rows: Rows) -> Rows:
    return rows[next(place for place, (_, row) in enumerate(rows) if row != [""]) :]


def _unquoted(rows: Rows) -> Rows:
    return [
        (number, [cell[1:-1].replace('""', '"') if cell.startswith('"') else cell for cell in row])
        for number, row in rows
    ]


def _columns(path: Path, rows: Rows, hint: str) -> dict[str, list[str]]:
    """Return column -> cells of rows, which must all be as long as the first, the header."""
    (_, names), *body = rows
    check_names(names, path)
    while len(names) > 1 and body and body[-1][1] == [""]:
        body.pop()
    for line, row in body:
        if len(row) != len(names):
            raise RailkdError(f"{path}: line {line} has {len(row)} fields, the header has {len(names)}. Fix: {hint}")
    if not body:
        raise RailkdError(f"{path}: expected at least one row below the header, got none.")
    columns: Iterable[tuple[str, ...]] = zip(*(row for _, row in body), strict=True)
    return {name: list(cells) for name, cells in zip(names, columns, strict=True)}
