"""Reads one file as one table. It is strict: an error names the line.

Cells of csv and tsv stay text, because the label "01" is not 1. JSON lines and parquet keep their types.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from railkd.data.binary_files import read_arrow, read_parquet
from railkd.data.delimited import (
    MOST_COLUMNS,
    SEPARATED,
    OpenLines,
    Parsed,
    check_names,
    in_bytes,
    in_memory,
    parse_csv,
    parse_tsv,
    separator,
)
from railkd.data.glue import GLUE
from railkd.data.ood import find_row
from railkd.data.packed import PACKINGS, open_unpacked, packing_of, unpacked_name
from railkd.data.quick import SAMPLE, first_lines, quick_csv, quick_json, quick_tsv
from railkd.data.text_files import decoded, read_bytes, too_large
from railkd.errors import RailkdError, did_you_mean
from railkd.runtime.words import shortened

_EXCEL = (
    " Fix: save it as csv, or pip install openpyxl and let pandas do it: pandas.read_excel(FILE, dtype=str, "
    "keep_default_na=False).to_csv('rows.csv', index=False)"
)


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        suffix: of its files, with the dot.
        read: returns a table of text, column -> cells, or a pyarrow table.
        text: the files hold text, and may be compressed, such as SUFFIX.gz.
    """

    suffix: str
    read: Callable[[Path], Any]
    text: bool = True


def format_of(path: Path) -> Format | None:
    """Return the format of a file by its suffix, or None if it is not known.

    Args:
        path: of the file, which need not exist.

    Example:
        >>> format_of(Path("a.tsv.gz")).suffix, format_of(Path("a.txt"))
        ('.tsv', None)
    """
    row = _BY_SUFFIX.get(Path(unpacked_name(path).lower()).suffix)
    return row if row is not None and (row.text or not packing_of(path)) else None


def stem_of(path: Path) -> str:
    """Return a file's name without the suffixes of its format, e.g. ``train`` of ``train.tsv.gz``.

    Args:
        path: of the file, which need not exist.
    """
    packing = packing_of(path)
    return Path(path.name.removesuffix(path.suffix) if packing else path.name).stem if format_of(path) else path.name


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
        '.csv, .tsv, .jsonl, .json, .parquet, .ndjson, .arrow, .feather (text also as .gz, .bz2, .xz, .zst, .zip)'
    """
    return f"{', '.join(_BY_SUFFIX)} (text also as {', '.join(PACKINGS)})"


def read_table(path: Path) -> tuple[Any, str]:
    """Read one file.

    Args:
        path: of the file.

    Returns:
        A pyarrow table with at least one row and distinct column names, and a note for the user or "".

    Raises:
        RailkdError: the format is not known, or the file cannot be read, has no rows or does not fit in memory.
    """
    try:
        with readable(path):
            found = known_format(path).read(path)
        note = found.note if isinstance(found, Parsed) else ""
        columns = found.columns if isinstance(found, Parsed) else found
        table = _table(columns, path) if isinstance(columns, dict) else columns
    except MemoryError as error:
        cause: BaseException | None = error
        while cause is not None:  # The frames of each error hold the rows that were read.
            cause.__traceback__, cause = None, cause.__context__
        raise RailkdError(too_large(path, path.stat().st_size)) from None
    if table.num_rows == 0:
        raise RailkdError(f"{path}: expected at least one row below the header, got none.")
    return table, note


def known_format(path: Path) -> Format:
    """Return the format of a file.

    Args:
        path: of the file.

    Raises:
        RailkdError: its suffix is not known.
    """
    form = format_of(path)
    if form is None:
        if packing_of(path) and path.is_file():  # a zip archive that does not name its file
            with readable(path), open_unpacked(path):
                pass
        near = _EXCEL if path.suffix.lower() in (".xlsx", ".xls") else did_you_mean(path.suffix, _BY_SUFFIX)
        raise RailkdError(f"{path}: unknown file format. Expected one of {list_suffixes()}.{near}")
    return form


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the errors of the system, and of pyarrow, for a file that is read inside the block into a message.

    Args:
        path: of the file.

    Yields:
        Nothing.

    Raises:
        RailkdError: the file cannot be read.
    """
    try:
        yield
    except PermissionError:
        raise RailkdError(f"{path}: no permission to read it. Fix: change its mode or its owner.") from None
    except OSError as error:
        raise RailkdError(
            f"{path}: cannot be read: {error.strerror or error}. Fix: check the disk, or copy the file again."
        ) from None


def _read_tsv(path: Path) -> Parsed:
    headerless, plain = glue_layout(path)
    data = read_bytes(path)
    table = None if headerless else quick_tsv(data, plain=plain)
    return parse_tsv(path, decoded(path, data), headerless, plain=plain) if table is None else Parsed(table)


