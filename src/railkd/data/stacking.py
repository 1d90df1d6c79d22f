"""Reads several files as one: those that match a pattern such as ``more/*.jsonl``."""

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


def stack(where: str, files: Sequence[str], found: Sequence[datasets.Dataset]) -> datasets.Dataset:
    """Return the rows of several files, one file after the other, with the columns that all of them have.

    Args:
        where: the pattern, for messages.
        files: their names.
        found: the rows of each.

    Raises:
        RailkdError: the files have no column in common, or a column holds text in one and numbers in another.
    """
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

    names = [name for name in found[0].column_names if all(name in rows.column_names for rows in found)]
    if not names:
        raise RailkdError(
            f"{where}: expected equal names of columns in all files, got none that all have. Fix: rename them."
        )
    tables = [rows.select_columns(names).with_format("arrow")[:] for rows in found]
    for name in names:
        types = {str(table.schema.field(name).type): file for table, file in zip(tables, files, strict=True)}
        types.pop("null", None)
        if len(types) > 1:
            kinds = "; ".join(f"{kind} in {file}" for kind, file in types.items())
            raise RailkdError(f"{where}: column {shortened(name)!r} holds {kinds}. Fix: write it alike in all files.")
    notes = dict.fromkeys(note.removeprefix(NOTE) for rows in found if (note := rows.info.description).startswith(NOTE))
    info = datasets.DatasetInfo(description=NOTE + "; ".join(notes) if notes else "")
    return datasets.Dataset(InMemoryTable(pa.concat_tables(tables, promote_options="default")), info=info)
