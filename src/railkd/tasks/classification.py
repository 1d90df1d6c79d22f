"""One class a row: a distribution over the classes, cross-entropy, accuracy and F1."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from railkd.data.labels import (
    MISSING,
    LabelSpace,
    fold_onto,
    infer_classes,
    is_missing,
    label_name,
    loose,
    match_label_space,
)
from railkd.data.reader import Cells
from railkd.tasks import metrics as table
from railkd.tasks.base import Task, class_head
from railkd.tasks.judging import (
    TRAIN_LONGER,
    Finding,
    class_balance,
    classes_of_outputs,
    label_order,
    weak_teacher,
)
from railkd.tasks.reader import ClassReader

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from railkd.data.ood import OodSet


@final
class Classification(Task):
    """One class a row. Labels are class indices, -100 where a row has none."""

    name = "classification"
    problem_type = "single_label_classification"
    metrics = ("accuracy", "f1")
    real_labels = False
    one_class = True

    def claims_head(self, outputs: int) -> bool:
        return outputs > 1

    def head(self, names: Sequence[str]) -> dict[str, Any]:
        return class_head(names, self.problem_type)

    def claims_labels(self, cells: Cells, official: Sequence[str]) -> bool:
        return False  # the first row of the table: it takes what no other kind claims

    def infer(self, cells: Cells, official: Sequence[str] = ()) -> LabelSpace:
        return infer_classes(cells.present, names=official, where=cells.where)

    def space(self, names: Sequence[str]) -> LabelSpace:
        return LabelSpace(tuple(names))

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

    def unlabelled(self, outputs: int) -> Any:
        return MISSING

    def reader(
        self, names: Sequence[str], ids: Mapping[str, int], given: Sequence[str] | None = None
    ) -> Callable[[Any], Any]:
        return ClassReader(names, ids, given).index

    def describe(self, names: Sequence[str]) -> str:
        return f"classes {', '.join(names)}"

    def loss(self, outputs: Tensor, labels: Tensor | None) -> Tensor:
        from railkd.functional import cross_entropy

        return cross_entropy(outputs, labels)

    def kd(self, student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        from railkd.functional import kl_of_classes

        return kl_of_classes(student, teacher, temperature)

    def labelled(self, labels: np.ndarray) -> np.ndarray:
        found: np.ndarray = labels != MISSING
        return found

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = outputs.argmax(axis=1)
        return found

    def said(self, values: np.ndarray, space: LabelSpace) -> list[Any]:
        words = [space.fold.names[group] for group in space.fold.group] if space.fold else space.names
        return [None if value == MISSING else words[int(value)] for value in values]

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        from scipy.special import softmax

        shares = softmax(outputs, axis=1)  # (N, C)
        best = self.decide(outputs)
        return [
            {"index": i, "label": names[best[i]], "score": round(float(shares[i, best[i]]), 6)}
            | {f"logit_{name}": round(float(value), 6) for name, value in zip(names, outputs[i], strict=True)}
            for i in range(len(outputs))
        ]

    def row_scores(self, gold: Sequence[str], given: Sequence[str]) -> np.ndarray:
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
        outputs, labels = np.asarray(outputs, dtype=np.float64), np.asarray(labels)
        if outputs.ndim != 2 or labels.shape != outputs.shape[:1]:
            raise table.shapes_differ(outputs, labels, "(N, C) and (N,)")
        outputs, labels = table.scorable(outputs, labels, self.labelled(labels))
        given, names = self.decide(outputs), space.names if space else ()
        classes = outputs.shape[1]
        if space and space.fold:  # the answer is chosen among the model's classes, then folded by name
            group, names = np.asarray(space.fold.group), space.fold.names
            given, labels, classes = group[given], group[labels], len(names)
        which = _place(names, positive) if classes == 2 else None
        return {row.name: row.compute(given, labels, which) for row in rows}

    def judge(
        self,
        outputs: np.ndarray,
        labels: np.ndarray,
        names: Sequence[str],
        cells: Mapping[str, Sequence[str]] | None = None,
        *,
        allowed: bool = False,
    ) -> Finding:
        import numpy as np

        order = label_order(outputs, labels, names, cells or {}, allowed=allowed)
        if order is not None:
            return order  # it explains the bad score: one cause, one finding
        rows, counts = len(labels), np.bincount(labels, minlength=len(names))
        majority, common = counts.max() / rows, names[int(counts.argmax())]
        scores = self.score(outputs, labels, metrics=["accuracy", "matthews"])
        found = scores["accuracy"]
        said = f"accuracy {found:.3f} on {rows} rows, {majority:.3f} by always answering {common!r}"
        if found <= majority:
            if scores["matthews"] > 0.2:  # rare classes: it tells them apart and yet loses rows of the common one
                return Finding(
                    "warning", "teacher", f"{said}; Matthews correlation {scores['matthews']:.3f}", TRAIN_LONGER
                )
            return weak_teacher(said, rows, allowed=allowed)
        if found <= majority + 2 * math.sqrt(majority * (1 - majority) / rows):
            return Finding("warning", "teacher", f"{said}: so small a lead may be chance")
        return Finding("note", "teacher", said)

    def outputs_mean(self, names: Sequence[str], own: Sequence[str] | None) -> list[Finding]:
        return classes_of_outputs(names, own)

    def balance(self, labels: np.ndarray, names: Sequence[str]) -> Finding:
        import numpy as np

        return class_balance(np.bincount(labels, minlength=len(names)), len(labels), names, most=0.95)


def _place(names: Sequence[str], positive: str | None) -> int:
    """The index of the class whose F1 is meant: the second where no name says another."""
    found = [loose(name) for name in names]
    return found.index(loose(positive)) if positive is not None and loose(positive) in found else 1
