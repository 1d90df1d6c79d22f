"""The forms in which a file gives a teacher's answers, and how each becomes outputs.

======================================  ==========================================================================
column                                  a cell holds
======================================  ==========================================================================
``probabilities``                       a mapping of label name to number, or a list in the order of ``--labels``
or ``prob_NAME``                        the number of one label; one column for each
``logits``, or ``logit_NAME``           the same with logits
``votes``                               label names of several raters or samples, or a mapping of name to count
a label column                          one label (or several, or a number) as training files write it
======================================  ==========================================================================

The first row of this table that fits a file decides. A row without any answer is left out. A mapping of probabilities
or votes may leave out labels, which then have 0.

Outputs are logits: log p of probabilities (log p / (1 - p) where any number of labels apply), with p of at least
`FLOOR`, because a logarithm of 0 is not finite. Where ``--label-map`` makes several names of a file one label, the
probability of that label is the sum of theirs: probabilities and votes are added, and of logits z the log of the sum of
exp z is taken. Where any number of labels apply, a row with several such names is refused: how often they apply
together is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from railkd.data.columns import find_columns
from railkd.data.label_names import is_missing, parse_number
from railkd.data.predictions import is_number_file
from railkd.data.reader import Table, table_of
from railkd.data.reading import Reading
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.runtime.words import named
from railkd.tasks import TASKS, Task
from railkd.tasks.target import Target
from railkd.teacher.label_grid import PREFIXES, Grid, RowProblems, fill

if TYPE_CHECKING:
    from datasets import Dataset

#: The smallest probability, so that its logarithm is finite.
FLOOR = 1e-6
#: How far the probabilities of a row may be from a sum of 1, and a repeated answer from the first one.
CLOSE = 1e-3
_NEEDED = (
    "a column 'probabilities', 'logits' or 'votes', columns 'prob_NAME' or 'logit_NAME' for each label, or a label "
    "column"
)


@dataclass(frozen=True)
class Answers:
    """The answers of a file.

    Attributes:
        table: the N texts.
        task: the kind of task.
        names: the C labels, in the order of the outputs; one placeholder where the answers are numbers.
        outputs: (N, C), as a model of this task gives them.
        there: (N,) bool: which rows have an answer.
        form: the form and the columns, in words.
    """

    table: Table
    task: Task
    names: tuple[str, ...]
    outputs: np.ndarray
    there: np.ndarray
    form: str


def read_answers(
    source: Source,
    reading: Reading,
    *,
    names: Sequence[str] = (),
    smoothing: float = 0.0,
    task: Task | None = None,
    beside: bool = False,
) -> Answers:
    """Read the answers of a file. Everything that is wrong with its rows is one error.

    Args:
        source: the file.
        reading: which columns hold texts and labels.
        names: of the labels, in the order of the outputs; empty: those of the file, in its order.
        smoothing: share of a hard label that is spread over all labels.
        task: the kind of task; None: classification, or what hard labels are.
        beside: the file stands beside others that are read alike. Columns that it lacks are found by common names.

    Returns:
        The answers, row by row.

    Raises:
        RailkdError: the file has none of the forms, or rows that cannot be read.
    """
    raw = source.rows("train")
    columns = raw.column_names
    if beside:
        reading = reading.where_there(columns)
    for label in reading.label:
        find_columns(columns, text=reading.text or None, label=label)  # refuses a column that does not exist
    for form in ("probabilities", "logits", "votes"):
        prefix = PREFIXES.get(form, "\0")
        own = [name for name in columns if name.startswith(prefix) and name != prefix]
        if form not in columns and not own:
            continue
        if smoothing:
            raise RailkdError(
                f"--label-smoothing spreads hard labels, but '{source.text}' holds {form}. Fix: leave the flag out."
            )
        if reading.label and not beside:
            raise RailkdError(
                f"--label-column names a column of labels, but '{source.text}' holds {form}, which are taken. "
                "Fix: leave the flag out, or that column of the file."
            )
        grid = Grid(names, reading.label_map or {}, RowProblems(source.text))
        chosen = [form] if form in columns else own
        fill(raw, form, chosen, grid)
        outputs, there = _outputs_of(form, grid, len(raw), task or next(iter(TASKS.values())))
        words = f"{form} in the column{'s' * (len(chosen) > 1)} {named(chosen)}"
        table = table_of(raw, source, reading, labelled=False)
        return Answers(table, task or next(iter(TASKS.values())), tuple(grid.names), outputs, there, words)
    if not reading.label and find_columns(columns, text=reading.text or None).label is None:
        raise RailkdError(f"{source.text}: expected {_NEEDED}, got the columns {named(columns)}. Fix: add one of them.")
    return _hard(raw, source, reading, names, smoothing, task)


# ---- outputs of a model ----------------------------------------------------------------------------------------------


def _outputs_of(form: str, grid: Grid, rows: int, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs (N, C) and which rows have an answer (N,); report what is wrong with the rows."""
    values, given = grid.arrays(rows, np.logaddexp if form == "logits" else np.add)
    where = grid.problems.where
    if task.width is not None or (form == "votes" and task.several):
        grid.problems.report()
        raise RailkdError(f"{where}: {form} are not the answers of {task.name}. Fix: give one {_of(task)} a row.")
    for name, parts in grid.merged(given).items() if task.several else ():
        raise RailkdError(
            f"{where}: expected one name in the file for each label, because any number of labels apply, got "
            f"{named(parts)} for {named([name])} (--label-map). The {form} do not say how often they apply together. "
            f"Fix: leave these entries out of --label-map, or give the {form} of {named([name])}."
        )
    outputs = _FROM[form](values, given, task, grid)
    grid.problems.report()
    least = 1 if task.several else 2
    if len(grid.names) < least:
        raise RailkdError(
            f"{where}: expected the {form} of {least} labels or more, got those of {named(grid.names) or 'none'}. "
            "Fix: name all labels with --labels a,b,c."
        )
    return outputs, np.asarray(given.any(axis=1))


