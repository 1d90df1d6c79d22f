"""The base of every kind of task: its head, its labels, its two loss terms, its answers and its metrics.

A kind of task is one final class in a file of its own and one row of `railkd.tasks.TASKS`. It inherits the law tests
(tests/tasks/test_laws.py). Torch and numpy are imported inside methods: the report and the command line stay light.
Letters: N rows, B rows of a batch, C outputs of the head.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from railkd.data.labels import MISSING, LabelSpace
from railkd.data.reader import Cells
from railkd.errors import RailkdError
from railkd.runtime.words import named
from railkd.tasks import metrics as table
from railkd.tasks.cut import Cut
from railkd.tasks.judging import FEWEST_ROWS, Finding, describe_classes, find_label_order
from railkd.tasks.reader import ReadLabel
from railkd.tasks.scored import NO_LABELS, scored_rows

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from railkd.data.ood import OodSet


class Task(ABC):
    """One kind of task. `railkd.tasks.TASKS` holds one object of each, without a cut.

    Attributes:
        cut: thresholds that the answers follow; None: the usual ones. `railkd.jobs.thresholds` makes tasks with one.
        name: as ``--problem-type`` and messages write it.
        problem_type: as transformers writes it in a config.
        pipeline_tag: as the hub calls models of this kind.
        auto_class: class of transformers that loads the head.
        output: field of a model's output that is trained on, that the cache stores and that is scored.
        loss_function: of `railkd.functional`, against labels.
        kd_function: of `railkd.functional`, against the teacher's outputs.
        width: number of outputs of the head; None: one for each class.
        metrics: the usual ones; the first selects the best epoch.
        real_labels: labels are floats, and NaN marks a row without one. Otherwise they are indices, and -100 does.
        several: any number of classes may apply to a row.
        one_class: a row has one class, so that answers can be counted class by class.
        points: the score of a row is right or wrong, so that differences are given in percentage points.
        empty_cell: an empty cell of kept answers is an answer (no class applies), not a row without a label.
    """

    name: ClassVar[str]
    problem_type: ClassVar[str]
    pipeline_tag: ClassVar[str] = "text-classification"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    output: ClassVar[str] = "logits"
    loss_function: ClassVar[str]
    kd_function: ClassVar[str]
    width: ClassVar[int | None] = None
    metrics: ClassVar[tuple[str, ...]]
    real_labels: ClassVar[bool]
    several: ClassVar[bool] = False
    one_class: ClassVar[bool] = False
    points: ClassVar[bool] = True
    empty_cell: ClassVar[bool] = False
    cut: Cut | None = None

    def auto_model(self) -> Any:
        """Return the class of transformers that loads and builds models with this head."""
        import transformers

        return getattr(transformers, self.auto_class)

    @abstractmethod
    def fits_outputs(self, outputs: int) -> bool:
        """Return whether a config with this many outputs, and without a problem type, is of this kind."""

    def head(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the config entries of a head for these classes, in this order."""
        if self.width is not None:
            return {"num_labels": self.width, "problem_type": self.problem_type}
        by_name = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
        return {"num_labels": len(names), **by_name, "problem_type": self.problem_type}

    def check_outputs(self, names: Sequence[str], *, model: str, where: str) -> None:
        """Refuse a model whose number of outputs cannot be of this kind.

        Args:
            names: of its outputs.
            model: in words, for messages.
            where: the source whose labels are of this kind.

        Raises:
            RailkdError: the model has another number of outputs.
        """
        if self.width not in (None, len(names)):
            raise RailkdError(
                f"{model} has {len(names)} classes ({named(names)}), but the labels of {where} are numbers. "
                "Fix: use a model with one output, or --problem-type classification."
            )

    @abstractmethod
    def fits_cells(self, cells: Cells, official: Sequence[str]) -> bool:
        """Return whether labels are of this kind. The first kind of `TASKS` takes those that fit no other.

        Args:
            cells: of the training rows.
            official: classes of the GLUE task that the file belongs to, if any.
        """

    @abstractmethod
    def infer(self, cells: Cells, official: Sequence[str] = ()) -> LabelSpace:
        """Return the classes that occur in the training rows. Refuse rows without labels, and fewer than two classes.

        Args:
            cells: of the training rows.
            official: classes of the GLUE task that the file belongs to, in its order; they are used if they fit.
        """

    def space(self, names: Sequence[str]) -> LabelSpace:
        """Return the label space of a model with outputs of these names."""
        return LabelSpace(() if self.width is not None else tuple(names))

    @abstractmethod
    def match(self, cells: Cells, names: Sequence[str], *, model: str, row: OodSet | None = None) -> LabelSpace:
        """Match the classes of cells with those of a model, by name.

        Args:
            cells: of the rows.
            names: of the model, in output order.
            model: in words, for messages.
            row: of the out-of-domain table, whose classes may be coarser than the model's.

        Returns:
            The model's classes with the spellings of the cells, and the fold if there is one.
        """

    @abstractmethod
    def encode(self, cells: Cells, space: LabelSpace) -> list[Any]:
        """Return the N labels as the model trains on them. Refuse a row without a label, and unknown classes.

        Args:
            cells: of the N rows.
            space: of `infer` for the cells it was inferred from, of `match` for all others.
        """

    def unlabelled(self, outputs: int) -> Any:
        """Return the label that marks a row without one, for a head of this many outputs."""
        mark = math.nan if self.real_labels else MISSING
        return [mark] * outputs if self.several else mark

    @abstractmethod
    def reader(self, names: Sequence[str], ids: Mapping[str, int], given: Sequence[str] | None = None) -> ReadLabel:
        """Return a function from one label of a user's data set to what the model trains on.

        Args:
            names: of the student, in output order.
            ids: its ``label2id``.
            given: names of a ClassLabel column, whose numbers mean these.

        Returns:
            The function. It raises ValueError for a label that the student does not know.
        """

    @abstractmethod
    def describe(self, names: Sequence[str]) -> str:
        """Describe labels of these classes, in words."""

    def loss(self, outputs: Tensor, labels: Tensor | None, **weights: Tensor) -> Tensor:
        """Return the loss against the labels, a scalar: summed over labelled rows, divided by B.

        Args:
            outputs: (B, C).
            labels: as `encode` gives them, batched; None: no row has one.
            weights: ``class_weights`` (C,), of a kind with classes.
        """
        from railkd import functional

        return cast("Tensor", getattr(functional, self.loss_function)(outputs, labels, **weights))

    def kd(self, student: Tensor, teacher: Tensor, temperature: float = 1.0, **weights: Tensor) -> Tensor:
        """Return the loss against the teacher's outputs, a scalar: mean over the batch, 0 where both are equal.

        Args:
            student: (B, C).
            teacher: (B, C).
            temperature: T > 0.
            weights: ``row_weights`` (B,), of the kind with one class a row.
        """
        from railkd import functional

        return cast("Tensor", getattr(functional, self.kd_function)(student, teacher, temperature, **weights))

    def labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return (N,) bool: which of N encoded labels are there."""
        import numpy as np

        there: np.ndarray = np.asarray(~np.isnan(labels) if self.real_labels else labels != MISSING)
        return np.asarray(there.all(axis=tuple(range(1, there.ndim))))

    @abstractmethod
    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """Return the answers that outputs (N, C) give, encoded as labels are."""

    @abstractmethod
    def probabilities(self, outputs: np.ndarray) -> np.ndarray | None:
        """Return (N, C) the probability of each class; None for numbers."""

    @abstractmethod
    def confidence(self, outputs: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
        """Return (N,) the probability that outputs (N, C) give to their answers, or to those given. Numbers: NaN."""

    @abstractmethod
    def in_words(self, values: np.ndarray, space: LabelSpace) -> list[Any]:
        """Return N encoded labels or answers as names or numbers, folded as the space says; None: no label."""

    @abstractmethod
    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return a row of columns for each row of outputs (N, C): the answer, its score, an output for each class."""

    def row_scores(self, gold: Sequence[str], given: Sequence[str]) -> np.ndarray:
        """Return (N,) how right each kept answer is: 0 or 1, or minus the squared error.

        Args:
            gold: N cells of a file of kept answers.
            given: N cells of the answers.
        """
        import numpy as np

        if self.points:
            return np.array([a == b for a, b in zip(gold, given, strict=True)], dtype=float)
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
        """Return the metrics of outputs against labels, without those that the labels do not define.

        Args:
            outputs: see `railkd.tasks.scored.scored_rows`.
            labels: see there.
            space: see there.
            metrics: names; None: the usual ones.
            positive: of two classes, the one whose F1 is meant; None: the second.
        """
        rows = table.select_metrics(self.name, metrics or self.metrics)
        return table.compute(rows, scored_rows(self, outputs, labels, space, positive))

    @abstractmethod
    def constant(self, labels: np.ndarray, outputs: int) -> np.ndarray:
        """Return outputs (C,) whose answer, given to every row, is the best that needs no model.

        Args:
            labels: N encoded ones, all there.
            outputs: C.
        """

    def baseline(
        self, labels: np.ndarray, space: LabelSpace, metrics: Sequence[str] | None = None, positive: str | None = None
    ) -> dict[str, float]:
        """Return the metrics of the answer that needs no model: the commonest class or classes, or the mean.

        Metrics of probabilities are those of the share of each class in the labels.

        Args:
            labels: N encoded ones; rows without a label do not count.
            space: of these labels.
            metrics: names; None: the usual ones.
            positive: of two classes, the one whose F1 is meant; None: the second.

        Raises:
            RailkdError: no row has a label.
        """
        import numpy as np

        known = labels[self.labelled(labels)]
        if not len(known):
            raise RailkdError(NO_LABELS)
        outputs = np.tile(self.constant(known, self.width or len(space.names)), (len(known), 1))
        rows = scored_rows(self, outputs, known, space, positive).without_model()
        return table.compute(table.select_metrics(self.name, metrics or self.metrics), rows)

    def primary_metric(self, metrics: Sequence[str] | None = None) -> str:
        """Return the metric that selects the best epoch: the first of these, or of the usual ones."""
        return table.select_metrics(self.name, metrics or self.metrics)[0].name

    def judge(
        self,
        outputs: np.ndarray,
        labels: np.ndarray,
        names: Sequence[str],
        cells: Mapping[str, Sequence[str]] | None = None,
        *,
        allowed: bool = False,
    ) -> Finding:
        """Judge whether a teacher knows more than the answer that needs no model.

        Args:
            outputs: (N, C).
            labels: N encoded ones, all there.
            names: of the outputs.
            cells: class -> how the data write it, for --label-map.
            allowed: a weak teacher is only warned of. So is one that was judged on few rows.

        Returns:
            The finding about permuted labels if there is one, else that of `compare_with_constant`.
        """
        # Permuted labels explain a bad score, so that they are the only finding.
        found = find_label_order(outputs, labels, names, cells or {}) if self.one_class else None
        if found is None:
            found = self.compare_with_constant(outputs, labels, names)
        lenient = found.level == "error" and (allowed or len(labels) < FEWEST_ROWS)
        return replace(found, level="warning") if lenient else found

    @abstractmethod
    def compare_with_constant(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Finding:
        """Compare a teacher with the answer that needs no model; an error if the teacher is no better.

        Args:
            outputs: (N, C).
            labels: N encoded ones, all there.
            names: of the outputs.
        """

    def describe_outputs(self, names: Sequence[str], own: Sequence[str] | None) -> list[Finding]:
        """Return notes and warnings about which output means what.

        Args:
            names: of the teacher.
            own: of a student that brings a head; None: it brings none.
        """
        return [Finding("note", "outputs", "one number")] if self.width == 1 else describe_classes(names, own)

    @abstractmethod
    def describe_labels(self, labels: np.ndarray, names: Sequence[str]) -> Finding:
        """Describe how the labels of the training rows are distributed.

        Args:
            labels: N encoded ones.
            names: of the outputs.
        """
