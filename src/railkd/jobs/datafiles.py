"""From files as users have them to tables as jobs want them: text, perhaps a pair, labels in the model's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from railkd.data import labels
from railkd.data.columns import Columns, find_columns
from railkd.data.glue import GlueTask
from railkd.data.labels import Fold, LabelSpace
from railkd.data.ood import OodSet, out_of_domain
from railkd.data.sources import Source, parse_named
from railkd.errors import RailkdError
from railkd.functional import ProblemType
from railkd.jobs.options import DataOptions
from railkd.models.heads import label_names, problem_type_of
from railkd.tasks import metrics, multilabel

Say = Callable[[str], None]


class DataFiles:
    """Reads every file of a job the same way.

    Args:
        options: columns, label map, problem type.
        say: tells the user what was found.

    Attributes:
        space: the classes in the model's order; set by `infer` or `follow`.
        metrics: of the task the files belong to; None: the usual ones.
    """

    def __init__(self, options: DataOptions, say: Say) -> None:
        self.options, self.say = options, say
        given = options.label_column
        self._label_columns = [given] if isinstance(given, str) else given or []
        self.space: LabelSpace | None = None
        self.metrics: tuple[str, ...] | None = None
        self._positive: str | None = None
        self._model = "the model"
        self._said = ""
        self._inferred_from: Source | None = None
        self._folds: dict[Source, Fold] = {}

    def infer(self, source: Source) -> LabelSpace:
        """Take the classes from the training rows of a source: for a model that has none yet."""
        rows, where = source.rows("train"), source.text
        self._inferred_from, self._model = source, f"the model trained on {where}"
        row = self._row(source, trained_on=True)
        read = self._labels(source, rows)
        if read.classes is not None:
            columns = self._label_columns if len(self._label_columns) > 1 else None
            self.space = multilabel.infer(read.classes, names=columns, where=where)
        else:
            self.space = labels.infer_label_space(
                read.values,
                problem_type=self.options.problem_type,
                label_column=read.columns.label,
                names=row.labels if row else None,
                where=where,
            )
        kind = "classes" if not self.space.multi else "any number of the classes"
        self.say(
            f"labels of {where}: {'regression' if self.space.regression else f'{kind} {_listed(self.space.names)}'}"
        )
        return self.space

    def follow(self, names: Sequence[str], *, problem_type: ProblemType, model: str) -> LabelSpace:
        """Take the classes from a model: data labels are matched to them by name."""
        self._model = model
        regression, multi = problem_type == "regression", problem_type == "multi_label_classification"
        self.space = LabelSpace(() if regression else tuple(names), regression=regression, multi=multi)
        return self.space

    def follow_config(self, config: Any, model: str) -> LabelSpace:
        """`follow` the labels of a model's config."""
        return self.follow(label_names(config), problem_type=problem_type_of(config), model=model)

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
            read = self._labels(source, rows)
            columns, label = read.columns, self._encoded(read, source)
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
        if source in self._folds:
            self.say(f"{where}: {self._folds[source].describe(self._known_space().names)}")
        return Dataset.from_dict(table)

    def score(self, logits: Any, values: Any, source: Source | None = None) -> dict[str, float]:
        """The task's metrics; those of the set itself where ``source`` is in the out-of-domain table.

        A set of coarser classes is scored on folded answers: argmax over the model's classes, then folded by name.
        """
        space = self._known_space()
        if space.multi:
            return multilabel.score(logits, values)
        row = source.row if source and not space.regression and isinstance(source.row, OodSet) else None
        wanted, positive_name = (row.metrics, row.positive) if row else (self.metrics, self._positive)
        fold = self._folds.get(source) if source else None
        names = fold.names if fold else space.names
        if fold:
            logits, values = _folded(logits, values, fold)
        positive = 1
        if positive_name is not None and len(names) == 2:
            loose = [_loose(name) for name in names]
            positive = loose.index(_loose(positive_name)) if _loose(positive_name) in loose else 1
        return metrics.score(logits, values, regression=space.regression, metrics=wanted, positive=positive)

    def answers(self, logits: Any, values: Any, source: Source | None = None) -> tuple[list[Any], list[Any]]:
        """Gold and given answers of each row, as `score` compares them: names (of the coarser classes where the set has
        them), lists of names where there are several a row, or numbers. A row without a label has ``None``.
        """
        space, fold = self._known_space(), self._folds.get(source) if source else None
        logits, values = np.asarray(logits), np.asarray(values)
        if space.multi:
            names = np.asarray(space.names)
            chosen = [[list(names[row > at]) for row in table] for table, at in ((values, 0.5), (logits, 0.0))]
            missing = np.isnan(values).any(axis=1)
            return [None if gone else row for gone, row in zip(missing, chosen[0], strict=True)], chosen[1]
        if space.regression:
            numbers = [None if np.isnan(value) else float(value) for value in values.reshape(-1)]
            return numbers, [float(value) for value in logits.reshape(-1)]
        classes = fold.names if fold else space.names
        if fold:
            logits, values = _folded(logits, values, fold)
        gold = [None if value == labels.MISSING else classes[int(value)] for value in values]
        return gold, [classes[int(best)] for best in logits.argmax(axis=1)]

    @property
    def problem_type(self) -> ProblemType:
        """What the model predicts, in transformers' words."""
        space = self._known_space()
        if space.multi:
            return "multi_label_classification"
        return "regression" if space.regression else "single_label_classification"

    @property
    def primary_metric(self) -> str:
        """The metric that chooses the best epoch."""
        space = self._known_space()
        return multilabel.METRICS[0] if space.multi else metrics.primary_metric(space.regression, self.metrics)

    def cells_of(self, source: Source, name: str) -> list[str]:
        """How a file writes a class: what --label-map would have to rename."""
        return [old for old, new in self._label_map(source).items() if new == name] or [name]

    def _known_space(self) -> LabelSpace:
        if self.space is None:
            raise RailkdError("the label space is not known yet; call infer() or follow() first")
        return self.space

    def _label_map(self, source: Source) -> dict[str, str]:
        """What the cells of a source mean: the user's word, or else that of the tables of known sets."""
        given = self.options.label_map
        return labels.parse_label_map(given) if given else source.row.raw_label_names if source.row else {}

    def _row(self, source: Source, *, trained_on: bool = False) -> GlueTask | None:
        """The row of a source; the first task met decides the metrics, but for sets that are only tested on."""
        row = source.row
        if row is not None and self.metrics is None and (trained_on or not isinstance(row, OodSet)):
            self.metrics, self._positive = row.metrics, row.positive
        return row

    def _columns(self, source: Source, rows: Any, label: str | None) -> Columns:
        row, names = self._row(source), rows.column_names
        known = row.text if row and set(row.text) <= set(names) else None
        return find_columns(names, text=self.options.text_column or known, label=label)

    def _labels(self, source: Source, rows: Any) -> _Labels:
        """The labels of the rows, as single values or as the classes of each row."""
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
                raise RailkdError(f"--label-column: got {_listed(asked)}, wanted each column once")
            for name in asked:
                find_columns(rows.column_names, text=columns.text, label=name)  # says what is not there
            self._refuse_kind(where, "several label columns")
            found = multilabel.from_columns({name: rows[name][:] for name in asked}, where=where)
            columns = Columns(columns.text, " + ".join(asked))
            return _Labels(columns, label_map, [], _renamed(found, label_map))
        values = rows[columns.label][:]
        if any(isinstance(value, list) for value in values):
            self._refuse_kind(where, "lists of labels")
        elif self.options.problem_type != "multi-label" and not (self.space is not None and self.space.multi):
            return _Labels(columns, label_map, labels.apply_label_map(values, label_map), None)
        found = multilabel.split_cells(values, where=where)
        return _Labels(columns, label_map, [], _renamed(found, label_map))

    def _refuse_kind(self, where: str, what: str) -> None:
        """Several labels a row, but the user or the model says there is one."""
        kind = self.options.problem_type
        if kind in ("classification", "regression"):
            raise RailkdError(f"{where}: has {what}, got --problem-type {kind}; wanted multi-label, or one label a row")
        if self.space is not None and not self.space.multi:
            raise RailkdError(f"{where}: has {what}, {self._model} gives one answer a row; wanted a multi-label model")

    def _encoded(self, read: _Labels, source: Source) -> list[Any]:
        space, where = self._known_space(), source.text
        if read.classes is not None:
            return multilabel.encode(
                read.classes, space.names, label_map=read.label_map, model=self._model, where=where
            )
        if source == self._inferred_from:
            return list(space.encode(read.values, where=where))
        # Each file may spell the classes its own way, so each is matched against the model anew.
        if space.regression or self.options.problem_type == "regression":
            theirs = LabelSpace((), regression=True)
        else:
            seen = dict.fromkeys(labels.label_name(v, where=where) for v in read.values if not labels.is_missing(v))
            theirs = LabelSpace(tuple(seen))
            row = source.row if isinstance(source.row, OodSet) else None
            fold = labels.fold_onto(space.names, row.labels, row.renamed) if row else None
            if row and fold:
                self._folds[source] = fold
                coarse = labels.match_label_space(
                    fold.names,
                    LabelSpace(tuple(dict.fromkeys(row.renamed.get(name, name) for name in seen))),
                    label_map=read.label_map,
                    model=f"the table's row {row.name}",
                    where=where,
                )
                # A group is written as its first class of the model, so that the labels stay in the model's range.
                first = [fold.group.index(number) for number in range(len(fold.names))]
                renamed = [
                    value if labels.is_missing(value) else row.renamed.get(value, value) for value in read.values
                ]
                return [first[int(index)] for index in coarse.encode(renamed, where=where)]
        names = space.names or ("value",)
        matched = labels.match_label_space(names, theirs, label_map=read.label_map, model=self._model, where=where)
        return list(matched.encode(read.values, where=where))