def _of(task: Task) -> str:
    return "number (column 'label')" if task.width is not None else "mapping of probabilities (column 'probabilities')"


def _from_probabilities(values: np.ndarray, given: np.ndarray, task: Task, grid: Grid) -> np.ndarray:
    for row in np.flatnonzero((values < 0).any(axis=1)):
        grid.problems.add(int(row), f"expected probabilities of 0 or more, got {values[row].min():g}")
    if task.several:
        for row in np.flatnonzero((values > 1).any(axis=1)):
            grid.problems.add(int(row), f"expected probabilities up to 1, got {values[row].max():g}")
        return _log_odds(values)
    total = values.sum(axis=1)
    for row in np.flatnonzero(given.any(axis=1) & (np.abs(total - 1) > CLOSE)):
        grid.problems.add(
            int(row),
            f"expected probabilities with a sum of 1, got {total[row]:.4g} (if any number of labels apply: "
            "--problem-type multi-label)",
        )
    return _log(values)


def _from_logits(values: np.ndarray, given: np.ndarray, task: Task, grid: Grid) -> np.ndarray:
    names = np.asarray(list(grid.names), dtype=object)
    for row in np.flatnonzero(given.any(axis=1) & ~given.all(axis=1)):
        grid.problems.add(int(row), f"expected the logit of every label, got none of {named(names[given[row] == 0])}")
    for name, parts in grid.merged(given).items():
        count = given[:, grid.names[name]]
        for row in np.flatnonzero((count > 0) & (count < len(parts))):
            grid.problems.add(int(row), f"expected a logit for each of {named(parts)}, got {count[row]}")
    return values


def _from_votes(values: np.ndarray, given: np.ndarray, task: Task, grid: Grid) -> np.ndarray:
    for row in np.flatnonzero((values < 0).any(axis=1) | (given.any(axis=1) & (values.sum(axis=1) <= 0))):
        grid.problems.add(int(row), f"expected counts of votes with a sum above 0, got {values[row].tolist()}")
    return _log(values)


def _log(values: np.ndarray) -> np.ndarray:
    """Return the logarithms (N, C) of shares, which need not have a sum of 1."""
    total = values.sum(axis=1, keepdims=True)
    shares = np.divide(values, total, out=np.ones_like(values), where=total > 0)
    return np.asarray(np.log(np.maximum(shares, FLOOR)))


