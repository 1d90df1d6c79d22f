"""Reads the answers of a model from a file of predictions, and matches them with labelled rows.

``railkd predict`` and ``--keep-predictions`` write the answer beside the outputs, and the answer counts: it may follow
thresholds. The outputs then tell the confidence alone. A file with ``prob_NAME`` and without ``logit_NAME`` comes from
elsewhere, where ``label`` may be the label of the row, so the largest probability is the answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from railkd.data.label_names import is_missing, label_name, parse_number
from railkd.data.predictions import is_number_file
from railkd.data.reader import TEXT_COLUMNS, Table
from railkd.data.sources import load_rows
from railkd.errors import RailkdError
from railkd.runtime.words import counted, named, shortened
from railkd.tasks import TASKS, Task
from railkd.tasks.multilabel import split_cells

#: Output of the class that a file names without a probability, and of the others.
_SURE = 20.0
#: The least probability that counts.
_LEAST = 1e-12


@dataclass(frozen=True)
class AnswerFile:
    """The answers of a model to some rows.

    Attributes:
        name: of the file, as the user gave it.
        task: the kind of task.
        labels: of the outputs; of a file without outputs, the answers that occur.
        outputs: (M, C).
        columns: name -> M cells.
        bare: it names answers without outputs, so that it may lack classes.
        given: (M, C) bool, the classes that the file answers; None: those of the outputs.
        settled: no model of another kind of task writes these columns.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    outputs: np.ndarray
    columns: dict[str, list[Any]]
    bare: bool = False
    given: np.ndarray | None = None
    settled: bool = False

    @classmethod
    def read(cls, name: str, asked: Task | None = None) -> AnswerFile:
        """Read a file that ``railkd predict`` or ``--keep-predictions`` wrote, or one with a column ``label``.

        Args:
            name: of the file.
            asked: kind of task that the user named; None: the columns say it.

        Returns:
            The answers.
        """
        rows = load_rows(name)
        columns = {column: rows[column][:] for column in rows.column_names}
        if any(isinstance(share, dict) for share in columns.get("probabilities", [])):
            shares = columns.pop("probabilities")
            _check_answered(shares, name, "probabilities")
            columns |= {f"prob_{label}": [share[label] for share in shares] for label in shares[0]}
        return cls._of(name, columns, asked)

    def again(self, task: Task | None = None, more: Sequence[str] = ()) -> AnswerFile:
        """Return the answers as those of another kind of task, or with more classes.

        Args:
            task: the kind; None: it stays.
            more: classes that a file without outputs may lack.

        Returns:
            The answers.
        """
        return self._of(self.name, self.columns, task or self.task, more)

    @classmethod
    def _of(cls, name: str, columns: dict[str, list[Any]], asked: Task | None, more: Sequence[str] = ()) -> AnswerFile:
        kind, settled = _kind_of(columns)
        task = asked or kind
        for prefix in ("logit_", "prob_"):
            found = [column for column in columns if column.startswith(prefix)]
            if found and task.width is None:
                values, labels = _numbers([columns[column] for column in found], name), _after(prefix, columns)
                if prefix == "logit_":
                    return cls(name, task, labels, values, columns, False, _given(columns, task, labels, name), settled)
                shares = values.clip(_LEAST, 1 - _LEAST)
                values = np.log(shares / (1 - shares)) if task.several else np.log(shares)
                return cls(name, task, labels, values, columns, settled=settled)
        column = next((column for column in _order(task) if column in columns), None)
        if column is None:
            raise RailkdError(
                f"{name}: expected columns of answers (logit_NAME, prob_NAME, label, labels or score), got "
                f"{named(columns)}. Fix: give a file that railkd predict wrote."
            )
        given = columns[column]
        if task.width == 1:
            return cls(name, task, (), _numbers([given], name), columns, settled=settled)
        answers = split_cells(given, where=name) if task.several else [(one,) for one in _classes(given, name, column)]
        labels = tuple(sorted({label for row in answers if row for label in row} | set(more)))
        outputs = np.array([[_SURE if label in (row or ()) else -_SURE for label in labels] for row in answers])
        return cls(name, task, labels, outputs, columns, bare=True, settled=settled)

    def ordered(self, labels: Sequence[str], other: str) -> AnswerFile:
        """Return the answers with the classes in another order.

        Args:
            labels: the order.
            other: the model or file that has it, for the message.

        Returns:
            The answers.

        Raises:
            RailkdError: the classes are others.
        """
        if not self.labels:  # numbers
            return self
        if sorted(labels) != sorted(self.labels):
            raise RailkdError(
                f"Expected the same classes in '{self.name}' and '{other}', got {named(self.labels)} and "
                f"{named(labels)}. Fix: compare answers of one task."
            )
        order = [self.labels.index(label) for label in labels]
        given = None if self.given is None else self.given[:, order]
        return replace(self, labels=tuple(labels), outputs=self.outputs[:, order], given=given)

    def match(self, table: Table) -> tuple[np.ndarray, np.ndarray | None]:
        """Return outputs and answers for labelled rows, which are found by their texts, or else by ``index``.

        Args:
            table: N rows.

        Returns:
            (N, C) outputs, and N answers as the kind of task encodes them; None: they are those of the outputs.

        Raises:
            RailkdError: rows are missing, or there is nothing to match them by.
        """
        texts = next((names for names in (table.columns.text, TEXT_COLUMNS[: len(table.columns.text)])
                      if set(names) <= self.columns.keys()), None)  # fmt: skip
        if texts is not None:
            return self._at(np.asarray(self._by_text(table, texts), dtype=int))
        if "index" not in self.columns:
            raise RailkdError(
                f"{self.name}: expected the texts of '{table.source.text}' ({named(table.columns.text)}) or a column "
                f"'index' to match its rows by, got {named(self.columns)}. Fix: predict that file again."
            )
        index = _numbers([self.columns["index"]], self.name)[:, 0]
        if len(index) != len(table) or not np.array_equal(np.sort(index), np.arange(len(table))):
            raise RailkdError(
                f"{self.name}: expected an index from 0 to {len(table) - 1:,}, one for each row of "
                f"'{table.source.text}', got {counted(len(index), 'row')}. Fix: predict that file again."
            )
        return self._at(np.argsort(index))

    def _at(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        given = None if self.given is None else self.given[places]
        if given is not None:
            given = given.astype(float) if self.task.several else given.argmax(axis=1)
        return self.outputs[places], given

    def _by_text(self, table: Table, names: Sequence[str]) -> list[int]:
        """Return the number of the answer for each row. Of equal texts, the first row gets the first answer."""
        places: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, key in enumerate(zip(*(self.columns[name] for name in names), strict=True)):
            places[key].append(place)
        own = [name for name in TEXT_COLUMNS if name in table.rows.column_names]
        wanted = list(zip(*(table.rows[name][:] for name in own), strict=True))
        missing = [number for number, key in enumerate(wanted, 1) if key not in places]
        if missing:
            raise RailkdError(
                f"{self.name}: has no answer for {len(missing):,} of the {counted(len(wanted), 'row')} of "
                f"'{table.source.text}'; the first is row {missing[0]} "
                f"({shortened(' | '.join(wanted[missing[0] - 1]))!r}). Fix: predict that file."
            )
        seen: dict[tuple[str, ...], int] = defaultdict(int)
        found = []
        for key in wanted:
            found.append(places[key][min(seen[key], len(places[key]) - 1)])
            seen[key] += 1
        return found


def _after(prefix: str, columns: Iterable[str]) -> tuple[str, ...]:
    """Return what follows a prefix in the names of columns."""
    return tuple(column.removeprefix(prefix) for column in columns if column.startswith(prefix))


def _order(task: Task) -> tuple[str, ...]:
    """Return the columns of answers, the first of which counts. A model of numbers has no column ``label``."""
    if task.width == 1:
        return ("score", "label", "labels")
    return ("labels", "label", "score") if task.several else ("label", "labels", "score")


def _kind_of(columns: Mapping[str, Sequence[Any]]) -> tuple[Task, bool]:
    """Return the kind of task that columns are of, and whether no model of another kind writes them."""
    one = next(task for task in TASKS.values() if task.one_class)
    number = next(task for task in TASKS.values() if task.width is not None)
    several = next(task for task in TASKS.values() if task.several)
    names, label = _after("logit_", columns), columns.get("label", ())
    if names and {"labels", *(f"score_{name}" for name in names)} <= columns.keys():
        return several, True
    if names and {"label", "score"} <= columns.keys():
        return one, True
    if is_number_file(columns) and _are_numbers(label):
        return number, not label
    if "labels" in columns:
        return several, False
    if len(names) == 1 and label and _are_numbers(label):
        return number, False
    if names and not all(isinstance(cell, str | int | float) and _class(cell, names) in names for cell in label):
        parts = {part for cell in label for part in _parts(cell, names)}
        return (several if parts <= set(names) else one), False
    return (number if "score" in columns and "label" not in columns else one), False


def _are_numbers(cells: Sequence[Any]) -> bool:
    return all(cell is None or parse_number(str(cell)) is not None for cell in cells)


def _class(cell: Any, known: Sequence[str], where: str = "labels") -> str:
    """Return the class that a cell names: one of the known names as it stands, or else as labels are read."""
    return str(cell) if str(cell) in known else label_name(cell, where=where)


def _parts(cell: Any, known: Sequence[str]) -> list[str]:
    """Return the classes of a cell that ``railkd predict`` wrote for a model of several classes a row."""
    if is_missing(cell):
        return []
    cells = cell.split("|") if isinstance(cell, str) else cell if isinstance(cell, list) else [cell]
    return [_class(one, known) for one in cells if not is_missing(one)]


def _check_answered(cells: Sequence[Any], where: str, column: str) -> None:
    empty = [row for row, cell in enumerate(cells, 1) if is_missing(cell)]
    if empty:
        raise RailkdError(
            f"{where}: column {column!r}: expected an answer in each row, got none in {counted(len(empty), 'row')}, "
            f"the first of them row {empty[0]}. Fix: predict that row, or leave it out."
        )


def _classes(cells: Sequence[Any], where: str, column: str, known: Sequence[str] = ()) -> list[str]:
    _check_answered(cells, where, column)
    return [_class(cell, known, where) for cell in cells]


def _given(columns: Mapping[str, Sequence[Any]], task: Task, labels: Sequence[str], where: str) -> np.ndarray | None:
    """Return (M, C) bool, the answers beside outputs; None: there are none, or they are of coarser classes."""
    column = next((column for column in _order(task)[:2] if column in columns), None)
    if column is None:
        return None
    cells = columns[column]
    if task.several:
        rows = [set(_parts(cell, labels)) for cell in cells]
    else:
        rows = [{one} for one in _classes(cells, where, column, labels)]
    unknown = sorted({name for row in rows for name in row} - set(labels))
    if unknown and "gold" in columns:  # --keep-predictions: the set may have coarser classes than the model
        return None
    if unknown:
        raise RailkdError(
            f"{where}: column {column!r}: expected classes that have a column logit_NAME ({named(labels)}), got "
            f"{named(unknown)}. Fix: predict that file again, or name another --problem-type."
        )
    return np.array([[label in row for label in labels] for row in rows])


def _numbers(columns: Sequence[Sequence[Any]], where: str) -> np.ndarray:
    """Return cells as numbers, (M, columns)."""
    rows = []
    for row, cells in enumerate(zip(*columns, strict=True), 1):
        values = [cell if isinstance(cell, int | float) else parse_number(str(cell)) for cell in cells]
        if any(value is None for value in values):
            bad = next(cell for cell, value in zip(cells, values, strict=True) if value is None)
            raise RailkdError(f"{where}: row {row}: expected a number, got {shortened(str(bad))!r}. Fix: correct it.")
        rows.append(values)
    return np.asarray(rows, dtype=np.float64)
