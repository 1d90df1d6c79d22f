"""Reads several files as one: those that match a pattern such as ``more/*.jsonl``, and the parts of a split."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from railkd.data.formats import format_of
from railkd.data.loading import NOTE
from railkd.errors import RailkdError
from railkd.runtime.words import shortened

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_PATTERN = re.compile(r"[*?[]")


def matches(text: str) -> list[str]:
    """Return the files of known formats that match a pattern, in the order of their names.

    Args:
        text: as a user writes it. An existing path is not read as a pattern.

    Returns:
        The files; empty if the text is no pattern, or nothing matches.
    """
    if not _PATTERN.search(text) or os.path.exists(text):
        return []
    return sorted(path for path in glob.glob(text, recursive=True) if os.path.isfile(path) and format_of(Path(path)))


def stack(where: str, files: Sequence[Path], found: Sequence[datasets.Dataset]) -> datasets.Dataset:
    """Return the rows of several files, one file after the other, with the columns that all of them have.

    Args:
        where: the pattern or folder, for messages.
        files: one at least.
        found: the rows of each.

    Raises:
        RailkdError: the files have no column in common, or values of a column that no type holds, such as text in
            one file and numbers in another.
    """
    if len(files) == 1:
        return found[0]
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

    names = [name for name in found[0].column_names if all(name in rows.column_names for rows in found)]
    if not names:
        raise RailkdError(
            f"{where}: expected equal names of columns in all files, got none that all have. Fix: rename them."
        )
    tables = [rows.select_columns(names).with_format("arrow")[:] for rows in found]
    columns = {}
    for name in names:
        parts = [table.column(name) for table in tables]
        try:
            columns[name] = _joined(parts)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            kinds = {str(part.type): file for part, file in zip(parts, files, strict=True) if part.type != pa.null()}
            words = "; ".join(f"{kind} in {file}" for kind, file in kinds.items())
            raise RailkdError(
                f"{where}: column {shortened(name)!r} holds {words}. Fix: write it alike in all files."
            ) from error
    notes = dict.fromkeys(note.removeprefix(NOTE) for rows in found if (note := rows.info.description).startswith(NOTE))
    info = datasets.DatasetInfo(description=NOTE + "; ".join(notes) if notes else "")
    return datasets.Dataset(InMemoryTable(pa.table(columns)), info=info)


def _joined(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return the cells of one column, in the narrowest type that holds those of all files.

    Args:
        parts: the column in each file.

    Raises:
        pyarrow.ArrowTypeError: the types have none in common, or one file holds text and another numbers.
    """
    import pyarrow as pa

    kinds = [part.type for part in parts if part.type != pa.null()]
    if len({pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds}) > 1:
        raise pa.ArrowTypeError("text beside other values")
    schemas = [pa.schema([("", part.type)]) for part in parts]
    kind = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    chunks = []
    for part in parts:
        if part.type != kind and pa.types.is_nested(kind):  # old pyarrow casts no struct whose keys have another order
            part = pa.chunked_array([pa.array(part.to_pylist(), type=kind)])
        chunks += part.cast(kind).chunks
    return pa.chunked_array(chunks, type=kind)
