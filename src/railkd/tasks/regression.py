"""One number a row: squared error, correlations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from railkd.data.labels import LabelSpace, is_missing, label_name, number_of
from railkd.data.reader import Cells
from railkd.errors import RailkdError
from railkd.tasks import metrics as table
from railkd.tasks.base import Task
from railkd.tasks.judging import Finding, weak_teacher

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from railkd.data.ood import OodSet

#: Numbers in a column of such a name are values, not classes.
COLUMNS = ("score", "similarity", "similarity_score", "relatedness_score")


@final
class Regression(Task):
    """One number a row. Labels are floats, NaN where a row has none; the label space has no names."""

    name = "regression"
    problem_type = "regression"
    width = 1
    metrics = ("pearson", "spearman", "mse")
    real_labels = True
    points = False

    def claims_head(self, outputs: int) -> bool:
        return outputs == 1

    def head(self, names: Sequence[str]) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": self.problem_type}

    def claims_labels(self, cells: Cells, official: Sequence[str]) -> bool:
        """Numbers with a fraction, or numbers in a column called score or similarity."""
        if cells.several:
            return False
        found = {label_name(value, where=cells.where) for value in cells.present}
        if official and found <= set(official):
            return False
        numbers = [number_of(name) for name in found]
        fraction = any(number is not None and math.isfinite(number) and number % 1 for number in numbers)
        return None not in numbers and (fraction or cells.column.casefold() in COLUMNS)

    def infer(self, cells: Cells, official: Sequence[str] = ()) -> LabelSpace:
        assert cells.present  # raises where no row has a label
        return LabelSpace(())

    def space(self, names: Sequence[str]) -> LabelSpace:
        return LabelSpace(())

    def match(self, cells: Cells, names: Sequence[str], *, model: str, row: OodSet | None = None) -> LabelSpace:
        return LabelSpace(())

    def encode(self, cells: Cells, space: LabelSpace) -> list[Any]:
        return [_finite(value, cells.where, row) for row, value in enumerate(cells.values, 1)]

    def unlabelled(self, outputs: int) -> Any:
        return math.nan

    def reader(
        self, names: Sequence[str], ids: Mapping[str, int], given: Sequence[str] | None = None
    ) -> Callable[[Any], Any]:
        return _read

    def describe(self, names: Sequence[str]) -> str:
        return self.name

    def loss(self, outputs: Tensor, labels: Tensor | None) -> Tensor:
        from railkd.functional import squared_error

        return squared_error(outputs, labels)

    def kd(self, student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        from railkd.functional import squared_difference

        return squared_difference(student, teacher, temperature)

    def labelled(self, labels: np.ndarray) -> np.ndarray:
        import numpy as np

        return ~np.isnan(labels)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.reshape(-1)

    def said(self, values: np.ndarray, space: LabelSpace) -> list[Any]:
        return [None if math.isnan(value) else float(value) for value in values.reshape(-1)]

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        return [{"index": i, "score": float(row[0])} for i, row in enumerate(outputs)]

    def row_scores(self, gold: Sequence[str], given: Sequence[str]) -> np.ndarray:
        """Minus the squared error."""
        import numpy as np

        return -((np.array(given, dtype=float) - np.array(gold, dtype=float)) ** 2)

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
        outputs, labels = np.asarray(outputs, dtype=np.float64), np.asarray(labels)
        if outputs.ndim == 1:
            outputs = outputs[:, None]
        if outputs.ndim != 2 or labels.shape != outputs.shape[:1] or outputs.shape[1] != 1:
            raise table.shapes_differ(outputs, labels, "(N, 1) and (N,)")
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
        found = self.score(outputs, labels, metrics=["pearson"])["pearson"]
        said, chance = f"correlation {found:.3f} on {rows} rows", 2 / math.sqrt(rows)
        if found <= chance:
            return weak_teacher(f"{said}, which chance reaches too (up to {chance:.3f})", rows, allowed=allowed)
        return Finding("note", "teacher", said)

    def outputs_mean(self, names: Sequence[str], own: Sequence[str] | None) -> list[Finding]:
        return [Finding("note", "outputs", "one number")]

    def balance(self, labels: np.ndarray, names: Sequence[str]) -> Finding:
        if labels.min() == labels.max():
            return Finding("error", "labels", f"every label is {labels.min():g}", "there is nothing to learn from them")
        return Finding("note", "labels", f"from {labels.min():g} to {labels.max():g}, mean {labels.mean():.3g}")


def _read(value: Any) -> float:
    if is_missing(value):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"got the label {value!r}, wanted a number for a student of one output; correct it, name another "
            "label_column, or set the student's num_labels"
        ) from None


def _finite(value: Any, where: str, row: int) -> float:
    if is_missing(value):
        raise RailkdError(f"{where}: row {row} has no label; fill it in, or give the rows as --unlabelled.")
    number = number_of(value)
    if number is None or not math.isfinite(number):
        what = "no number" if number is None else "no finite number"
        raise RailkdError(
            f"{where}: row {row} has the label {str(value)[:60]!r}, {what}; regression needs numbers: "
            "correct it, or use --problem-type classification."
        )
    return number
