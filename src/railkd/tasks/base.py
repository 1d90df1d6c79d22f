"""What a kind of task must answer: its head, its labels, its two loss terms, its answers and its metrics.

A kind of task is one final class in a file of its own and one row of `railkd.tasks.TASKS`. It inherits the law tests
(tests/tasks/test_laws.py). Nothing here imports torch or numpy before a method needs them: the report and the words of
the command line read this table too.

Letters: N rows, B rows of a batch, C outputs of the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from railkd.data.labels import LabelSpace
from railkd.data.reader import Cells
from railkd.errors import RailkdError
from railkd.runtime.words import named
from railkd.tasks import metrics as table
from railkd.tasks.judging import Finding

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from railkd.data.ood import OodSet


class Task(ABC):
    """One kind of task. It has no state: `railkd.tasks.TASKS` holds one object of each.

    Attributes:
        name: as ``--problem-type`` and messages write it.
        problem_type: as transformers writes it in a config.
        pipeline_tag: as the hub calls models of this kind.
        auto_class: class of transformers that loads the head.
        output: field of a model's output that is trained on, that the cache stores and that is scored.
        width: number of outputs of the head; None: one for each class.
        metrics: the usual ones; the first selects the best epoch.
        real_labels: labels are floats, and NaN marks a row without one. Otherwise they are indices, and -100 does.
        several: any number of classes may apply to a row.
        one_class: a row has one class, so that answers can be counted class by class.
        points: a row's score is right or wrong, so that differences are said in percentage points.
        empty_cell: an empty cell of kept answers is an answer (no class applies), not a row without a label.
    """

    name: ClassVar[str]
    problem_type: ClassVar[str]
    pipeline_tag: ClassVar[str] = "text-classification"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    output: ClassVar[str] = "logits"
    width: ClassVar[int | None] = None
    metrics: ClassVar[tuple[str, ...]]
    real_labels: ClassVar[bool]
    several: ClassVar[bool] = False
    one_class: ClassVar[bool] = False
    points: ClassVar[bool] = True
    empty_cell: ClassVar[bool] = False

    # ---- the head ------------------------------------------------------------------------------

    def auto_model(self) -> Any:
        """Return the class of transformers that loads and builds models with this head."""
        import transformers

        return getattr(transformers, self.auto_class)

    @abstractmethod
    def claims_head(self, outputs: int) -> bool:
        """Whether a config with this many outputs that names no problem type is of this kind."""

    @abstractmethod
    def head(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the config entries of a head for these classes, in this order."""

    def check_outputs(self, names: Sequence[str], *, model: str, where: str) -> None:
        """Refuse a model whose number of outputs cannot be of this kind.

        Args:
            names: of its outputs. model: for messages. where: the source whose labels are of this kind.
        """
        if self.width not in (None, len(names)):
            raise RailkdError(
                f"{model} has {len(names)} classes ({named(names)}), the labels of {where} are numbers; "
                "wanted a model with one output, or --problem-type classification."
            )

    # ---- labels: from cells to what the model trains on ------------------------------------------

    @abstractmethod
    def claims_labels(self, cells: Cells, official: Sequence[str]) -> bool:
        """Whether labels are of this kind, by how a file writes them; the first row of the table takes what is left.

        Args:
            official: classes of the GLUE task that the file belongs to, if any.
        """

    @abstractmethod
    def infer(self, cells: Cells, official: Sequence[str] = ()) -> LabelSpace:
        """Return the classes that the cells of the training rows have.

        Args:
            official: classes of the GLUE task that the file belongs to, in its order; they are taken where they fit.

        Raises:
            RailkdError: no row has a label, or there are fewer than two classes.
        """

    @abstractmethod
    def space(self, names: Sequence[str]) -> LabelSpace:
        """Return the label space of a model with outputs of these names."""

    @abstractmethod
    def match(self, cells: Cells, names: Sequence[str], *, model: str, row: OodSet | None = None) -> LabelSpace:
        """Match the classes that cells have to those of a model, by name.

        Args:
            names: of the model, in output order.
            model: for messages.
            row: of the out-of-domain table, whose classes may be coarser than the model's.

        Returns:
            The model's classes with the spellings of the cells, and the fold if there is one.
        """

    @abstractmethod
    def encode(self, cells: Cells, space: LabelSpace) -> list[Any]:
        """Return the N labels as the model trains on them.

        Args:
            space: of `infer` for the cells it was inferred from, of `match` for all others.

        Raises:
            RailkdError: a row without a label, or with one that the space does not have.
        """

    @abstractmethod
    def unlabelled(self, outputs: int) -> Any:
        """Return the label that marks a row without one, for a head of this many outputs."""

    @abstractmethod
    def reader(
        self, names: Sequence[str], ids: Mapping[str, int], given: Sequence[str] | None = None
    ) -> Callable[[Any], Any]:
        """Return a function from one label of a user's data set to what the model trains on.

        Args:
            names: of the student, in output order. ids: its ``label2id``.
            given: names of a ClassLabel column, whose numbers mean these.

        Returns:
            The function. It raises ValueError for a label that the student does not know.
        """

    @abstractmethod
    def describe(self, names: Sequence[str]) -> str:
        """Say what labels of these classes are, in words."""

    # ---- the two terms on outputs ----------------------------------------------------------------

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor | None) -> Tensor:
        """Return the loss against the labels, a scalar: summed over labelled rows, divided by B.

        Args:
            outputs: (B, C). labels: as `encode` gives them, batched; None: no row has one.
        """

    @abstractmethod
    def kd(self, student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the loss against the teacher's outputs, a scalar: mean over the batch, 0 where both are equal.

        Args:
            student, teacher: (B, C). temperature: T > 0.
        """

    # ---- answers -----------------------------------------------------------------------------------

    @abstractmethod
    def labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return (N,) bool: which of N encoded labels are there."""

    @abstractmethod
    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """Return the answers that outputs (N, C) give, encoded as labels are."""

    @abstractmethod
    def said(self, values: np.ndarray, space: LabelSpace) -> list[Any]:
        """Return N encoded labels or answers as a reader knows them, folded as the space says; None: no label."""

    @abstractmethod
    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return a row of columns for each row of outputs (N, C): the answer, its score, an output for each class."""

    @abstractmethod
    def row_scores(self, gold: Sequence[str], given: Sequence[str]) -> np.ndarray:
        """Return (N,) how right each kept answer is, the higher the better.

        Args:
            gold, given: N cells of a file of kept answers.
        """

    # ---- metrics -----------------------------------------------------------------------------------

    @abstractmethod
    def score(
        self,
        outputs: np.ndarray,
        labels: np.ndarray,
        space: LabelSpace | None = None,
        *,
        metrics: Sequence[str] | None = None,
        positive: str | None = None,
    ) -> dict[str, float]:
        """Return the metrics of outputs (N, C) against encoded labels, in the order asked for.

        Args:
            space: of these labels; None: plain indices.
            metrics: names; None: the usual ones.
            positive: of two classes, the one whose F1 is meant; None: the second.

        Raises:
            RailkdError: nothing to score, outputs that are not finite, or a metric of another kind of task.
        """

    def primary_metric(self, metrics: Sequence[str] | None = None) -> str:
        """Return the metric that selects the best epoch: the first of these, or of the usual ones."""
        return table.chosen(self.name, metrics or self.metrics)[0].name

    # ---- the pre-flight ----------------------------------------------------------------------------

    @abstractmethod
    def judge(
        self,
        outputs: np.ndarray,
        labels: np.ndarray,
        names: Sequence[str],
        cells: Mapping[str, Sequence[str]] | None = None,
        *,
        allowed: bool = False,
    ) -> Finding:
        """Say whether a teacher knows more than the commonest answer.

        Args:
            outputs: (N, C). labels: N encoded ones, all there. names: of the outputs.
            cells: class -> how the data write it, for --label-map.
            allowed: a weak teacher is only warned of.
        """

    @abstractmethod
    def outputs_mean(self, names: Sequence[str], own: Sequence[str] | None) -> list[Finding]:
        """Say which output means what.

        Args:
            names: of the teacher. own: of a student that brings a head; None: it brings none.
        """

    @abstractmethod
    def balance(self, labels: np.ndarray, names: Sequence[str]) -> Finding:
        """Say how the labels of the training rows are spread."""


def class_head(names: Sequence[str], problem_type: str) -> dict[str, Any]:
    """Return the config entries of a head with one named output for each class."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": problem_type,
    }
