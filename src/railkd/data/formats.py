"""Reads one file as one table. It is strict: an error names the line.

Cells of csv and tsv stay text, because the label "01" is not 1. JSON lines and parquet keep their types.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from railkd.data.ood import find_row
from railkd.errors import RailkdError, did_you_mean
from railkd.runtime.words import shortened


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        suffix: of its files, with the dot.
        read: returns column -> cells, or a pyarrow table.
        gzip: the files may be compressed as SUFFIX.gz.
    """

    suffix: str
    read: Callable[[Path], Any]
    gzip: bool = True


def format_of(path: Path) -> Format | None:
    """Return the format of a file by its suffix, or None if it is not known.

    Args:
        path: of the file, which need not exist.

    Example:
        >>> format_of(Path("a.tsv.gz")).suffix, format_of(Path("a.txt"))
        ('.tsv', None)
    """
    name = path.name.lower()
    zipped = name.endswith(".gz")
    row = _BY_SUFFIX.get(Path(name.removesuffix(".gz")).suffix)
    return row if row is not None and (row.gzip or not zipped) else None


def stem_of(path: Path) -> str:
    """Return a file's name without the suffixes of its format, e.g. ``train`` of ``train.tsv.gz``.

    Args:
        path: of the file, which need not exist.
    """
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem if format_of(path) else path.name


