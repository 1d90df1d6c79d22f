"""The target of a job: the kind of task, the classes of the model, and the metrics that count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from railkd.data.glue import GlueTask
from railkd.data.labels import LabelSpace
from railkd.data.ood import OodSet
from railkd.data.reader import Cells, Table
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.runtime.addresses import is_address
from railkd.tasks import Task, task_of, task_of_labels
from railkd.tasks import metrics as table_of_metrics
from railkd.tasks.multilabel import split_cells
from railkd.tasks.own_metrics import OwnMetrics, OwnScores, compute_own, load_own, try_own
from railkd.tasks.scored import Scored, scored_rows

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Target:
    """The target of a job: what its model predicts.

    Attributes:
        task: the kind of task.
        space: the classes, in the order of the outputs.
        model: the model in words, for messages.
        asked: the kind of task that the user named; None: none.
        row: of the tables of known sets, whose metrics count; None: the usual ones of the kind of task.
        source: the rows that the classes were inferred from; None: the classes are those of a model.
        also: metrics that the user named, which count beside those of the row or of the kind of task.
        own: functions of the user that compute further metrics.
    """

    task: Task
    space: LabelSpace
    model: str
    asked: Task | None = None
    row: GlueTask | None = None
    source: Source | None = None
    also: tuple[str, ...] = ()
    own: tuple[OwnMetrics, ...] = ()

    @classmethod
    def infer(cls, table: Table, asked: Task | None = None) -> Target:
        """Infer the classes from the cells of training rows, for a model that has no classes yet.

        Args:
            table: with cells.
            asked: the kind of task that the user named; None: the cells decide.

        Returns:
            The target. Cells without any label, or of another kind of task than the one asked for, are refused.
        """
        model = f"the model trained on {table.source.text}"
        cells = _one_or_several(_cells(table), model, asked)
        official = table.source.row.labels if table.source.row else ()
        task = asked or task_of_labels(cells, official)
        return cls(task, task.infer(cells, official), model, asked, table.source.row, table.source)

    @classmethod
    def of_model(cls, names: Sequence[str], problem_type: str, model: str, asked: Task | None = None) -> Target:
        """Take the classes from a model. Labels of data are matched with them by name.

        Args:
            names: of the outputs, in their order.
            problem_type: as transformers writes it.
            model: in words, for messages.
            asked: the kind of task that the user named; None: none.

        Returns:
            The target.
        """
        task = task_of(problem_type)
        return cls(task, task.space(names), model, asked)

    def asking(self, metrics: Sequence[str]) -> Target:
        """Return the target with metrics that count beside the usual ones.

        Args:
            metrics: as the user names them; an address is a function. Unknown ones, and those of other kinds of task,
                are refused.
        """
        named = [name for name in metrics if not is_address(name)]
        also = tuple(row.name for row in table_of_metrics.select_metrics(self.task.name, named))
        return replace(self, also=also, own=load_own(metrics))

    @property
    def head(self) -> dict[str, Any]:
        """The config entries of a head for these classes."""
        return self.task.head(self.space.names)

    @property
    def primary_metric(self) -> str:
        """The metric that chooses the best epoch."""
        row = self._row_of(None)
        return self.task.primary_metric(row.metrics if row else None)

    def label(self, table: Table) -> Table:
        """Return the table with its labels encoded in the order of the outputs.

        An out-of-domain set of the tables gets its own metrics, and a fold if its classes are coarser.

        Args:
            table: with cells. Labels of another kind of task, classes that the model lacks, and rows without a label
                are refused.
        """
        from datasets import Dataset

        cells, names = _one_or_several(_cells(table), self.model, self.asked, self.task), self.space.names
        if self.asked is not None:
            self.asked.check_outputs(names or ("value",), model=self.model, where=cells.where)
        row, space = table.source.row, self.space
        if table.source != self.source:  # Each file may spell the classes in its own way, so each is matched.
            coarse = row if isinstance(row, OodSet) else None
            space = self.task.match(cells, names, model=self.model, row=coarse)
        texts = {name: table.rows[name][:] for name in table.rows.column_names}
        rows = Dataset.from_dict({**texts, "label": self.task.encode(cells, space)})
        return replace(self._scored_by(self._row_of(table.source), table), rows=rows, space=space)

    def choosing(self, table: Table) -> Table:
        """Return a labelled table that chooses the epoch. It is scored as the training rows are, whatever set it is.

        Args:
            table: of `label`.
        """
        return replace(self._scored_by(self._row_of(None), table), space=self.space)

    def score(self, table: Table, outputs: np.ndarray, labels: np.ndarray | None = None) -> dict[str, float]:
        """Return the metrics of a labelled table.

        Args:
            table: of `label` or `choosing`.
            outputs: (N, C), in the order of the table.
            labels: N encoded labels in place of the table's.
        """
        given = _labels(table) if labels is None else labels
        return self.task.score(outputs, given, table.space, metrics=table.metrics, positive=table.positive)

    def own_scores(self, table: Table, outputs: np.ndarray, labels: np.ndarray | None = None) -> OwnScores:
        """Return the metrics of the user's functions.

        Args:
            table: as for `score`.
            outputs: (N, C), in the order of the table.
            labels: N encoded labels in place of the table's.
        """
        return compute_own(self.own, self.scored(table, outputs, labels)) if self.own else OwnScores({}, {}, {})

    def try_own(self, tables: Mapping[str, Table]) -> dict[str, bool]:
        """Call the user's functions on the labels of tables, with made-up predictions.

        Args:
            tables: name -> table, as for `score`. A function that fails is refused.

        Returns:
            Metric -> whether higher is better.
        """
        if not self.own:
            return {}
        return try_own(self.own, {name: self.scored(table, self._made_up(table)) for name, table in tables.items()})

    def own_contents(self) -> dict[str, str]:
        """Return "metrics ADDRESS" -> digest of the file of a function, for the functions that have one."""
        return {f"metrics {one.address}": one.digest for one in self.own if one.digest}

    def _made_up(self, table: Table) -> np.ndarray:
        """Return (N, C) random outputs. Numbers are those of the labels in another order, so that they are possible."""
        import numpy as np

        random, labels = np.random.default_rng(0), _labels(table)
        if self.task.width == 1:
            return random.permutation(np.nan_to_num(labels))[:, None]
        return random.normal(size=(len(labels), len(self.space.names)))

    def scored(self, table: Table, outputs: np.ndarray | None = None, labels: np.ndarray | None = None) -> Scored:
        """Return the labelled rows of a table as metrics read them.

        Args:
            table: as for `score`.
            outputs: (N, C), in the order of the table; None: zeros, for questions about the labels alone.
            labels: N encoded labels in place of the table's.
        """
        import numpy as np

        labels, space = _labels(table) if labels is None else labels, table.space or self.space
        given = np.zeros((len(labels), self.task.width or len(space.names))) if outputs is None else outputs
        return scored_rows(self.task, given, labels, space, table.positive)

    def describe_gaps(self, table: Table) -> dict[str, str]:
        """Describe the metrics that a table does not define for every class.

        Args:
            table: as for `score`.

        Returns:
            Metric -> what its value leaves out, or why it has none, in words.
        """
        rows = table_of_metrics.select_metrics(self.task.name, table.metrics or self.task.metrics)
        return table_of_metrics.describe_gaps(rows, self.scored(table))

    def check_defined(self, table: Table, metric: str) -> None:
        """Refuse to choose the epoch by a metric that the labels of a table do not define.

        Args:
            table: as for `score`.
            metric: of the kind of task.

        Raises:
            RailkdError: no class of the table allows the metric.
        """
        found, rows = table_of_metrics.find_metric(metric, self.task.name), self.scored(table)
        if not found.is_defined(rows):
            reason = table_of_metrics.describe_gaps([found], rows)[found.name]
            raise RailkdError(
                f"--metric-for-best-model {metric}: {reason} on the rows that choose the epoch. Fix: choose by another "
                "metric, or on other rows."
            )

    def answers(
        self, table: Table, outputs: np.ndarray, given: np.ndarray | None = None
    ) -> tuple[list[Any], list[Any]]:
        """Return the gold and the given answers of each row, as `score` compares them.

        Args:
            table: as for `score`.
            outputs: (N, C), in the order of the table.
            given: N encoded answers in place of those of the outputs.

        Returns:
            Names (of the coarser classes where the set has them), lists of names where there are several a row, or
            numbers. A row without a label has ``None``.
        """
        import numpy as np

        space = self.space if table.space is None else table.space
        answers = self.task.decide(np.asarray(outputs)) if given is None else given
        return self.task.in_words(_labels(table), space), self.task.in_words(answers, space)

    def written(self, cells: Cells) -> frozenset[str]:
        """Return the classes as a file spells them, before the label map.

        Args:
            cells: of the file.
        """
        if not self.task.several or cells.multi_hot or len(cells.columns) > 1:
            return cells.names
        rows = split_cells(cells.columns[cells.column], where=cells.where)
        return frozenset(name for row in rows if row for name in row)

    def _row_of(self, source: Source | None) -> GlueTask | None:
        """Return the row whose metrics count: of an out-of-domain source, else of what the model is trained on."""
        own = source.row if source and isinstance(source.row, OodSet) else None
        return next((row for row in (own, self.row) if row and row.problem_type == self.task.problem_type), None)

    def _scored_by(self, row: GlueTask | None, table: Table) -> Table:
        metrics = row.metrics if row else None
        if self.also:
            metrics = tuple(dict.fromkeys((*(metrics or self.task.metrics), *self.also)))
        return replace(table, metrics=metrics, positive=row.positive if row else None)


def _cells(table: Table) -> Cells:
    if table.cells is None:
        raise RailkdError(f"{table.source.text} was read without labels. Fix: read it with labelled=True.")
    return table.cells


def _labels(table: Table) -> np.ndarray:
    import numpy as np

    return np.asarray(table.rows["label"])


def _one_or_several(cells: Cells, model: str, asked: Task | None, task: Task | None = None) -> Cells:
    """Return cells that fit the kind of task: lists of one entry are unwrapped if a row has one label.

    Args:
        cells: of one table.
        model: in words, for messages.
        asked: the kind of task that the user named.
        task: that of the model, if there is one.

    Raises:
        RailkdError: several labels a row where one is wanted, or lists that may mean both.
    """
    decided = asked or task
    if not cells.several or (decided is not None and decided.several):
        return cells
    if cells.lone and decided is not None:
        return cells.unwrapped()
    if cells.lone:
        raise RailkdError(
            f"{cells.where}: every list of labels has one entry. It may be the class of the row, or one of any number "
            "of classes. Fix: --problem-type classification (or regression) says the first, multi-label the second."
        )
    if asked is not None:
        raise RailkdError(
            f"{cells.where}: has {cells.several}, got --problem-type {asked.name}. Expected multi-label, or "
            "one label a row."
        )
    if task is not None:
        raise RailkdError(
            f"{cells.where}: has {cells.several}, but {model} gives one answer a row. Fix: use a multi-label model."
        )
    return cells