def _log_odds(shares: np.ndarray) -> np.ndarray:
    """Return log p / (1 - p) of shares (N, C), each of which stands alone."""
    inside = np.clip(shares, FLOOR, 1 - FLOOR)
    return np.asarray(np.log(inside / (1 - inside)))


_FROM: dict[str, Callable[[np.ndarray, np.ndarray, Task, Grid], np.ndarray]] = {
    "probabilities": _from_probabilities,
    "logits": _from_logits,
    "votes": _from_votes,
}


# ---- hard labels -----------------------------------------------------------------------------------------------------


def _hard(
    raw: Dataset, source: Source, reading: Reading, names: Sequence[str], smoothing: float, task: Task | None
) -> Answers:
    """Return the answers of a label column, read as the labels of training rows are."""
    if not reading.label and _holds_numbers(raw, source, reading, task):
        reading = replace(reading, label=("score",))
    column = reading.label[0] if reading.label else str(find_columns(raw.column_names, text=reading.text or None).label)
    there = np.array([len(reading.label) > 1 or not is_missing(cell) for cell in raw[column][:]])
    if not there.any():
        raise RailkdError(f"{source.text}: no row has an answer in column {column!r}. Fix: fill it in.")
    table = table_of(raw if there.all() else raw.select(np.flatnonzero(there)), source, reading, labelled=True)
    target = Target.infer(table, task)
    labels = np.asarray(target.label(table).rows["label"], dtype=np.float64)
    found = target.space.names
    if found:
        order = _ordered(found, names, source)
        outputs = _of_labels(labels, [order.index(name) for name in found], len(order), smoothing, target.task)
    else:
        order, outputs = ("LABEL_0",), labels[:, None]
        if smoothing or names:
            raise RailkdError(
                f"{source.text}: --labels and --label-smoothing are for classes, got numbers in {column!r}."
            )
    every = np.zeros((len(raw), len(order)))
    every[there] = outputs
    words = f"{'labels' if found else 'numbers'} in the column {column!r}"
    words += f", smoothed by {smoothing:g}" if smoothing else ""
    if not there.all():
        table = table_of(raw, source, reading, labelled=False)
    return Answers(table, target.task, order, every, there, words)


def _holds_numbers(raw: Dataset, source: Source, reading: Reading, task: Task | None) -> bool:
    """Return whether the numbers of ``railkd predict`` are the answers; refuse numbers as labels beside them."""
    if not is_number_file(raw.column_names) or (task is not None and task.width is None):
        return False
    label = find_columns(raw.column_names, text=reading.text or None).label
    if task is not None or label is None or label.casefold() == "score":
        return True
    cells = [cell for cell in raw[label][:] if not is_missing(cell)]
    if cells and all(parse_number(str(cell)) is not None for cell in cells):
        raise RailkdError(
            f"{source.text}: expected one column of answers, got numbers in two: column {label!r} or 'score'? Fix: "
            "give --label-column or --problem-type."
        )
    return not cells


def _ordered(found: Sequence[str], names: Sequence[str], source: Source) -> tuple[str, ...]:
    """Return the labels in the order of ``--labels``, or as they were found without it; refuse unknown ones."""
    unknown = [name for name in found if names and name not in names]
    if unknown:
        raise RailkdError(
            f"{source.text}: expected labels out of {named(names)} (--labels), got {named(unknown)} too. Fix: correct "
            "--labels, or rename labels with --label-map."
        )
    return tuple(names or found)


def _of_labels(labels: np.ndarray, places: Sequence[int], width: int, smoothing: float, task: Task) -> np.ndarray:
    """Return the outputs (N, width) of encoded labels, whose class i stands at ``places[i]``."""
    shares = np.zeros((len(labels), width))
    if task.several:
        shares[:, places] = labels
        return _log_odds((1 - smoothing) * shares + smoothing / 2)
    shares[np.arange(len(labels)), np.asarray(places)[labels.astype(int)]] = 1
    return _log((1 - smoothing) * shares + smoothing / width)
