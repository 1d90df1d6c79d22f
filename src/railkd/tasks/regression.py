"""One number a row: squared error, correlations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from railkd.data.label_names import LIKE_MISSING, is_missing, label_name, no_label, parse_number
from railkd.data.labels import LabelSpace
from railkd.data.reader import Cells
from railkd.errors import RailkdError
from railkd.runtime.words import shortened
from railkd.tasks.base import Task
from railkd.tasks.judging import FEWEST_ROWS, Finding, weak_teacher
from railkd.tasks.reader import ReadLabel
from railkd.tasks.scale import compare_scales

if TYPE_CHECKING:
    import numpy as np

    from railkd.data.ood import OodSet

#: Numbers in a column of such a name are values, not classes.
COLUMNS = ("score", "similarity", "similarity_score", "relatedness_score")


@final
class Regression(Task):
    """One number a row. Labels are floats, NaN where a row has none; the label space has no names."""

    name = "regression"
    problem_type = "regression"
    loss_function = "squared_error"
    kd_function = "squared_difference"
    width = 1
    metrics = ("pearson", "spearman", "mse")
    real_labels = True
    points = False

    def fits_outputs(self, outputs: int) -> bool:
        return outputs == 1

    def fits_cells(self, cells: Cells, official: Sequence[str]) -> bool:
        # Numbers with a fraction, or numbers in a column called score or similarity. Beside them "NA" is no class.
        if cells.several:
            return False
        found = {label_name(value, where=cells.where) for value in cells.present}
        if official and found <= set(official):
            return False
        numbers = [parse_number(name) for name in found if name.casefold() not in LIKE_MISSING]
        fraction = any(number is not None and math.isfinite(number) and number % 1 for number in numbers)
        return bool(numbers) and None not in numbers and (fraction or cells.column.casefold() in COLUMNS)

    def infer(self, cells: Cells, official: Sequence[str] = ()) -> LabelSpace:
        assert cells.present  # Raises if no row has a label.
        return LabelSpace(())

    def match(self, cells: Cells, names: Sequence[str], *, model: str, row: OodSet | None = None) -> LabelSpace:
        return LabelSpace(())

    def encode(self, cells: Cells, space: LabelSpace) -> list[Any]:
        return [_finite(value, cells.where, row) for row, value in enumerate(cells.values, 1)]

    def reader(self, names: Sequence[str], ids: Mapping[str, int], given: Sequence[str] | None = None) -> ReadLabel:
        return _read

    def describe(self, names: Sequence[str]) -> str:
        return self.name

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.reshape(-1)

    def probabilities(self, outputs: np.ndarray) -> None:
        return None

    def confidence(self, outputs: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
        import numpy as np

        return np.full(len(outputs), np.nan)

    def in_words(self, values: np.ndarray, space: LabelSpace) -> list[Any]:
        return [None if math.isnan(value) else float(value) for value in values.reshape(-1)]

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        return [{"index": i, "score": float(row[0])} for i, row in enumerate(outputs)]

    def constant(self, labels: np.ndarray, outputs: int) -> np.ndarray:
        return labels.mean(keepdims=True)

    def compare_with_constant(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Finding:
        rows = len(labels)
        found, chance = self.score(outputs, labels, metrics=["pearson"])["pearson"], 2 / math.sqrt(rows)
        detail = f"correlation {found:.3f} on {rows} rows"
        if found <= chance:
            return weak_teacher(f"{detail}, which chance reaches too (up to {chance:.3f})")
        other = compare_scales(outputs.reshape(-1), labels, detail) if rows >= FEWEST_ROWS else None
        return other or Finding("note", "teacher", detail)

    def describe_labels(self, labels: np.ndarray, names: Sequence[str]) -> Finding:
        if labels.min() == labels.max():
            return Finding("error", "labels", f"every label is {labels.min():g}", "there is nothing to learn from them")
        return Finding("note", "labels", f"from {labels.min():g} to {labels.max():g}, mean {labels.mean():.3g}")


def _read(value: Any) -> float:
    if is_missing(value):
        return math.nan
    try:
        number = float(value)
        if math.isinf(number):
            raise ValueError(value)
        return number
    except (TypeError, ValueError):
        raise ValueError(
            f"expected a number for a student of one output, got the label {shortened(repr(value))}. "
            "Fix: correct it, name another label_column, or set the student's num_labels."
        ) from None


def _finite(value: Any, where: str, row: int) -> float:
    if is_missing(value):
        raise RailkdError(no_label(where, row))
    number = parse_number(value)
    if number is None or not math.isfinite(number):
        kind = "not a number" if number is None else "not a finite number"
        raise RailkdError(
            f"{where}: row {row} has the label {shortened(str(value))!r}, which is {kind}. "
            "Fix: correct it, or use --problem-type classification."
        )
    return number
