"""Reads the answers of a model from a file of predictions, and matches them with labelled rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from railkd.data.label_names import parse_number
from railkd.data.reader import TEXT_COLUMNS, Table
from railkd.data.sources import load_rows
from railkd.errors import RailkdError
from railkd.runtime.words import counted, named, shortened
from railkd.tasks import TASKS, Task, task_named
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
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    outputs: np.ndarray
    columns: dict[str, list[Any]]
    bare: bool = False

    @classmethod
    def read(cls, name: str, asked: str | None = None, more: Sequence[str] = ()) -> AnswerFile:
        """Read a file that ``railkd predict`` or ``--keep-predictions`` wrote, or one with a column ``label``.

        Args:
            name: of the file.
            asked: kind of task that the user named; None: the columns say it.
            more: classes that a file without outputs may lack.

        Returns:
            The answers.

        Raises:
            RailkdError: the file has no column of answers.
        """
        rows = load_rows(name)
        columns = {column: rows[column][:] for column in rows.column_names}
        if isinstance(next(iter(columns.get("probabilities", [])), None), dict):
            shares = columns.pop("probabilities")
            columns |= {f"prob_{label}": [share[label] for share in shares] for label in shares[0]}
        several, number = "labels" in columns, "score" in columns and not {"label", "labels"} & columns.keys()
        kind = next(task for task in TASKS.values() if (task.several, task.width == 1) == (several, number))
        task = task_named(asked) if asked else kind
        for prefix in ("logit_", "prob_"):
            found = [column for column in columns if column.startswith(prefix)]
            if found and task.width is None:
                values = _numbers([columns[column] for column in found], name)
                if prefix == "prob_":
                    shares = values.clip(_LEAST, 1 - _LEAST)
                    values = np.log(shares / (1 - shares)) if several else np.log(shares)
                return cls(name, task, tuple(column.removeprefix(prefix) for column in found), values, columns)
        given = next((columns[column] for column in ("labels", "label", "score") if column in columns), None)
        if given is None:
            raise RailkdError(
                f"{name}: expected columns of answers (logit_NAME, prob_NAME, label, labels or score), got "
                f"{named(columns)}. Fix: give a file that railkd predict wrote."
            )
        if task.width == 1:
            return cls(name, task, (), _numbers([given], name), columns)
        answers = split_cells(given, where=name) if several else [(str(cell),) for cell in given]
        labels = tuple(sorted({label for row in answers if row for label in row} | set(more)))
        outputs = np.array([[_SURE if label in (row or ()) else -_SURE for label in labels] for row in answers])
        return cls(name, task, labels, outputs, columns, bare=True)

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
        return replace(self, labels=tuple(labels), outputs=self.outputs[:, order])

    def match(self, table: Table) -> np.ndarray:
        """Return the outputs for labelled rows, which are found by their texts, or else by the column ``index``.

        Args:
            table: N rows.

        Returns:
            (N, C).

        Raises:
            RailkdError: rows are missing, or there is nothing to match them by.
        """
        texts = next((names for names in (table.columns.text, TEXT_COLUMNS[: len(table.columns.text)])
                      if set(names) <= self.columns.keys()), None)  # fmt: skip
        if texts is not None:
            return self.outputs[self._by_text(table, texts)]
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
        return self.outputs[np.argsort(index)]

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