def glue_layout(path: Path) -> tuple[Sequence[str], bool]:
    """Return the columns of a GLUE file that may lack a header, and whether its quotes are ordinary characters."""
    # Of GLUE's CoLA only test.tsv has a header; it has two columns, so the number of fields distinguishes it.
    task = find_row(str(path))
    headerless = task.headerless if task else ()
    return headerless, bool(headerless) or task in GLUE


def _read_csv(path: Path) -> Parsed:
    data = read_bytes(path)
    mark = separator(in_bytes(data))
    table = quick_csv(data, mark)
    return parse_csv(path, decoded(path, data), mark) if table is None else Parsed(table, SEPARATED[mark])


def _read_jsonl(path: Path) -> Any:
    """Return the table of a file with one JSON object a line; missing keys are null, blank lines are skipped."""
    data = read_bytes(path)
    head = first_lines(data, SAMPLE)
    if len(head) < len(data):
        with suppress(RailkdError, UnicodeDecodeError):  # the strict reader explains
            sample = _table(_json_columns(path, head.decode("utf-8-sig")), path)
            if (table := quick_json(data, sample.schema)) is not None:
                return table
    return _json_columns(path, decoded(path, data))


def _json_columns(path: Path, text: str) -> dict[str, list[Any]]:
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    for row in json_rows(path, in_memory(text)):
        rows.append(row)
        names.update(dict.fromkeys(row))
        if len(names) > MOST_COLUMNS:
            break
    check_keys(path, names)
    return {name: [row.get(name) for row in rows] for name in names}


def json_rows(path: Path, open_lines: OpenLines) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file with one JSON object a line; blank lines are skipped.

    A file named .json may be one document too: a list of objects, or an object that holds one as ``data``.

    Args:
        path: of the file, for messages. A document is read whole.
        open_lines: opens it.

    Yields:
        Rows; one may lack keys that others have.

    Raises:
        RailkdError: a line is no object.
    """
    if known_format(path).suffix == ".json" and (rows := _document(path, open_lines)) is not None:
        yield from rows
        return
    for number, line in enumerate(open_lines("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.removesuffix("\n").removesuffix("\r"))
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
        yield row


def _document(path: Path, open_lines: OpenLines) -> list[dict[str, Any]] | None:
    """Return the rows of a JSON document; None: the file holds JSON lines."""
    start = next((line.strip() for line in open_lines("\n") if line.strip()), "")
    try:
        if start.startswith("{") and start.endswith("}") and not isinstance(json.loads(start).get("data"), list):
            return None  # lines, of which the first is enough to see it
        found = json.loads("".join(open_lines("\n")))
    except (ValueError, RecursionError):  # lines too, which are refused one by one
        return None
    rows = found["data"] if isinstance(found, dict) and isinstance(found.get("data"), list) else found
    if not isinstance(rows, list):
        return None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RailkdError(
                f"{path}: entry {number} of the list is a JSON {type(row).__name__}. "
                'Expected objects, e.g. [{"text": "...", "label": "..."}].'
            )
    return rows


def check_keys(path: Path, names: Iterable[str]) -> None:
    """Refuse the keys of JSON lines that cannot be names of columns.

    Args:
        path: of the file, for the message.
        names: every key that occurs.

    Raises:
        RailkdError: there is none, or a name is refused.
    """
    if not names:
        raise RailkdError(f'{path}: its objects are empty. Expected keys, e.g. {{"text": "...", "label": "..."}}.')
    check_names(list(names), path)


# ---- tables --------------------------------------------------------------------------------------------------------


def _table(columns: dict[str, list[Any]], path: Path) -> Any:
    import pyarrow as pa

    arrays = {}
    for name, cells in columns.items():
        try:
            arrays[name] = pa.array(cells)
        except (pa.ArrowException, OverflowError, TypeError, UnicodeError):
            raise RailkdError(f"{path}: column {shortened(name)!r} {_misfit(cells)}") from None
    return pa.table(arrays)


def _misfit(cells: Sequence[Any]) -> str:
    """Return why cells do not make one column, with the rows."""
    for row, cell in enumerate(cells, 1):
        try:
            json.dumps(cell, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return (
                f"holds half of a surrogate pair in row {row} ({shortened(ascii(cell))}), which is no character. "
                "Fix: correct the text, or write it as UTF-8 instead of escapes."
            )
    kinds: dict[str, int] = {}
    for row, cell in enumerate(cells, 1):
        if cell is not None:
            kinds.setdefault(type(cell).__name__, row)
    found = ", ".join(f"{kind} in row {row}" for kind, row in sorted(kinds.items()))
    return f"does not fit one type (its values: {found}). Fix: use one type in all rows."


_BY_SUFFIX = {
    row.suffix: row
    for row in (
        Format(".csv", _read_csv),
        Format(".tsv", _read_tsv),
        Format(".jsonl", _read_jsonl),
        Format(".json", _read_jsonl),
        Format(".parquet", read_parquet, text=False),
        Format(".ndjson", _read_jsonl),
        Format(".arrow", read_arrow, text=False),
        Format(".feather", read_arrow, text=False),
    )
}
