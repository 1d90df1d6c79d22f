"""From files as users have them to tables as jobs want them: text, perhaps a pair, labels in the model's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from railkd.data import labels
from railkd.data.columns import Columns, find_columns
from railkd.data.glue import GlueTask
from railkd.data.labels import LabelSpace
from railkd.data.ood import OodSet, is_out_of_domain
from railkd.data.sources import Source, parse_named
from railkd.errors import RailkdError
from railkd.jobs.options import DataOptions
from railkd.runtime.words import named
from railkd.tasks import Cells, Task, task_named, task_of, task_of_labels

Say = Callable[[str], None]


class DataFiles:
    """Reads every file of a job the same way.

    Args:
        options: columns, label map, problem type.
        say: tells the user what was found.

    Attributes:
        task: the kind of task; set by `infer` or `follow`, as the next is.
        space: the classes in the model's order.
    """

    def __init__(self, options: DataOptions, say: Say) -> None:
        self.options, self.say = options, say
        given = options.label_column
        self._label_columns = [given] if isinstance(given, str) else given or []
        self._asked = task_named(options.problem_type) if options.problem_type else None
        self._task: Task | None = None
        self._space: LabelSpace | None = None
        self._trained_on: GlueTask | None = None
        self._model = "the model"
        self._said = ""
        self._inferred_from: Source | None = None
        self._matched: dict[Source | None, LabelSpace] = {}

    @property
    def task(self) -> Task:
        """The kind of task of the model."""
        return self._known()[0]

    @property
    def space(self) -> LabelSpace:
        """The classes in the model's order."""
        return self._known()[1]

    def infer(self, source: Source) -> LabelSpace:
        """Take the classes from the training rows of a source: for a model that has none yet."""
        rows, where = source.rows("train"), source.text
        self._inferred_from, self._model = source, f"the model trained on {where}"
        row = self._row(source, trained_on=True)
        cells, _ = self._labels(source, rows)
        official = row.labels if row else ()
        self._task = self._asked or task_of_labels(cells, official)
        self._space = self._task.infer(cells, official)
        self.say(f"labels of {where}: {self._task.describe(self._space.names)}")
        return self._space

    def follow(self, names: Sequence[str], *, problem_type: str, model: str) -> LabelSpace:
        """Take the classes from a model: data labels are matched to them by name."""
        self._model, self._task = model, task_of(problem_type)
        self._space = self._task.space(names)
        return self._space

    def train_on(self, source: Source) -> None:
        """Say which rows the model is trained on: the metrics are those of their task, whatever is tested on."""
        self._row(source, trained_on=True)

    def read(self, source: Source, *, split: str, labelled: bool = True) -> Any:
        """One source as a `datasets.Dataset` with ``text``, ``text_pair`` for pairs, and ``label`` if asked for.

        Args:
            source: where they are. split: train, dev or test, where a source holds several.
            labelled: False leaves the labels out (unlabelled rows, prediction).
        """
        from datasets import Dataset

        rows, where = source.rows(split), source.text
        if labelled:
            cells, columns = self._labels(source, rows)
            label = self._encoded(cells, source)
            said = columns.describe()
        else:
            columns, label = self._columns(source, rows, None), None
            said = f"text: {' + '.join(columns.text)}; no labels read"
        table: dict[str, Any] = {
            name: _texts(rows, column, where) for name, column in zip(("text", "text_pair"), columns.text, strict=False)
        }
        if label is not None:
            table["label"] = label
        self.say(f"{where}: {rows.num_rows:,} rows" + (f"; {said}" if said != self._said else ""))
        self._said = said
        fold = self._matched[source].fold if label is not None else None
        if fold is not None:
            self.say(f"{where}: {fold.describe(self.space.names)}")
        return Dataset.from_dict(table)

    def score(self, logits: Any, values: Any, source: Source | None = None) -> dict[str, float]:
        """The task's metrics; those of the set itself where ``source`` is in the out-of-domain table.

        A set of coarser classes is scored on folded answers: argmax over the model's classes, then folded by name.
        """
        row = self._metrics_row(source)
        wanted, positive = (row.metrics, row.positive) if row else (None, None)
        space = self._matched.get(source, self.space)
        return self.task.score(logits, values, space, metrics=wanted, positive=positive)

    def answers(self, logits: Any, values: Any, source: Source | None = None) -> tuple[list[Any], list[Any]]:
        """Gold and given answers of each row, as `score` compares them: names (of the coarser classes where the set has
        them), lists of names where there are several a row, or numbers. A row without a label has ``None``.
        """
        space, given = self._matched.get(source, self.space), self.task.decide(np.asarray(logits))
        return self.task.said(np.asarray(values), space), self.task.said(given, space)

    @property
    def primary_metric(self) -> str:
        """The metric that chooses the best epoch."""
        row = self._metrics_row()
        return self.task.primary_metric(row.metrics if row else None)

    def cells_of(self, source: Source, name: str) -> list[str]:
        """How a file writes a class: what --label-map would have to rename."""
        return [old for old, new in self._label_map(source).items() if new == name] or [name]

    def _known(self) -> tuple[Task, LabelSpace]:
        if self._task is None or self._space is None:
            raise RailkdError("the label space is not known yet; call infer() or follow() first")
        return self._task, self._space

    def _label_map(self, source: Source) -> dict[str, str]:
        """What the cells of a source mean: the user's word, or else that of the tables of known sets."""
        given = self.options.label_map
        return labels.parse_label_map(given) if given else source.row.raw_label_names if source.row else {}

    def _row(self, source: Source, *, trained_on: bool = False) -> GlueTask | None:
        """The row of a source; the first task met decides the metrics, but for sets that are only tested on."""
        row = source.row
        if row is not None and self._trained_on is None and (trained_on or not isinstance(row, OodSet)):
            self._trained_on = row
        return row

    def _metrics_row(self, source: Source | None = None) -> GlueTask | None:
        """The row of the tables whose metrics count: of an out-of-domain source, or of what the model is trained on."""
        rows = (_ood(source) if source else None, self._trained_on)
        return next((row for row in rows if row and row.problem_type == self.task.problem_type), None)

    def _columns(self, source: Source, rows: Any, label: str | None) -> Columns:
        row, names = self._row(source), rows.column_names
        known = row.text if row and set(row.text) <= set(names) else None
        return find_columns(names, text=self.options.text_column or known, label=label)

    def _labels(self, source: Source, rows: Any) -> tuple[Cells, Columns]:
        """The labels of the rows as the file writes them, and its columns."""
        row, asked, where = self._row(source), self._label_columns, source.text
        wanted = asked[0] if asked else (row.label if row and row.label in rows.column_names else None)
        columns = self._columns(source, rows, wanted)
        if columns.label is None:
            raise RailkdError(
                f"{where}: no label column among {', '.join(rows.column_names)}; name it with --label-column, "
                "or give the rows as --unlabelled"
            )
        label_map = self._label_map(source)
        if len(asked) > 1:
            if len(set(asked)) < len(asked):
                raise RailkdError(f"--label-column: got {named(asked)}, wanted each column once")
            for name in asked:
                find_columns(rows.column_names, text=columns.text, label=name)  # says what is not there
        several = asked if len(asked) > 1 else [columns.label]
        cells = Cells({name: rows[name][:] for name in several}, where, label_map)
        self._refuse_several(cells)
        return cells, Columns(columns.text, " + ".join(several))

    def _refuse_several(self, cells: Cells) -> None:
        """Refuse several labels a row where the user or the model says that there is one."""
        if not cells.several:
            return
        if self._asked is not None and not self._asked.several:
            raise RailkdError(
                f"{cells.where}: has {cells.several}, got --problem-type {self._asked.name}; wanted multi-label, or "
                "one label a row"
            )
        if self._task is not None and not self._task.several:
            raise RailkdError(
                f"{cells.where}: has {cells.several}, {self._model} gives one answer a row; wanted a multi-label model"
            )

    def _encoded(self, cells: Cells, source: Source) -> list[Any]:
        task, space = self._known()
        if self._asked is not None:
            self._asked.check_outputs(space.names or ("value",), model=self._model, where=cells.where)
        if source != self._inferred_from:  # each file may spell the classes its own way, so each is matched anew
            space = task.match(cells, space.names, model=self._model, row=_ood(source))
        self._matched[source] = space
        return task.encode(cells, space)


def _ood(source: Source) -> OodSet | None:
    return source.row if isinstance(source.row, OodSet) else None


def named_tests(options: Any, trained_on: Source | None = None) -> tuple[dict[str, Source], dict[str, str]]:
    """name -> source of every --test and --ood set, and name -> "in" or "out" of the training domain.

    A set is out of domain when the user says so (--ood) or the table of `railkd.data.ood` does.
    """
    named, said = parse_named([*options.test, *options.ood]), set(parse_named(options.ood))
    own = trained_on.row if trained_on else None
    domains = {
        name: "out" if name in said or is_out_of_domain(source.row, own) else "in" for name, source in named.items()
    }
    return named, domains


def _texts(rows: Any, column: str, where: str) -> list[str]:
    values = rows[column][:]
    for number, value in enumerate(values, 1):
        if not isinstance(value, str):
            raise RailkdError(
                f"{where}: row {number}: column '{column}' holds {value!r}, wanted text; correct it or name another "
                "--text-column"
            )
    return values