@dataclass(frozen=True)
class _Labels:
    """Labels as a file has them: one value a row, or the classes of each row."""

    columns: Columns
    label_map: dict[str, str]
    values: list[Any]
    classes: list[multilabel.Classes] | None


def _renamed(rows: list[multilabel.Classes], label_map: dict[str, str]) -> list[multilabel.Classes]:
    return [None if row is None else tuple(label_map.get(name, name) for name in row) for row in rows]


def _folded(logits: Any, values: Any, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """One-hot answers (N, groups) and labels as groups; a row whose logits are not finite stays so."""
    logits, values, group = np.asarray(logits, dtype=np.float64), np.asarray(values), np.asarray(fold.group)
    answers = np.eye(len(fold.names))[group[logits.argmax(axis=1)]]
    answers[~np.isfinite(logits).all(axis=1)] = np.nan
    return answers, np.where(values == labels.MISSING, values, group[values])


def _loose(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def named_tests(options: Any, trained_on: Source | None = None) -> tuple[dict[str, Source], dict[str, str]]:
    """name -> source of every --test and --ood set, and name -> "in" or "out" of the training domain.

    A set is out of domain when the user says so (--ood) or the table of `railkd.data.ood` does.
    """
    named, said = parse_named([*options.test, *options.ood]), set(parse_named(options.ood))
    own = trained_on.row if trained_on else None
    domains = {
        name: "out" if name in said or out_of_domain(source.row, own) else "in" for name, source in named.items()
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
