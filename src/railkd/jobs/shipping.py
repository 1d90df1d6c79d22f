"""Finds the model that is shipped, with the record of its run, and reads the rows of the gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from railkd.data.reader import TEXT_COLUMNS, Table
from railkd.data.shares import parse_shares
from railkd.data.sources import SELECTION_SET, Source, parse_named
from railkd.data.tokens import KeyedTokens, keyed_tokens, some_rows
from railkd.errors import RailkdError
from railkd.export.gate import Judgement, judge
from railkd.export.parity import ROWS
from railkd.export.session import OnnxModel
from railkd.export.side_by_side import Answered, Quality
from railkd.jobs.options import Say
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.shipping_options import ExportOptions
from railkd.jobs.splits import Sources, TableReader, asked_task
from railkd.jobs.trained import Trained, trained_length
from railkd.models.checkpoints import Checkpoint
from railkd.models.inference import predict_logits
from railkd.models.named_teachers import as_list
from railkd.records import RunRecord
from railkd.tasks.target import Target

#: Rows of a batch. On processors, small batches of like length are the fastest.
BATCH = 16
#: Options of the run that say how its files are read.
_READING = ("text_column", "label_column", "label_map", "problem_type")


@dataclass(frozen=True)
class Finished:
    """A trained model and what its run recorded.

    Attributes:
        checkpoint: the model.
        record: of its run; None for a model folder alone.
    """

    checkpoint: Checkpoint
    record: RunRecord | None

    @classmethod
    def find(cls, name: str, *, trust: bool = False) -> Finished:
        """Find the model of a run folder, or a model folder with the record of the run around it.

        Args:
            name: of the folder, or of a model on the hub.
            trust: run Python code that it brings.

        Returns:
            The model.
        """
        path = Path(name)
        for run in (RunFolder(path), RunFolder(path.parent)):
            if run.is_run() and run.record.is_file():
                record = RunRecord.read(run.record)
                model = run.model(record.job) if record.job in RunFolder.MODELS else path
                if model == path or run.path == path:
                    return cls(Checkpoint.find(model, trust=trust), record)
        return cls(Checkpoint.find(name, trust=trust), None)

    def sources(self, options: ExportOptions) -> tuple[ExportOptions, dict[str, Source]]:
        """Return the options to read the rows of the gates by, and name -> source of these rows.

        Raises:
            RailkdError: none are given, and the run names none.
        """
        if options.eval:
            return options, dict(parse_named(options.eval))
        config = self.record.config if self.record else {}
        found = dict(parse_named([*(config.get("test") or []), *(config.get("ood") or [])]))
        if "eval" in config:
            found[SELECTION_SET] = Source.parse(config["eval"])
        if not found:
            raise RailkdError(
                f"Expected labelled rows for the gates, but '{options.model}' names none. Fix: give --eval FILE."
            )
        for source in found.values():
            source.check()
        own = {name: config[name] for name in _READING if name in config and getattr(options, name) is None}
        return replace(options, **own), found

    def training_rows(self) -> list[Source]:
        """Return the sources of the run's training rows.

        Raises:
            RailkdError: the model has no run, or its run names none.
        """
        config = self.record.config if self.record else {}
        found = [Source.parse(text) for text in as_list(config.get("train"))]
        found += [source for source, _ in parse_shares(as_list(config.get("unlabelled")))]
        if not found:
            raise RailkdError(
                "--vocabulary: expected a run whose training rows say which pieces stay, but "
                f"'{self.checkpoint}' has none. Fix: export the folder that distill or finetune wrote."
            )
        return found

    def teacher(self) -> Checkpoint | None:
        """Return the teacher of the run if it is one, a folder that is still there."""
        name = self.record.config.get("teacher", "") if self.record else ""
        if not name or not isinstance(name, str) or not Path(name).is_dir():
            return None
        try:
            return Checkpoint.find(name)
        except RailkdError:
            return None


@dataclass
class Subject:
    """The model to export, with the rows of its gates. Each row is tokenised once, and answered once in PyTorch.

    Attributes:
        model: in evaluation mode, on the CPU.
        tokenizer: of the model.
        target: its task and classes.
        tables: name -> labelled rows of the gates, N in all.
        max_length: in tokens.
        trained: (N, C) logits of the model as it was trained; None: this is that model.
    """

    model: Any
    tokenizer: Any
    target: Target
    tables: dict[str, Table]
    max_length: int
    trained: np.ndarray | None = None

    @cached_property
    def tokens(self) -> KeyedTokens:
        """The N rows, one table after the other."""
        parts = [keyed_tokens(table.rows, self.tokenizer, max_length=self.max_length) for table in self.tables.values()]
        return KeyedTokens.join(parts)

    @cached_property
    def reference(self) -> np.ndarray:
        """(N, C) logits of this model in PyTorch."""
        return self._answer(self.tokens)

    @property
    def original(self) -> np.ndarray:
        """(N, C) logits of the model as it was trained, which the quality gates compare with."""
        return self.reference if self.trained is None else self.trained

    @cached_property
    def spread(self) -> np.ndarray:
        """Numbers of at most `railkd.export.parity.ROWS` rows, evenly spread over all lengths, the shortest first."""
        order = np.argsort(self.tokens.lengths, kind="stable")
        return order[np.unique(np.linspace(0, len(order) - 1, ROWS).astype(int))]

    def spread_of(self, most: int) -> np.ndarray:
        """Return the numbers of rows of `spread`, evenly spread too.

        Args:
            most: of the rows; all of `spread` if there are fewer.
        """
        return self.spread[some_rows(len(self.spread), most)]

    @cached_property
    def sample(self) -> tuple[KeyedTokens, np.ndarray]:
        """The rows of `spread`, and their (n, C) logits in PyTorch."""
        rows = self.tokens.select(self.spread)
        known = "reference" in self.__dict__
        return rows, self.reference[self.spread] if known else self._answer(rows)

    def texts(self, numbers: np.ndarray | None = None) -> list[tuple[str, ...]]:
        """Return the texts of rows, as tuples of one or two.

        Args:
            numbers: of the rows; None: all.
        """
        found: list[tuple[str, ...]] = []
        for table in self.tables.values():
            columns = [table.rows[name][:] for name in TEXT_COLUMNS if name in table.rows.column_names]
            found += zip(*columns, strict=True)
        return found if numbers is None else [found[number] for number in numbers]

    def example(self) -> list[tuple[str, ...]]:
        """Return rows to trace the model with: the shortest, the longest and one between."""
        return self.texts(self.spread[[0, -1, len(self.spread) // 2]])

    def outputs(self, file: Path, rows: KeyedTokens | None = None) -> np.ndarray:
        """Return (N, C) logits of an ONNX file.

        Args:
            file: in its place in the shipped folder.
            rows: as `sample` gives them; None: all.
        """
        given = self.tokens if rows is None else rows
        return OnnxModel(file).logits(given, max_length=self.max_length, batch_size=BATCH)

    def judge(self, outputs: np.ndarray, margins: tuple[float, float]) -> list[Judgement]:
        """Compare answers with those of the model as it was trained.

        Args:
            outputs: (N, C) logits.
            margins: see `railkd.export.gate.judge`.

        Returns:
            A judgement for each table.
        """
        ends = np.cumsum([len(table) for table in self.tables.values()])[:-1]
        parts = zip(np.split(self.original, ends), np.split(outputs, ends), strict=True)
        return [
            judge(self.target, name, table, pair, margins)
            for (name, table), pair in zip(self.tables.items(), parts, strict=True)
        ]

    def _answer(self, rows: KeyedTokens) -> np.ndarray:
        return predict_logits(self.model, self.tokenizer, rows, max_length=self.max_length, batch_size=BATCH)

    def answers_of(self, model: Any, tokenizer: Any, length: int) -> np.ndarray:
        """Return the (n, C) logits of another model for the rows of `spread`.

        Args:
            model: on the CPU.
            tokenizer: of the model.
            length: at which it cuts its texts, in tokens.
        """
        texts = [dict(zip(TEXT_COLUMNS, text, strict=False)) for text in self.texts(self.spread)]
        return predict_logits(model, tokenizer, Dataset.from_list(texts), max_length=length, batch_size=BATCH)

    def qualities(self, files: Sequence[np.ndarray], teacher: tuple[Checkpoint, np.ndarray] | None) -> list[Quality]:
        """Score the teacher, the model and its files on the rows of `spread`, and compare them with the first of them.

        Args:
            files: (n, C) logits of each file for these rows.
            teacher: of the run, and its `answers_of`; None: there is none, and the model is the first.

        Returns:
            One for each of them, in this order.
        """
        order = np.argsort(self.spread)  # the rows of a set together
        found = [self._answered(self.target, outputs[order]) for outputs in (self.sample[1], *files)]
        if teacher is not None:
            checkpoint, given = teacher
            kind = checkpoint.task.problem_type
            target = Target.of_model(checkpoint.labels, kind, "the teacher", self.target.asked)
            found.insert(0, self._answered(replace(target, row=self.target.row), given[order]))
        return [one.quality(found[0]) for one in found]

    def _answered(self, target: Target, outputs: np.ndarray) -> Answered:
        """Return the (n, C) outputs for the rows of `spread`, sorted by number, as the answers of a model."""
        numbers, start, done = np.sort(self.spread), 0, 0
        tables, parts = {}, {}
        for name, table in self.tables.items():
            own = numbers[(numbers >= start) & (numbers < start + len(table))] - start
            labelled = target.label(table)
            tables[name] = replace(labelled, rows=labelled.rows.select(own))
            parts[name] = outputs[done : done + len(own)]
            start, done = start + len(table), done + len(own)
        kept = [name for name, table in tables.items() if len(table)]
        return Answered(target, {name: tables[name] for name in kept}, {name: parts[name] for name in kept})


def read_subject(trained: Finished, model: Any, options: ExportOptions, say: Say) -> Subject:
    """Read the rows of the gates.

    Args:
        trained: the model and its run.
        model: loaded, on the CPU.
        options: of the export.
        say: receives lines for the user.

    Returns:
        The model with its rows.
    """
    checkpoint = trained.checkpoint
    reading, named = trained.sources(options)
    sources = Sources((), (), None, named, frozenset())
    target = Target.of_model(checkpoint.labels, checkpoint.task.problem_type, str(checkpoint), asked_task(reading))
    target = replace(target, row=sources.row)
    tables = TableReader(reading, say, Trained.of(checkpoint.config)).tests(sources, target)
    length = trained_length(options.max_length, checkpoint.config, say)
    return Subject(model, checkpoint.tokenizer, target, tables, length)
