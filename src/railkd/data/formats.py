"""One file -> one table, strictly: the formats are rows, and whatever is wrong is said with its line.

Cells of csv and tsv stay text (a label "01" is not 1); json lines and parquet keep the types they come with.
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

from railkd.data.ood import row_of
from railkd.errors import RailkdError, did_you_mean


@dataclass(frozen=True)
class Format:
    """A suffix and its reader, which gives column -> cells or a pyarrow table."""

    suffix: str
    read: Callable[[Path], Any]
    gzip: bool = True  # may come as SUFFIX.gz


def format_of(path: Path) -> Format | None:
    """The format of a file by its suffix, or None.

    >>> format_of(Path("a.tsv.gz")).suffix, format_of(Path("a.txt"))
    ('.tsv', None)
    """
    name = path.name.lower()
    zipped = name.endswith(".gz")
    row = _BY_SUFFIX.get(Path(name.removesuffix(".gz")).suffix)
    return row if row is not None and (row.gzip or not zipped) else None


def stem_of(path: Path) -> str:
    """The file's name without the suffixes of its format: ``train.tsv.gz`` -> ``train``."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem if format_of(path) else path.name


def tables_in(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder that can be read as tables, by stem, in the order of their names; hidden ones left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and format_of(path) and not path.name.startswith("."):
            found.setdefault(stem_of(path), []).append(path)
    return found


def known_suffixes() -> str:
    """The suffixes there are, for messages.

    >>> known_suffixes()
    '.csv, .tsv, .jsonl, .json, .parquet (text also as .gz)'
    """
    return ", ".join(_BY_SUFFIX) + " (text also as .gz)"


def read_table(path: Path) -> Any:
    """The rows of one file as a pyarrow table with at least one row and distinct column names."""
    form = format_of(path)
    if form is None:
        near = did_you_mean(path.suffix, _BY_SUFFIX)
        raise RailkdError(f"{path}: cannot read files of this kind; wanted one of {known_suffixes()}.{near}")
    try:
        columns = form.read(path)
    except PermissionError:
        raise RailkdError(f"{path}: no permission to read it; change its mode or its owner.") from None
    except OSError as error:
        raise RailkdError(
            f"{path}: cannot be read: {error.strerror or error}; check the disk or copy it anew."
        ) from None
    if isinstance(columns, dict):
        columns = _table(columns, path)
    if columns.num_rows == 0:
        raise RailkdError(f"{path}: has columns but no rows; wanted at least one row below the header.")
    return columns


def check_names(names: Sequence[str], where: object) -> None:
    """Refuse duplicated column names, as which is meant is anyone's guess, and NUL, at which Arrow cuts them."""
    if any("\0" in name for name in names):
        raise RailkdError(f"{where}: a column name holds a NUL character; wanted a text file with a header line.")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise RailkdError(f"{where}: column {twice[0]!r} is there more than once; rename one of the two.")


# ---- text ----------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    """The whole file as text: UTF-8, with or without a byte order mark, unzipped where named .gz."""
    data = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        try:
            data = gzip.decompress(data) if data else b""
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise RailkdError(f"{path}: is no whole gzip file; compress it again, or drop .gz if it is text.") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Counted in the bytes the codec saw: it drops a byte order mark first.
        at = error.start + len(data) - len(error.object)
        line = data.count(b"\n", 0, at) + 1
        raise RailkdError(
            f"{path}: byte 0x{data[at]:02x} at offset {at} (line {line}) is no UTF-8; "
            "convert the file, e.g. iconv -f latin1 -t utf-8."
        ) from None
    if not text.strip():
        raise RailkdError(f"{path}: is empty; wanted a header line and rows.")
    return text


def _lines(text: str) -> list[str]:
    """Lines end in LF or CRLF and in nothing else: splitlines() would also cut at U+2028 or U+0085 inside a text."""
    return [line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")]


def _columns(path: Path, names: Sequence[str], rows: Iterable[tuple[int, Sequence[str]]], hint: str) -> dict[str, Any]:
    """Rows with their line numbers -> column -> cells; every row as long as the header."""
    check_names(names, path)
    cells: list[Sequence[str]] = []
    for line, row in rows:
        if len(row) != len(names):
            raise RailkdError(f"{path}: line {line} has {len(row)} fields, the header has {len(names)}; {hint}")
        cells.append(row)
    if not cells:
        raise RailkdError(f"{path}: holds a header and no rows; wanted at least one row below it.")
    return dict(zip(names, (list(column) for column in zip(*cells, strict=True)), strict=True))


def _read_tsv(path: Path) -> dict[str, Any]:
    """Tab-separated as in GLUE: no quoting, a quote is a character like any other."""
    rows = [line.split("\t") for line in _lines(_text(path))]
    task = row_of(str(path))
    # GLUE's own CoLA/test.tsv does have a header, of two columns: the number of fields tells it from the others.
    if task is not None and len(rows[0]) == len(task.headerless):
        names, first = list(task.headerless), 1
    else:
        names, first = rows.pop(0), 2
    return _columns(path, names, enumerate(rows, first), "take tabs and line breaks out of the cells.")


def _read_csv(path: Path) -> dict[str, Any]:
    """Comma-separated with double quotes (RFC 4180); blank lines are skipped."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    usual = csv.field_size_limit(sys.maxsize)  # the module's own limit, 128 kB a cell, is less than a long document
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise RailkdError(
            f"{path}: line {reader.line_num} is no csv: {error}; close every quote, double those inside."
        ) from None
    finally:
        csv.field_size_limit(usual)
    return _columns(path, rows[0][1], rows[1:], "put cells that hold a comma into double quotes.")


def _read_jsonl(path: Path) -> dict[str, Any]:
    """One JSON object a line; keys that a line lacks are null there; blank lines are skipped."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_lines(_text(path)), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "too large or too deep"
            raise RailkdError(
                f"{path}: line {number} is no JSON ({reason}); wanted one whole object per line."
            ) from None
        if not isinstance(row, dict):
            raise RailkdError(
                f"{path}: line {number} is a JSON {type(row).__name__}, no object; "
                'wanted one object per line, e.g. {"text": "...", "label": "..."}.'
            )
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise RailkdError(f'{path}: its objects are empty; wanted keys, e.g. {{"text": "...", "label": "..."}}.')
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
                f"{path}: column {name!r} cannot be one column (its values: {kinds}); wanted one type in all rows."
            ) from None
    return pa.table(arrays)


def _read_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.stat().st_size == 0:
        raise RailkdError(f"{path}: is empty; wanted a parquet file.")
    try:
        # ParquetFile and not read_table: that one invents columns out of folder names such as "lang=en".
        with pq.ParquetFile(path) as file:
            check_names(file.schema_arrow.names, path)
            return file.read()
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise RailkdError(f"{path}: is no whole parquet file ({reason}); write it again.") from None


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
