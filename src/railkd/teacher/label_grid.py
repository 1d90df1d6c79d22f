"""Reads the numbers that a file gives for each row and label, and collects what is wrong with them."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from railkd.data.label_names import is_missing, label_name, parse_number
from railkd.errors import RailkdError, did_you_mean
from railkd.runtime.words import named, shortened

if TYPE_CHECKING:
    from datasets import Dataset

#: Form -> how the columns of single labels begin.
PREFIXES = {"probabilities": "prob_", "logits": "logit_"}
_ROWS_AT_ONCE = 4096
_MOST_SHOWN = 20


@dataclass
class RowProblems:
    """Collects what is wrong with rows. All are reported as one error, in the order of the rows.

    Attributes:
        where: the file.
        found: (number of the row from 1, problem).
    """

    where: str
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, row: int, problem: str) -> None:
        """Note a problem of a row, counted from 0."""
        self.found.append((row + 1, problem))

    def report(self) -> None:
        """Raise the problems, if there are any.

        Raises:
            RailkdError: names the first rows, and counts the others.
        """
        if not self.found:
            return
        shown = sorted(set(self.found))
        lines = [f"row {row}: {problem}" for row, problem in shown[:_MOST_SHOWN]]
        more = f"; and {len(shown) - _MOST_SHOWN:,} more" if len(shown) > _MOST_SHOWN else ""
        raise RailkdError(f"{self.where}: {'; '.join(lines)}{more}. Fix: correct these rows, or leave them out.")


class Grid:
    """Collects numbers by row and label, and the labels as they come up.

    Args:
        names: the labels in their order; empty: those of the rows.
        label_map: old name -> new name.
        problems: receives labels that are not among the names.

    Attributes:
        parts: label -> the names in the file that became it, in their order.
    """

    def __init__(self, names: Sequence[str], label_map: Mapping[str, str], problems: RowProblems) -> None:
        self.names = {name: place for place, name in enumerate(names)}
        self._fixed, self._map, self.problems = bool(names), label_map, problems
        self._rows, self._places, self._numbers = array("q"), array("q"), array("d")
        self.parts: dict[str, dict[str, None]] = {}

    def put(self, row: int, name: Any, value: Any) -> None:
        """Store one number. A null or an empty cell stores nothing.

        Args:
            row: counted from 0.
            name: of the label.
            value: a number, or a text that is one.
        """
        if is_missing(value) and not isinstance(value, float):
            return
        written = label_name(name)
        name = self._map.get(written, written)
        if self._fixed and name not in self.names:
            near = did_you_mean(name, self.names)
            self.problems.add(row, f"the label {shortened(name)!r} is not one of {named(self.names)}.{near}")
            return
        number = parse_number(value)
        if number is None or not math.isfinite(number):
            self.problems.add(row, f"expected a number for {shortened(name)!r}, got {shortened(repr(value))}")
            return
        self.parts.setdefault(name, {})[written] = None
        self._rows.append(row)
        self._places.append(self.names.setdefault(name, len(self.names)))
        self._numbers.append(number)

    def arrays(self, rows: int, add: np.ufunc = np.add) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers (rows, C), 0 where there is none, and how many the file has for each (rows, C).

        Args:
            rows: how many.
            add: joins the numbers that are of one label.
        """
        places = (np.asarray(self._rows, dtype=np.int64), np.asarray(self._places, dtype=np.int64))
        values = np.full((rows, len(self.names)), add.identity, dtype=np.float64)
        counts = np.zeros(values.shape, dtype=np.int64)
        add.at(values, places, np.asarray(self._numbers))
        np.add.at(counts, places, 1)
        return np.where(counts > 0, values, 0.0), counts

    def merged(self, counts: np.ndarray) -> dict[str, tuple[str, ...]]:
        """Return the labels that the label map made of several names -> these names.

        Names of which no row has more than one are spellings of one label, and left out.

        Args:
            counts: (rows, C), as `arrays` returns them.
        """
        several = {name for name, place in self.names.items() if (counts[:, place] > 1).any()}
        return {name: tuple(parts) for name, parts in self.parts.items() if len(parts) > 1 and name in several}


def fill(raw: Dataset, form: str, columns: Sequence[str], grid: Grid) -> None:
    """Put the numbers of all rows into a grid.

    Args:
        raw: the rows of a file.
        form: ``probabilities``, ``logits`` or ``votes``.
        columns: the column of this name, or one for each label.
        grid: receives them.
    """
    read = _vote if form == "votes" else _cell
    for start in range(0, len(raw), _ROWS_AT_ONCE):
        if columns != [form]:
            for column in columns:
                name = column.removeprefix(PREFIXES[form])
                for row, value in enumerate(raw[column][start : start + _ROWS_AT_ONCE], start):
                    grid.put(row, name, value)
            continue
        for row, cell in enumerate(raw[form][start : start + _ROWS_AT_ONCE], start):
            if not is_missing(cell):
                read(row, _decoded(cell), grid)


def _decoded(cell: Any) -> Any:
    """Return a cell, of which a csv or tsv file may hold the JSON."""
    if isinstance(cell, str) and cell.strip()[:1] in ("{", "["):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell


def _cell(row: int, cell: Any, grid: Grid) -> None:
    """Put a mapping of numbers, or a list of them in the order of ``--labels``."""
    if isinstance(cell, Mapping):
        for name, value in cell.items():
            grid.put(row, name, value)
    elif not isinstance(cell, list):
        grid.problems.add(row, f"expected a mapping of labels to numbers, or a list, got {shortened(repr(cell))}")
    elif len(cell) != len(grid.names):
        order = f"{len(grid.names)}, as many as --labels names" if grid.names else "their order from --labels a,b,c"
        grid.problems.add(row, f"expected {order}, got a list of {len(cell)} numbers")
    else:
        for name, value in zip(list(grid.names), cell, strict=True):
            grid.put(row, name, value)


def _vote(row: int, cell: Any, grid: Grid) -> None:
    """Put one for each vote: names in a list, or in a text with "|" between them, or a mapping of name to count."""
    votes = cell.split("|") if isinstance(cell, str) else cell
    if isinstance(votes, Mapping):
        _cell(row, votes, grid)
        return
    for vote in votes if isinstance(votes, list) else [votes]:
        if is_missing(vote):
            continue
        try:
            grid.put(row, label_name(vote), 1)
        except RailkdError:
            grid.problems.add(row, f"expected names of labels as votes, got {shortened(repr(vote))}")
