"""One class a row: a distribution over the classes, cross-entropy, accuracy and F1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from railkd.data.label_names import is_missing, label_name
from railkd.data.labels import MISSING, LabelSpace, fold_onto, infer_classes, match_label_space
from railkd.data.reader import Cells
from railkd.runtime.words import joined, shortened
from railkd.tasks.base import Task
from railkd.tasks.cut import moved, scaled
from railkd.tasks.judging import TRAIN_LONGER, Finding, describe_balance, weak_teacher
from railkd.tasks.reader import ClassReader, ReadLabel

if TYPE_CHECKING:
    import numpy as np

    from railkd.data.ood import OodSet


@final
class Classification(Task):
    """One class a row. Labels are class indices, -100 where a row has none."""

    name = "classification"
    problem_type = "single_label_classification"
    loss_function = "cross_entropy"
    kd_function = "kl_of_classes"
    metrics = ("accuracy", "f1")
    real_labels = False
    one_class = True

    def fits_outputs(self, outputs: int) -> bool:
        return outputs > 1

    def fits_cells(self, cells: Cells, official: Sequence[str]) -> bool:
        return False  # As the first row of the table, it takes what fits no other kind.

    def infer(self, cells: Cells, official: Sequence[str] = ()) -> LabelSpace:
        return infer_classes(cells.present, names=official, where=cells.where)

    def match(self, cells: Cells, names: Sequence[str], *, model: str, row: OodSet | None = None) -> LabelSpace:
        seen = dict.fromkeys(label_name(value, where=cells.where) for value in cells.values if not is_missing(value))
        fold = fold_onto(names, row.labels, row.renamed) if row else None
        if row is None or fold is None:
            found = LabelSpace(tuple(seen))
            return match_label_space(names, found, label_map=cells.label_map, model=model, where=cells.where)
        coarse = {name: row.renamed.get(name, name) for name in seen}
        matched = match_label_space(
            fold.names,
            LabelSpace(tuple(dict.fromkeys(coarse.values()))),
            label_map=cells.label_map,
            model=f"the table's row {row.name}",
            where=cells.where,
        )
        # A group is written as its first class of the model, so that the labels stay in the model's range.
        first = [fold.group.index(number) for number in range(len(fold.names))]
        spellings = {name: first[matched.spellings[theirs]] for name, theirs in coarse.items()}
        return LabelSpace(tuple(names), spellings=spellings, fold=fold)

    def encode(self, cells: Cells, space: LabelSpace) -> list[Any]:
        return space.encode(cells.values, where=cells.where)

    def reader(self, names: Sequence[str], ids: Mapping[str, int], given: Sequence[str] | None = None) -> ReadLabel:
        return ClassReader(names, ids, given).index

    def describe(self, names: Sequence[str]) -> str:
        return f"classes {joined(names)}"

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = moved(self.cut, outputs, several=False).argmax(axis=1)
        return found

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        from scipy.special import softmax

        shares: np.ndarray = softmax(scaled(self.cut, outputs), axis=1)
        return shares

    def confidence(self, outputs: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
        import numpy as np

        answers = self.decide(outputs) if given is None else given
        found: np.ndarray = np.take_along_axis(self.probabilities(outputs), answers[:, None], axis=1)[:, 0]
        return found

    def in_words(self, values: np.ndarray, space: LabelSpace) -> list[Any]:
        words = [space.fold.names[group] for group in space.fold.group] if space.fold else space.names
        return [None if value == MISSING else words[int(value)] for value in values]

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        shares = self.probabilities(outputs)  # (N, C)
        best = self.decide(outputs)
        return [
            {"index": i, "label": names[best[i]], "score": round(float(shares[i, best[i]]), 6)}
            | {f"logit_{name}": round(float(value), 6) for name, value in zip(names, outputs[i], strict=True)}
            for i in range(len(outputs))
        ]

    def constant(self, labels: np.ndarray, outputs: int) -> np.ndarray:
        import numpy as np

        answer: np.ndarray = np.eye(outputs)[np.bincount(labels).argmax()]
        return answer

    def compare_with_constant(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Finding:
        rows, scored = len(labels), ["accuracy", "matthews"]
        common = names[int(self.constant(labels, len(names)).argmax())]
        scores = self.score(outputs, labels, metrics=scored)
        found, majority = scores["accuracy"], self.baseline(labels, self.space(names), metrics=scored)["accuracy"]
        detail = f"accuracy {found:.3f} on {rows} rows, {majority:.3f} by always answering {shortened(common)!r}"
        if found <= majority:
            if scores["matthews"] > 0.2:  # It recognises rare classes, at the cost of rows of the common one.
                detail += f"; Matthews correlation {scores['matthews']:.3f}"
                return Finding("warning", "teacher", detail, TRAIN_LONGER)
            return weak_teacher(detail)
        if found <= majority + 2 * math.sqrt(majority * (1 - majority) / rows):
            return Finding("warning", "teacher", f"{detail}: so small a lead may be chance")
        return Finding("note", "teacher", detail)

    def describe_labels(self, labels: np.ndarray, names: Sequence[str]) -> Finding:
        import numpy as np

        return describe_balance(np.bincount(labels, minlength=len(names)), len(labels), names, most=0.95)
