"""Any number of classes a row: read from one cell, from a list, or from several columns of 0 and 1.

But: an empty cell or list is a row to which no class applies, as such sets mean it; only null is a missing label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from railkd.data.labels import LabelSpace, label_name, match_label_space
from railkd.data.reader import Cells
from railkd.errors import RailkdError
from railkd.tasks import metrics as table
from railkd.tasks.base import Task, class_head
from railkd.tasks.judging import Finding, class_balance, classes_of_outputs, weak_teacher
from railkd.tasks.reader import ClassReader

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

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
    metrics = ("micro_f1", "macro_f1", "subset_accuracy")
    real_labels = True
    several = True
    empty_cell = True

    def claims_head(self, outputs: int) -> bool:
        return False

    def head(self, names: Sequence[str]) -> dict[str, Any]:
        return class_head(names, self.problem_type)

    def claims_labels(self, cells: Cells, official: Sequence[str]) -> bool:
        return bool(cells.several)

    def infer(self, cells: Cells, official: Sequence[str] = ()) -> LabelSpace:
        """The classes: those of several columns, or all that occur, in the order of the alphabet."""
        found = sorted({name for row in classes_of(cells) if row for name in row})
        known = tuple(cells.columns) if len(cells.columns) > 1 else tuple(found)
        if len(known) < 2:
            raise RailkdError(
                f"{cells.where}: {'no class occurs' if not known else f'{known[0]!r} is the only class'}; wanted two "
                "classes at least, separated by ',', ';' or '|' where a row has several."
            )
        return LabelSpace(known)

    def space(self, names: Sequence[str]) -> LabelSpace:
        return LabelSpace(tuple(names))

    def match(self, cells: Cells, names: Sequence[str], *, model: str, row: OodSet | None = None) -> LabelSpace:
        seen = LabelSpace(tuple(dict.fromkeys(name for found in classes_of(cells) if found for name in found)))
        return match_label_space(names, seen, label_map=cells.label_map, model=model, where=cells.where)

    def encode(self, cells: Cells, space: LabelSpace) -> list[Any]:
        vectors = []
        for number, row in enumerate(classes_of(cells), 1):
            if row is None:
                raise RailkdError(
                    f"{cells.where}: row {number} has no label; fill it in, or give the rows as --unlabelled."
                )
            here = {space.index(name, where=f"{cells.where}: row {number}") for name in row}
            vectors.append([float(index in here) for index in range(len(space.names))])
        return vectors

    def unlabelled(self, outputs: int) -> Any:
        return [math.nan] * outputs

    def reader(
        self, names: Sequence[str], ids: Mapping[str, int], given: Sequence[str] | None = None
    ) -> Callable[[Any], Any]:
        return ClassReader(names, ids, given).vector

    def describe(self, names: Sequence[str]) -> str:
        return f"any number of the classes {', '.join(names)}"

    def loss(self, outputs: Tensor, labels: Tensor | None) -> Tensor:
        from railkd.functional import binary_cross_entropy

        return binary_cross_entropy(outputs, labels)

    def kd(self, student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        from railkd.functional import kl_of_each_class

        return kl_of_each_class(student, teacher, temperature)

    def labelled(self, labels: np.ndarray) -> np.ndarray:
        import numpy as np

        found: np.ndarray = ~np.isnan(labels).any(axis=1)
        return found

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """A class applies where its logit is above 0."""
        return (outputs > 0).astype(float)

    def said(self, values: np.ndarray, space: LabelSpace) -> list[Any]:
        import numpy as np

        names = np.asarray(space.names)
        known = self.labelled(values)
        return [list(names[row > 0.5]) if there else None for there, row in zip(known, values, strict=True)]

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        from scipy.special import expit

        chances = expit(outputs)  # (N, C)
        return [
            {"index": i, "labels": [name for name, value in zip(names, row, strict=True) if value > 0]}
            | {f"score_{name}": round(float(value), 6) for name, value in zip(names, chances[i], strict=True)}
            | {f"logit_{name}": round(float(value), 6) for name, value in zip(names, row, strict=True)}
            for i, row in enumerate(outputs)
        ]

    def row_scores(self, gold: Sequence[str], given: Sequence[str]) -> np.ndarray:
        """1 where every class is right."""
        import numpy as np

        return np.array([a == b for a, b in zip(gold, given, strict=True)], dtype=float)

    def score(
        self,
        outputs: np.ndarray,
        labels: np.ndarray,
        space: LabelSpace | None = None,
        *,
        metrics: Sequence[str] | None = None,
        positive: str | None = None,
    ) -> dict[str, float]:
        import numpy as np

        rows = table.chosen(self.name, metrics or self.metrics)
        outputs, labels = np.asarray(outputs, dtype=np.float64), np.asarray(labels, dtype=np.float64)
        if outputs.ndim != 2 or labels.shape != outputs.shape:
            raise table.shapes_differ(outputs, labels, "both (N, C)")
        outputs, labels = table.scorable(outputs, labels, self.labelled(labels))
        given = self.decide(outputs)
        return {row.name: row.compute(given, labels, None) for row in rows}

    def judge(
        self,
        outputs: np.ndarray,
        labels: np.ndarray,
        names: Sequence[str],
        cells: Mapping[str, Sequence[str]] | None = None,
        *,
        allowed: bool = False,
    ) -> Finding:
        rows = len(labels)
        found, best = self.score(outputs, labels)["micro_f1"], _best_constant_f1(labels)
        said = f"micro F1 {found:.3f} on {rows} rows, {best:.3f} by always giving the commonest labels"
        return weak_teacher(said, rows, allowed=allowed) if found <= best else Finding("note", "teacher", said)

    def outputs_mean(self, names: Sequence[str], own: Sequence[str] | None) -> list[Finding]:
        return classes_of_outputs(names, own)

    def balance(self, labels: np.ndarray, names: Sequence[str]) -> Finding:
        return class_balance(labels.sum(axis=0).astype(int), len(labels), names, most=1.0)


def classes_of(cells: Cells) -> list[Classes]:
    """Return the classes of each row, renamed by the label map."""
    if len(cells.columns) > 1:
        rows = from_columns(cells.columns, where=cells.where)
    else:
        rows = split_cells(cells.columns[cells.column], where=cells.where)
    return [None if row is None else tuple(cells.label_map.get(name, name) for name in row) for row in rows]


def split_cells(cells: Sequence[Any], *, where: str) -> list[Classes]:
    """Return the classes of each row, from cells of text or from lists.

    >>> split_cells(["sad|angry", "happy", "", None], where="train.tsv")
    [('sad', 'angry'), ('happy',), (), None]
    """
    texts = [cell for cell in cells if isinstance(cell, str)]
    separator = next((mark for mark in SEPARATORS if any(mark in text for text in texts)), None)
    rows: list[Classes] = []
    for number, cell in enumerate(cells, 1):
        if cell is None:
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

    >>> from_columns({"sad": ["1", "0"], "angry": ["1", "0"]}, where="train.tsv")
    [('sad', 'angry'), ()]
    """
    rows: list[Classes] = []
    for number, cells in enumerate(zip(*columns.values(), strict=True), 1):
        if all(cell is None for cell in cells):
            rows.append(None)
            continue
        chosen = []
        for name, cell in zip(columns, cells, strict=True):
            flag = _FLAGS.get("" if cell is None else label_name(cell, where=f"{where}: row {number}").casefold())
            if flag is None:
                raise RailkdError(
                    f"{where}: row {number}: column {name!r} holds {str(cell)[:60]!r}, wanted 0 or 1: of several label "
                    "columns each says whether its class applies; name one --label-column for anything else."
                )
            if flag:
                chosen.append(name)
        rows.append(tuple(chosen))
    return rows


def _best_constant_f1(labels: np.ndarray) -> float:
    """Micro F1 of the best answer that is the same for every row: the k commonest labels."""
    import numpy as np

    counts = np.sort(np.nan_to_num(labels).sum(axis=0))[::-1]
    k = np.arange(1, len(counts) + 1)
    return float((2 * counts.cumsum() / (k * len(labels) + max(1.0, counts.sum()))).max())