def list_tables(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder that have a known format, without hidden ones, in the order of their names.

    Args:
        folder: must exist.

    Returns:
        Name without suffixes -> the files with this name.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and format_of(path) and not path.name.startswith("."):
            found.setdefault(stem_of(path), []).append(path)
    return found


def list_suffixes() -> str:
    """Return the known suffixes, for messages.

    Example:
        >>> list_suffixes()
        '.csv, .tsv, .jsonl, .json, .parquet (text also as .gz)'
    """
    return ", ".join(_BY_SUFFIX) + " (text also as .gz)"


def read_table(path: Path) -> Any:
    """Read one file.

    Args:
        path: of the file.

    Returns:
        A pyarrow table with at least one row and distinct column names.

    Raises:
        RailkdError: the format is not known, or the file cannot be read or has no rows.
    """
    form = format_of(path)
    if form is None:
        near = did_you_mean(path.suffix, _BY_SUFFIX)
        raise RailkdError(f"{path}: unknown file format. Expected one of {list_suffixes()}.{near}")
    try:
        columns = form.read(path)
    except PermissionError:
        raise RailkdError(f"{path}: no permission to read it. Fix: change its mode or its owner.") from None
    except OSError as error:
        raise RailkdError(
            f"{path}: cannot be read: {error.strerror or error}. Fix: check the disk, or copy the file again."
        ) from None
    if isinstance(columns, dict):
        columns = _table(columns, path)
    if columns.num_rows == 0:
        raise RailkdError(f"{path}: expected at least one row below the header, got none.")
    return columns


def check_names(names: Sequence[str], where: object) -> None:
    """Refuse column names that occur twice, and names with NUL, where Arrow would cut them.

    Args:
        names: of the columns.
        where: the file or source, for the message.

    Raises:
        RailkdError: a name is refused.
    """
    if any("\0" in name for name in names):
        raise RailkdError(f"{where}: a column name holds a NUL character. Expected a text file with a header line.")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise RailkdError(f"{where}: column {shortened(twice[0])!r} occurs more than once. Fix: rename one of them.")


# ---- text ----------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    """Return a UTF-8 file as text without a byte order mark; a file named .gz is decompressed."""
    data = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        try:
            data = gzip.decompress(data) if data else b""
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise RailkdError(
                f"{path}: not a complete gzip file. Fix: compress it again, or remove .gz from its name if it is text."
            ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind the byte order mark.
        at = error.start + len(data) - len(error.object)
        line = data.count(b"\n", 0, at) + 1
        raise RailkdError(
            f"{path}: byte 0x{data[at]:02x} at offset {at} (line {line}) is not UTF-8. "
            "Fix: convert the file, e.g. iconv -f latin1 -t utf-8."
        ) from None
    if not text.strip():
        raise RailkdError(f"{path}: expected a header line and rows, got an empty file.")
    return text


def _lines(text: str) -> list[str]:
    """Return the lines, which end in LF or CRLF only: splitlines() would also split at U+2028 or U+0085 in a text."""
    return [line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")]


def _columns(path: Path, names: Sequence[str], rows: Iterable[tuple[int, Sequence[str]]], hint: str) -> dict[str, Any]:
    """Return column -> cells of numbered rows, which must all be as long as the header."""
    check_names(names, path)
    cells: list[Sequence[str]] = []
    for line, row in rows:
        if len(row) != len(names):
            raise RailkdError(f"{path}: line {line} has {len(row)} fields, the header has {len(names)}. Fix: {hint}")
        cells.append(row)
    if not cells:
        raise RailkdError(f"{path}: expected at least one row below the header, got none.")
    return dict(zip(names, (list(column) for column in zip(*cells, strict=True)), strict=True))


def _read_tsv(path: Path) -> dict[str, Any]:
    """Return column -> cells of a tab-separated file as in GLUE, where a quote is an ordinary character."""
    rows = [line.split("\t") for line in _lines(_text(path))]
    task = find_row(str(path))
    # Of GLUE's CoLA only test.tsv has a header; it has two columns, so the number of fields distinguishes it.
    if task is not None and len(rows[0]) == len(task.headerless):
        names, first = list(task.headerless), 1
    else:
        names, first = rows.pop(0), 2
    return _columns(path, names, enumerate(rows, first), "take tabs and line breaks out of the cells.")


def _read_csv(path: Path) -> dict[str, Any]:
    """Return column -> cells of a comma-separated file with double quotes (RFC 4180), without blank lines."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    limit = csv.field_size_limit(sys.maxsize)  # The default of 128 kB a cell is too small for a long document.
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise RailkdError(
            f"{path}: line {reader.line_num} is not csv: {error}. Fix: close every quote, and double those inside."
        ) from None
    finally:
        csv.field_size_limit(limit)
    return _columns(path, rows[0][1], rows[1:], "put cells that hold a comma into double quotes.")


def _read_jsonl(path: Path) -> dict[str, Any]:
    """Return column -> cells of a file with one JSON object a line; missing keys are null, blank lines are skipped."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_lines(_text(path)), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "too large or too deep"
            raise RailkdError(
                f"{path}: line {number} is not JSON ({reason}). Expected one complete object per line."
            ) from None
        if not isinstance(row, dict):
            raise RailkdError(
                f"{path}: line {number} is a JSON {type(row).__name__}. "
                'Expected one object per line, e.g. {"text": "...", "label": "..."}.'
            )
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise RailkdError(f'{path}: its objects are empty. Expected keys, e.g. {{"text": "...", "label": "..."}}.')
    return {name: [row.get(name) for row in rows] for name in names}


# ---- tables --------------------------------------------------------------------------------------------------------


def _table(columns: dict[str, list[Any]], path: Path) -> Any:
    import pyarrow as pa

    arrays = {}
    for name, cells in columns.items():
        try:
            arrays[name] = pa.array(cells)
        except (pa.ArrowException, OverflowError, TypeError, UnicodeError):
            kinds = ", ".join(sorted({type(cell).__name__ for cell in cells if cell is not None}))
            raise RailkdError(
                f"{path}: column {shortened(name)!r} does not fit one type (its values: {kinds}). "
                "Fix: use one type in all rows."
            ) from None
    return pa.table(arrays)


def _read_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.stat().st_size == 0:
        raise RailkdError(f"{path}: expected a parquet file, got an empty file.")
    try:
        # read_table would add columns for folder names such as "lang=en".
        with pq.ParquetFile(path) as file:
            check_names(file.schema_arrow.names, path)
            return file.read()
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise RailkdError(f"{path}: not a complete parquet file ({reason}). Fix: write it again.") from None


_BY_SUFFIX = {
    row.suffix: row
    for row in (
        Format(".csv", _read_csv),
        Format(".tsv", _read_tsv),
        Format(".jsonl", _read_jsonl),
        Format(".json", _read_jsonl),
        Format(".parquet", _read_parquet, gzip=False),
    )
}
