"""Reads one source as one table: texts in the columns ``text`` and ``text_pair``, labels as the file writes them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import xxhash

from railkd.data.columns import Columns
from railkd.data.first_rows import limited
from railkd.data.label_lists import FLAG_NAMES, multi_hot_width, refuse_lists_in_text
from railkd.data.label_names import apply_label_map, describe_doubt, is_missing, label_name
from railkd.data.labels import LabelSpace
from railkd.data.loading import NOTE
from railkd.data.reading import Reading, blank_note, check_text, choose_columns, compare_training
from railkd.data.sources import Source
from railkd.errors import RailkdError, did_you_mean
from railkd.runtime.words import joined, named, shortened

if TYPE_CHECKING:
    from datasets import Dataset

TEXT_COLUMNS = ("text", "text_pair")
#: Rows that `Table.digest` holds in memory.
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Cells:
    """The labels of one source, as its file writes them.

    Attributes:
        columns: name of a label column -> its N cells; mostly one column.
        where: the source, for messages.
        label_map: old name -> new name of a class.
    """

    columns: Mapping[str, Sequence[Any]]
    where: str
    label_map: Mapping[str, str] = field(default_factory=dict)

    @property
    def column(self) -> str:
        """The name of the label column, or the first of several."""
        return next(iter(self.columns))

    @cached_property
    def values(self) -> list[Any]:
        """The N cells of the label column, renamed by the label map."""
        return apply_label_map(self.columns[self.column], self.label_map)

    @property
    def present(self) -> list[Any]:
        """The values that are there.

        Raises:
            RailkdError: no row has a label.
        """
        found = [value for value in self.values if not is_missing(value)]
        if not found:
            raise RailkdError(f"{self.where}: no row has a label. Fix: give labelled rows, or another --label-column.")
        return found

    @cached_property
    def multi_hot(self) -> int:
        """The length of lists of 0 and 1, one for each class; 0: the cells are anything else.

        A label map that renames 0 or 1 says that the lists hold classes.
        """
        if len(self.columns) > 1 or FLAG_NAMES & self.label_map.keys():
            return 0
        return multi_hot_width(self.columns[self.column], where=self.where)

    @cached_property
    def several(self) -> str:
        """The reason to read several labels a row, in words; empty: a row has one."""
        if len(self.columns) > 1:
            return "several label columns"
        if self.multi_hot:
            return f"lists of {self.multi_hot} flags, 0 or 1 for each class (multi-hot)"
        return "lists of classes" if any(isinstance(cell, list) for cell in self.columns[self.column]) else ""

    @property
    def lone(self) -> bool:
        """True if every list has one entry, so that it may mean one class a row too."""
        lists = [cell for cell in self.columns[self.column] if isinstance(cell, list)]
        return len(self.columns) == 1 and bool(lists) and all(len(cell) == 1 for cell in lists)

    def unwrapped(self) -> Cells:
        """Return the cells with the entry of each list in its place."""
        cells = [cell[0] if isinstance(cell, list) else cell for cell in self.columns[self.column]]
        return replace(self, columns={self.column: cells})

    @cached_property
    def names(self) -> frozenset[str]:
        """The classes as the file spells them, before the label map. A cell of text is one class."""
        if len(self.columns) > 1:
            return frozenset(self.columns)
        if self.multi_hot:
            return frozenset(f"LABEL_{index}" for index in range(self.multi_hot))
        cells = [cell for cell in self.columns[self.column] if not is_missing(cell)]
        entries = [entry for cell in cells for entry in (cell if isinstance(cell, list) else [cell])]
        return frozenset(label_name(entry, where=self.where) for entry in entries if not is_missing(entry))

    @property
    def doubt(self) -> str:
        """A warning about labels that look like missing ones; empty: there are none."""
        return "" if len(self.columns) > 1 else describe_doubt(self.names, self.label_map)

    def spellings(self, name: str) -> list[str]:
        """Return how the file writes a class, so that --label-map can rename it.

        Args:
            name: of the class, after the label map.
        """
        return [old for old, new in self.label_map.items() if new == name] or [name]


def refuse_unused_entries(label_map: Mapping[str, str], tables: Sequence[tuple[str, Collection[str]]]) -> None:
    """Refuse entries of a label map that rename no class of any table, such as misspelled ones.

    Args:
        label_map: old name -> new name, as the user gives it.
        tables: the source of every table of a job, and its classes as it spells them (`Target.written`).

    Raises:
        RailkdError: there are such entries.
    """
    if not label_map or not tables:
        return
    known = sorted({name for _, names in tables for name in names})
    for old in label_map:
        if old not in known:
            raise RailkdError(
                f"--label-map: no label {shortened(old)!r} in {named(dict.fromkeys(where for where, _ in tables))}. "
                f"The labels are {named(known)}.{did_you_mean(old, known)}"
            )


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of one source.

    Attributes:
        rows: N rows with ``text``, ``text_pair`` for pairs, and ``label`` once a target has encoded the cells.
        source: where they come from.
        columns: which columns were read.
        cells: the N labels as the file writes them; None: they were not read.
        space: the classes of the model, as this source spells them, and their fold; None: not encoded yet.
        metrics: names of the metrics that count; None: the usual ones of the kind of task.
        positive: of two classes, the one whose F1 is meant; None: the second.
        domain: "in" or "out" of the domain of the training rows.
        notes: what the user should know about the rows, in words.
        joined: digests of the texts of the tables that were joined to this one.
    """

    rows: Dataset
    source: Source
    columns: Columns
    cells: Cells | None
    space: LabelSpace | None = None
    metrics: Sequence[str] | None = None
    positive: str | None = None
    domain: str = "in"
    notes: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def digest(self) -> str:
        """A digest of the texts and of the labels as the file writes them, row by row.

        It has 128 bits. It protects against mistakes, not against forgery.
        """
        digest, cells = xxhash.xxh3_128(), self.cells.columns if self.cells is not None else {}
        texts = [self.rows[name] for name in TEXT_COLUMNS if name in self.rows.column_names]
        for start in range(0, len(self), _ROWS_AT_ONCE):
            columns = [column[start : start + _ROWS_AT_ONCE] for column in (*texts, *cells.values())]
            digest.update(json.dumps(columns, default=str).encode())
        return str(digest.hexdigest())

    @cached_property
    def texts_digest(self) -> str:
        """A digest of the texts alone."""
        return self.digest if self.cells is None else replace(self, cells=None).digest

    @property
    def described(self) -> str:
        """The columns that were read, in words."""
        if self.cells is None:
            return f"text: {joined(self.columns.text, ' + ')}; no labels read"
        form = self.cells.several if len(self.cells.columns) == 1 else ""
        return self.columns.describe() + (f" ({form})" if form else "")


