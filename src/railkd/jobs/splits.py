"""Reads the tables of one job: rows to train on, rows that choose the epoch, and rows that are scored at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from railkd.data.glue import GlueTask
from railkd.data.keys import drawn, held_out
from railkd.data.label_names import describe_look_alikes
from railkd.data.ood import OodSet, is_out_of_domain
from railkd.data.reader import Cells, Table, read, refuse_unused_entries
from railkd.data.reading import Reading
from railkd.data.shares import parse_shares
from railkd.data.sources import SELECTION_SET, Source, parse_named
from railkd.data.streams import TextStream, read_stream
from railkd.errors import RailkdError
from railkd.jobs.contents import TEXTS
from railkd.jobs.mixture import Mixture, join, repeated, shared_row
from railkd.jobs.options import DataOptions, Say, TrainingDataOptions, required
from railkd.jobs.trained import Trained
from railkd.models.limits import check_texts
from railkd.models.named_teachers import as_list
from railkd.tasks import Task, task_named
from railkd.tasks.metrics import LOSS, check_choice, greater_is_better
from railkd.tasks.target import Target


def asked_task(options: DataOptions) -> Task | None:
    """Return the task that ``--problem-type`` names; None if it is not given."""
    return task_named(options.problem_type) if options.problem_type else None


@dataclass(frozen=True)
class Sources:
    """The files and data sets of a job.

    Attributes:
        train: files of training rows; none: the job has none.
        unlabelled: files of rows for the teacher terms of the loss alone, each with its share of every batch or None.
        eval: rows that choose the epoch; None if there are none.
        tests: name -> labelled rows that are scored.
        outside: names of the test sets out of the training domain, by --ood or by the table of known sets.
    """

    train: Sequence[Source]
    unlabelled: Sequence[tuple[Source, float | None]]
    eval: Source | None
    tests: Mapping[str, Source]
    outside: frozenset[str]

    @classmethod
    def parse(cls, options: Any) -> Sources:
        """Parse the sources among the options of a job."""
        train, more = (as_list(getattr(options, name, None)) for name in ("train", "unlabelled"))
        chosen = Source.parse(text) if (text := getattr(options, "eval", None)) else None
        tests, ood = parse_named([*options.test, *options.ood]), set(parse_named(options.ood))
        sources = [Source.parse(text) for text in train]
        own = shared_row(sources)
        outside = {name for name, source in tests.items() if name in ood or is_out_of_domain(source.row, own)}
        return cls(sources, parse_shares(more), chosen, tests, frozenset(outside))

    @property
    def row(self) -> GlueTask | None:
        """The entry of the first known data set. A set that is only tested on counts if it is in the domain."""
        if row := shared_row(self.train):
            return row
        texts = [source for source, _ in self.unlabelled]
        others = [source.row for source in (*texts, self.eval, *self.tests.values()) if source]
        return next((row for row in others if row and not isinstance(row, OodSet)), None)

    def domain(self, name: str) -> str:
        """Return "in" or "out" for a test set."""
        return "out" if name in self.outside else "in"


class TableReader:
    """Reads the tables of one job and tells the user the contents of each.

    Args:
        options: name the columns to read.
        say: receives a line for each table.
        trained: what the folder of the model says of its training; None: there is no model.
        strict: see `railkd.data.reader.Reading`.
    """

    def __init__(self, options: DataOptions, say: Say, trained: Trained | None = None, *, strict: bool = True) -> None:
        reading = Reading.parse(options.text_column, options.label_column, options.label_map)
        self._reading = replace(reading, trained=trained.text_columns if trained else (), strict=strict)
        self._say, self._last = say, ""
        self._cells: list[Cells] = []

    def read(self, source: Source, *, split: str, labelled: bool = True) -> Table:
        """Read a source, and print its rows. Its columns are printed if they differ from those of the table before.

        Args:
            source: file or data set.
            split: "train", "dev" or "test": the split to read of a source that has several.
            labelled: False reads the texts alone.

        Returns:
            The table. Its labels are not encoded.
        """
        table = read(source, self._reading, split=split, labelled=labelled)
        self._tell(source, len(table), table.described, table.notes)
        self._cells += [table.cells] if table.cells is not None else []
        return table

    def read_train(self, sources: Sequence[Source]) -> Table:
        """Read several files of training rows as one table, and print how many rows repeat a text."""
        tables = [self.read(source, split="train") for source in sources]
        if len(tables) > 1 and (words := repeated(tables)):
            self._say(words)
        return join(tables)

    def read_unlabelled(self, sources: Sequence[tuple[Source, float | None]]) -> tuple[Table, Mixture]:
        """Read several files of rows without labels as one table, with their shares."""
        tables = [self.read(source, split="train", labelled=False) for source, _ in sources]
        return join(tables), Mixture.of(tables, [share for _, share in sources])

    def stream(self, source: Source, *, split: str) -> TextStream:
        """Look through a source of any size, and print its rows as `read` does, so that they can be read one by one."""
        found = read_stream(source, self._reading, split=split)
        self._tell(source, found.count, found.described, found.notes)
        return found

    def _tell(self, source: Source, rows: int, words: str, notes: Sequence[str]) -> None:
        self._say(f"{source.text}: {rows:,} rows" + (f"; {words}" if words != self._last else ""))
        self._last = words
        for note in notes:
            self._say(note)

    def labelled(self, source: Source, target: Target, *, split: str) -> Table:
        """Read a source and encode its labels."""
        return self.label(self.read(source, split=split), target)

    def label(self, table: Table, target: Target) -> Table:
        """Encode the labels of a table, and print which classes are read as one, if any."""
        table = target.label(table)
        words = table.space.describe_merged() if table.space is not None else ""
        if words:
            self._say(f"{table.source.text}: {words}")
        return table

    def tests(self, sources: Sources, target: Target) -> dict[str, Table]:
        """Read every test set, by name: the last tables. Entries of --label-map that no table has are refused."""
        tables = {
            name: replace(self.labelled(source, target, split=source.scored_split), domain=sources.domain(name))
            for name, source in sources.tests.items()
        }
        written = [(cells.where, target.written(cells)) for cells in self._cells]
        refuse_unused_entries(self._reading.label_map or {}, written)
        return tables


@dataclass(frozen=True)
class Splits:
    """All tables of a job that trains, read before a model is built.

    Attributes:
        target: task and classes of the model.
        train: labelled training rows.
        unlabelled: rows for the teacher terms of the loss alone; None if there are none.
        mixture: their sources and shares; None if there are none.
        eval: rows that choose the epoch; None keeps the last epoch.
        tests: name -> rows that are scored at the end.
        selecting: description of ``eval`` for messages.
        chosen_metric: metric that the user chooses the epoch by; None takes the first of the task.
        contents: "train", "eval", "unlabelled", "test NAME" -> digest of the rows that were read, "texts PART" ->
            digest of the texts alone, and "metrics ADDRESS" -> digest of the file of a metric.
        own_metrics: metric of the user's own functions -> whether higher is better.
    """

    target: Target
    train: Table
    unlabelled: Table | None
    eval: Table | None
    tests: Mapping[str, Table]
    selecting: str = "--eval"
    chosen_metric: str | None = None
    contents: dict[str, str] = field(default_factory=dict)
    own_metrics: Mapping[str, bool] = field(default_factory=dict)
    mixture: Mixture | None = None

    @classmethod
    def read(
        cls,
        options: TrainingDataOptions,
        find_target: Callable[[Table], Target],
        say: Say,
        trained: Trained | None = None,
        *,
        strict: bool = True,
    ) -> Splits:
        """Read every table that the options name.

        Rows that cannot be read, or that do not fit each other or the model, raise `RailkdError`.

        Args:
            options: settings of a job that trains, or of its check.
            find_target: returns task and classes of the model, given the training rows with raw labels.
            say: receives lines for the user.
            trained: see `TableReader`.
            strict: see `railkd.data.reader.Reading`.

        Returns:
            The tables.
        """
        sources, reader = Sources.parse(options), TableReader(options, say, trained, strict=strict)
        raw = reader.read_train(required(list(sources.train), "--train"))
        target = replace(find_target(raw), asked=asked_task(options), row=sources.row)
        target = target.asking(getattr(options, "metrics", ()))
        if target.source is not None:
            say(f"labels of {target.source.text}: {target.task.describe(target.space.names)}")
            if line := describe_look_alikes(target.space.names, raw.cells.label_map if raw.cells else {}):
                say(line)
        train, given, words = _draw(reader.label(raw, target), options, say), None, cls.selecting
        unlabelled, mixture = reader.read_unlabelled(sources.unlabelled) if sources.unlabelled else (None, None)
        if unlabelled is not None:
            _refuse_other_texts(unlabelled, train)
        if sources.eval is not None:
            given = target.choosing(reader.labelled(sources.eval, target, split="dev"))
        chosen = given
        if (share := getattr(options, "eval_share", None)) is not None:
            seed = getattr(options, "eval_seed", 0)
            rest, held = held_out(train.rows, share, seed)
            train, chosen = replace(train, rows=rest), target.choosing(replace(train, rows=held))
            words = f"{len(held):,} training rows held out (seed {seed})"
            say(f"the epoch is chosen by {words}; {len(rest):,} are trained on")
        tests = reader.tests(sources, target)
        own = target.try_own(tests | ({SELECTION_SET: chosen} if chosen is not None else {}))
        contents = digests({"train": raw, "unlabelled": unlabelled, "eval": given}, tests) | target.own_contents()
        found = cls(target, train, unlabelled, chosen, tests, words, contents=contents, mixture=mixture)
        return replace(found, own_metrics=own)

    def keep_unlabelled(self, rows: np.ndarray) -> Splits:
        """Return the tables with some of the unlabelled rows.

        Args:
            rows: their numbers, ascending; none leaves the table out.
        """
        if self.unlabelled is None or self.mixture is None or not len(rows):
            return replace(self, unlabelled=None, mixture=None)
        table = replace(self.unlabelled, rows=self.unlabelled.rows.select(rows))
        return replace(self, unlabelled=table, mixture=self.mixture.select(rows))

    def choosing_by(self, name: str | None) -> Splits:
        """Return the tables with another metric that chooses the best epoch, computed beside the usual ones.

        Args:
            name: metric of the task, or "loss", with or without the prefix ``eval_``; None takes the first of the task.

        Raises:
            RailkdError: the task has no such metric, no rows choose the epoch, or these rows do not define the metric.
        """
        if name is None:
            return self
        metric, usual = check_choice(name, self.target.task.name, self.own_metrics), self.target.task.metrics
        if self.eval is None:
            raise RailkdError(
                f"Expected rows to compute --metric-for-best-model {name} on, got none. Fix: give --eval FILE or "
                "--eval-share SHARE, or leave the flag out."
            )
        known = {metric} - {LOSS} - self.own_metrics.keys()
        for one in known:
            self.target.check_defined(self.eval, one)
        computed = tuple(dict.fromkeys((*(self.eval.metrics or usual), *known)))
        return replace(self, eval=replace(self.eval, metrics=computed), chosen_metric=metric)

    @property
    def metric(self) -> str | None:
        """The metric that chooses the best epoch; None without rows to choose by."""
        return (self.chosen_metric or self.target.primary_metric) if self.eval is not None else None

    @property
    def greater_is_better(self) -> bool:
        """True if the best epoch has the highest value of `metric`."""
        return self.own_metrics.get(self.metric or "", greater_is_better(self.metric or ""))

    @property
    def scored(self) -> dict[str, Table]:
        """The tables that a trained model is scored on, by name."""
        return dict(self.tests) | ({SELECTION_SET: self.eval} if self.eval is not None else {})

    def texts(self) -> Dataset:
        """Return every row that is trained on, without labels: the rows that a cache must hold."""
        parts = [self.train.rows.remove_columns("label")]
        return concatenate_datasets(parts + ([self.unlabelled.rows] if self.unlabelled is not None else []))

    def check_lengths(self, config: Any, tokenizer: Any, max_length: int, who: str) -> None:
        """Refuse rows that are too long for a model, in every table.

        Args:
            config: of the model.
            tokenizer: of the model.
            max_length: length in tokens at which texts are cut.
            who: name of the model for messages, such as "the student".
        """
        for table in (self.train, self.unlabelled, self.eval, *self.tests.values()):
            if table is not None:
                check_texts(config, tokenizer, table.rows, max_length, who)

    def training_rows(self, outputs: int) -> Dataset:
        """Return the labelled rows, followed by the unlabelled ones with a label that marks them.

        Args:
            outputs: number of outputs of the model's head.
        """
        if self.unlabelled is None:
            return self.train.rows
        rows, mark = self.unlabelled.rows, self.target.task.unlabelled(outputs)
        columns = {name: rows[name] for name in rows.column_names}
        marked = Dataset.from_dict({**columns, "label": [mark] * len(rows)}, features=self.train.rows.features)
        return concatenate_datasets([self.train.rows, marked])


def _draw(train: Table, options: TrainingDataOptions, say: Say) -> Table:
    """Return the training rows, or those of them that ``--max-train-rows`` draws."""
    if options.max_train_rows is None or options.max_train_rows >= len(train):
        return train
    say(f"{options.max_train_rows:,} of the {len(train):,} training rows are drawn (--max-train-rows)")
    return replace(train, rows=drawn(train.rows, options.max_train_rows))


def digests(tables: Mapping[str, Table | None], tests: Mapping[str, Table]) -> dict[str, str]:
    """Return part -> digest of its rows, and "texts PART" -> digest of the texts alone of labelled ones.

    "texts PART 1" is that of the first of several files. None is left out, and test sets are named "test NAME".
    """
    named = {**tables, **{f"test {name}": table for name, table in tests.items()}}
    parts = {part: table for part, table in named.items() if table is not None}
    texts = {TEXTS + part: table.texts_digest for part, table in parts.items() if table.cells is not None}
    texts |= {f"{TEXTS}{part} {n}": one for part, table in parts.items() for n, one in enumerate(table.joined, 1)}
    return {part: table.digest for part, table in parts.items()} | texts


def _refuse_other_texts(unlabelled: Table, train: Table) -> None:
    """Refuse single texts in one table and pairs in the other."""
    words = ("one text a row", "pairs of texts")
    got, expected = (words["text_pair" in table.rows.column_names] for table in (unlabelled, train))
    if got != expected:
        raise RailkdError(
            f"--unlabelled: expected {expected} as in --train '{train.source.text}', got {got} in "
            f"'{unlabelled.source.text}'. Fix: name columns of both with --text-column, or give another file."
        )
