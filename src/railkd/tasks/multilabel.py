"""Any number of classes a row: read from one cell, from a list, or from several columns of 0 and 1.

An empty cell or list means "no class applies". Null and NaN are missing labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from railkd.data.label_names import is_missing, label_name, no_label, normalize
from railkd.data.labels import LabelSpace, match_label_space
from railkd.data.reader import Cells
from railkd.errors import RailkdError
from railkd.runtime.words import joined, named, quoted, shortened
from railkd.tasks.base import Task
from railkd.tasks.cut import moved, scaled
from railkd.tasks.judging import Finding, describe_balance, weak_teacher
from railkd.tasks.reader import ClassReader, ReadLabel

if TYPE_CHECKING:
    import numpy as np

    from railkd.data.ood import OodSet

#: In this order: a file that has "|" anywhere may have commas inside its names.
SEPARATORS = ("|", ";", ",")
_FLAGS = {"0": False, "1": True, "false": False, "true": True}
Classes = tuple[str, ...] | None  # those of one row; None: no label


@final
class MultiLabel(Task):
    """Any number of classes a row. Labels are vectors of 0 and 1, of NaN where a row has none."""

    name = "multi-label"
    problem_type = "multi_label_classification"
    loss_function = "binary_cross_entropy"
    kd_function = "kl_of_each_class"
    metrics = ("micro_f1", "macro_f1", "subset_accuracy")
    real_labels = True
    several = True
    empty_cell = True

    def fits_outputs(self, outputs: int) -> bool:
        return False

    def fits_cells(self, cells: Cells, official: Sequence[str]) -> bool:
        return bool(cells.several)

    def infer(self, cells: Cells, official: Sequence[str] = ()) -> LabelSpace:
        # The classes are those of several columns, or all that occur, in the order of the alphabet.
        # Lists of 0 and 1 name no class: the classes get the default names of transformers.
        if cells.multi_hot:
            defaults = [f"LABEL_{index}" for index in range(cells.multi_hot)]
            names = tuple(cells.label_map.get(name, name) for name in defaults)
            if len(set(names)) < len(names):
                raise RailkdError(
                    f"{cells.where}: expected --label-map to give each flag of the lists a name of its own, got "
                    f"{named(names)}. Fix: give them other names, or write the rows as lists of names."
                )
            return LabelSpace(names)
        found = sorted({name for row in classes_of(cells) if row for name in row})
        columns = dict.fromkeys(cells.label_map.get(name, name) for name in cells.columns)
        known = tuple(columns if len(cells.columns) > 1 else found)
        if len(known) < 2:
            only = f"{shortened(known[0])!r} alone" if known else "none"
            raise RailkdError(
                f"{cells.where}: expected at least two classes, got {only}. "
                "Fix: separate the classes of a row by ',', ';' or '|'."
            )
        return LabelSpace(known)

    def match(self, cells: Cells, names: Sequence[str], *, model: str, row: OodSet | None = None) -> LabelSpace:
        if cells.multi_hot:
            if cells.multi_hot != len(names):
                raise RailkdError(
                    f"{cells.where}: has {cells.several}, but {model} has {len(names)} classes ({named(names)}). "
                    "Fix: write a 0 or 1 for each of them, or, if 0 and 1 are classes: --label-map 0=NAME 1=NAME."
                )
            _refuse_other_order(cells, names, model)
            return self.space(names)
        rows = _rows(cells, names)
        seen = LabelSpace(tuple(dict.fromkeys(name for found in rows if found for name in found)))
        return match_label_space(names, seen, label_map=cells.label_map, model=model, where=cells.where, several=True)

    def encode(self, cells: Cells, space: LabelSpace) -> list[Any]:
        if cells.multi_hot:
            return [_flags(cell, cells.where, row) for row, cell in enumerate(cells.columns[cells.column], 1)]
        vectors = []
        for number, row in enumerate(_rows(cells, space.names), 1):
            if row is None:
                raise RailkdError(no_label(cells.where, number))
            here = {space.index(name, where=f"{cells.where}: row {number}") for name in row}
            vectors.append([float(index in here) for index in range(len(space.names))])
        return vectors

    def reader(self, names: Sequence[str], ids: Mapping[str, int], given: Sequence[str] | None = None) -> ReadLabel:
        return ClassReader(names, ids, given).vector

    def describe(self, names: Sequence[str]) -> str:
        return f"any number of the classes {joined(names)}"

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return (moved(self.cut, outputs, several=True) > 0).astype(float)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        from scipy.special import expit

        chances: np.ndarray = expit(scaled(self.cut, outputs))
        return chances

    def confidence(self, outputs: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
        import numpy as np
        from scipy.special import expit

        z, answers = scaled(self.cut, outputs), self.decide(outputs) if given is None else given
        share: np.ndarray = expit(np.where(answers > 0.5, z, -z))  # that it applies or does not, as given
        return share.min(axis=1)

    def in_words(self, values: np.ndarray, space: LabelSpace) -> list[Any]:
        import numpy as np

        names = np.asarray(space.names)
        known = self.labelled(values)
        return [list(names[row > 0.5]) if there else None for there, row in zip(known, values, strict=True)]

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        chances, given = self.probabilities(outputs), self.decide(outputs)  # (N, C)
        return [
            {"index": i, "labels": [name for name, value in zip(names, given[i], strict=True) if value > 0.5]}
            | {f"score_{name}": round(float(value), 6) for name, value in zip(names, chances[i], strict=True)}
            | {f"logit_{name}": round(float(value), 6) for name, value in zip(names, row, strict=True)}
            for i, row in enumerate(outputs)
        ]

    def constant(self, labels: np.ndarray, outputs: int) -> np.ndarray:
        # The k commonest classes, for the k with the highest micro F1.
        import numpy as np

        counts = labels.sum(axis=0)
        order, k = np.argsort(-counts, kind="stable"), np.arange(1, len(counts) + 1)
        best = int((2 * counts[order].cumsum() / (k * len(labels) + max(1.0, counts.sum()))).argmax())
        answer = np.full(len(counts), -1.0)
        answer[order[: best + 1]] = 1.0
        return answer

    def compare_with_constant(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Finding:
        found, best = self.score(outputs, labels)["micro_f1"], self.baseline(labels, self.space(names))["micro_f1"]
        detail = f"micro F1 {found:.3f} on {len(labels)} rows, {best:.3f} by always giving the commonest labels"
        return weak_teacher(detail) if found <= best else Finding("note", "teacher", detail)

    def describe_labels(self, labels: np.ndarray, names: Sequence[str]) -> Finding:
        return describe_balance(labels.sum(axis=0).astype(int), len(labels), names, most=1.0)


def _refuse_other_order(cells: Cells, names: Sequence[str], model: str) -> None:
    """Refuse a label map that gives the flags of multi-hot lists another order than the model has."""
    for old, new in cells.label_map.items():
        number = old.removeprefix("LABEL_")
        place = int(number) if number.isdecimal() else len(names)
        if place < len(names) and normalize(new) != normalize(names[place]):
            raise RailkdError(
                f"{cells.where}: --label-map {quoted(f'{shortened(old)}={shortened(new)}')} names flag {place} of each "
                f"list, which is {shortened(names[place])!r} in {model}. Fix: write the flags in the model's order "
                f"({named(names)}), or as lists of names."
            )


def _flags(cell: Sequence[Any] | None, where: str, row: int) -> list[float]:
    if cell is None or is_missing(cell):
        raise RailkdError(no_label(where, row))
    return [float(flag) for flag in cell]


def _rows(cells: Cells, names: Sequence[str]) -> list[Classes]:
    """Return the classes of each row. For a model of one class 1 and 0 say whether it applies."""
    rows = classes_of(cells)
    if len(names) != 1:
        return rows
    flags: dict[str, tuple[str, ...]] = {name: tuple(names) if applies else () for name, applies in _FLAGS.items()}
    return [flags.get(row[0].casefold(), row) if row and row[0] not in names else row for row in rows]


def classes_of(cells: Cells) -> list[Classes]:
    """Return the classes of each row, renamed by the label map.

    Args:
        cells: of the N rows.
    """
    if len(cells.columns) > 1:
        rows = from_columns(cells.columns, where=cells.where)
    else:
        rows = split_cells(cells.columns[cells.column], where=cells.where)
    return [None if row is None else tuple(cells.label_map.get(name, name) for name in row) for row in rows]


def split_cells(cells: Sequence[Any], *, where: str) -> list[Classes]:
    """Return the classes of each row, from cells of text or from lists.

    Args:
        cells: N of them.
        where: the source, for messages.

    Example:
        >>> split_cells(["sad|angry", "happy", "", None], where="train.tsv")
        [('sad', 'angry'), ('happy',), (), None]
    """
    texts = [cell for cell in cells if isinstance(cell, str)]
    separator = next((mark for mark in SEPARATORS if any(mark in text for text in texts)), None)
    rows: list[Classes] = []
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, str) and is_missing(cell):
            rows.append(None)
            continue
        if isinstance(cell, str):
            parts: Iterable[Any] = cell.split(separator) if separator else [cell]
        else:
            parts = cell if isinstance(cell, list | tuple) else [cell]
        names = (label_name(part, where=f"{where}: row {number}") for part in parts)
        rows.append(tuple(dict.fromkeys(name for name in names if name)))
    return rows


def from_columns(columns: Mapping[str, Sequence[Any]], *, where: str) -> list[Classes]:
    """Return the classes of each row, from a column of 0 and 1 for each class.

    Args:
        columns: class -> N cells.
        where: the source, for messages.

    Raises:
        RailkdError: a cell is neither 0 nor 1.

    Example:
        >>> from_columns({"sad": ["1", "0"], "angry": ["1", "0"]}, where="train.tsv")
        [('sad', 'angry'), ()]
    """
    rows: list[Classes] = []
    for number, cells in enumerate(zip(*columns.values(), strict=True), 1):
        if all(is_missing(cell) and cell != "" for cell in cells):
            rows.append(None)
            continue
        chosen = []
        for name, cell in zip(columns, cells, strict=True):
            flag = _FLAGS.get("" if is_missing(cell) else label_name(cell, where=f"{where}: row {number}").casefold())
            if flag is None:
                raise RailkdError(
                    f"{where}: row {number}: expected 0 or 1 in column {shortened(name)!r}, "
                    f"got {shortened(str(cell))!r}. Each of several label columns is a class. "
                    "Fix: correct the cell, or name one --label-column."
                )
            if flag:
                chosen.append(name)
        rows.append(tuple(chosen))
    return rows