def read(source: Source, reading: Reading, *, split: str, labelled: bool = True) -> Table:
    """Read one source. Refuse one without the rows or columns asked for, and text cells that are not text.

    Args:
        source: where the rows are.
        reading: which columns to take.
        split: train, dev or test, where the source holds several.
        labelled: False leaves the labels out (unlabelled rows, prediction).

    Returns:
        The table, its labels as the file writes them.
    """

    def find_labels(rows: Dataset) -> Sequence[str]:
        found = choose_columns(source, reading, rows.column_names, labelled)
        return () if not labelled else reading.label if len(reading.label) > 1 else (str(found.label),)

    raw = limited((source.text, split, reading.label, labelled), lambda: source.rows(split), find_labels)
    return table_of(raw, source, reading, labelled=labelled)


def table_of(raw: Dataset, source: Source, reading: Reading, *, labelled: bool = True) -> Table:
    """Return the table of rows that were read already; see `read`.

    Args:
        raw: the rows of the source, with all their columns.
        source: where they come from.
        reading: which columns to take.
        labelled: False leaves the labels out.
    """
    columns, cells = choose_columns(source, reading, raw.column_names, labelled), None
    if labelled:
        names = reading.label if len(reading.label) > 1 else (str(columns.label),)
        known = source.row.raw_label_names if source.row else {}
        label_map = known if reading.label_map is None else reading.label_map
        cells = Cells({name: raw[name][:] for name in names}, source.text, label_map)
        refuse_lists_in_text([cell for cell in raw[names[0]][:] if isinstance(cell, str) and cell], source.text)
        columns = Columns(columns.text, " + ".join(names))
    texts = _texts(raw, columns.text, source.text)
    notes = (
        _file_note(raw),
        compare_training(reading, columns.text, raw.column_names, source),
        _empty_note(texts),
        cells.doubt if cells else "",
    )
    said = tuple(f"{source.text}: {note}" for note in notes if note)
    return Table(texts, source, columns, cells, notes=said)


def _file_note(rows: Dataset) -> str:
    return rows.info.description.removeprefix(NOTE) if rows.info.description.startswith(NOTE) else ""


def _empty_note(texts: Dataset) -> str:
    count, first = 0, 0
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        columns = [texts[name][start : start + _ROWS_AT_ONCE] for name in texts.column_names]
        for row, cells in enumerate(zip(*columns, strict=True), start + 1):
            if not all(map(str.strip, cells)):
                count, first = count + 1, first or row
    return blank_note(count, first) if count else ""


def _texts(rows: Dataset, columns: Sequence[str], where: str) -> Dataset:
    """Return the text columns by role. Text that Arrow holds stays there, so that a large table fits in memory."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    table, found = rows.select_columns(list(columns)).with_format("arrow")[:], {}
    for role, name in zip(TEXT_COLUMNS, columns, strict=False):
        cells = table.column(name)
        if cells.type != pa.string() or cells.null_count:
            values = enumerate(cells.to_pylist(), 1)
            cells = pa.array([check_text(value, row, name, where) for row, value in values], pa.string())
        found[role] = cells
    # With a fingerprint of its own: for one of the content, the whole table would be written to memory.
    return Dataset(InMemoryTable(pa.table(found)), fingerprint=uuid.uuid4().hex[:16])
