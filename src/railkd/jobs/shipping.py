"""Finds the model that is shipped, with the record of its run, and reads the rows of the gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from railkd.data.reader import TEXT_COLUMNS, Table
from railkd.data.sources import SELECTION_SET, Source, parse_named
from railkd.data.tokens import full_lengths
from railkd.errors import RailkdError
from railkd.export.gate import Judgement, judge
from railkd.export.quantize import SAMPLE
from railkd.export.session import OnnxModel
from railkd.jobs.options import Say
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.shipping_options import ExportOptions
from railkd.jobs.splits import Sources, TableReader, asked_task
from railkd.jobs.trained import Trained, trained_length
from railkd.models.checkpoints import Checkpoint
from railkd.models.inference import predict_logits
from railkd.records import RunRecord
from railkd.tasks.target import Target

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
        found = dict(parse_named([*config.get("test", []), *config.get("ood", [])]))
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
        found = [Source.parse(config[name]) for name in ("train", "unlabelled") if name in config]
        if not found:
            raise RailkdError(
                "--vocabulary: expected a run whose training rows say which pieces stay, but "
                f"'{self.checkpoint}' has none. Fix: export the folder that distill or finetune wrote."
            )
        return found

    def teacher(self) -> Checkpoint | None:
        """Return the teacher of the run if it is a folder that is still there."""
        name = str(self.record.config.get("teacher", "")) if self.record else ""
        if not name or not Path(name).is_dir():
            return None
        try:
            return Checkpoint.find(name)
        except RailkdError:
            return None


@dataclass
class Subject:
    """The model to export, with its rows and its answers in PyTorch.

    Attributes:
        model: in evaluation mode, on the CPU.
        tokenizer: of the model.
        target: its task and classes.
        tables: name -> labelled rows of the gates.
        max_length: in tokens.
        reference: name -> (N, C) logits of this model in PyTorch.
        original: likewise of the model as it was trained, which the gates compare with.
    """

    model: Any
    tokenizer: Any
    target: Target
    tables: dict[str, Table]
    max_length: int
    reference: dict[str, np.ndarray] = field(default_factory=dict)
    original: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """Every text of the tables, as rows of one or two."""
        found: list[tuple[str, ...]] = []
        for table in self.tables.values():
            columns = [table.rows[name][:] for name in TEXT_COLUMNS if name in table.rows.column_names]
            found += zip(*columns, strict=True)
        return found

    def example(self) -> list[tuple[str, ...]]:
        """Return rows to trace the model with: two or three, the shortest and the longest among them."""
        texts = self.texts
        order = np.argsort(full_lengths(self.tokenizer, texts), kind="stable")
        return [texts[i] for i in (order[0], order[-1], order[len(order) // 2])]

    def sample(self) -> tuple[Any, np.ndarray]:
        """Return a table of rows to measure on, evenly spread over the first set, and their logits."""
        name, table = next(iter(self.tables.items()))
        rows = np.unique(np.linspace(0, len(table) - 1, SAMPLE).astype(int))
        return table.rows.select(rows.tolist()), self.reference[name][rows]

    def outputs(self, file: Path) -> dict[str, np.ndarray]:
        """Return name -> (N, C) logits of an ONNX file."""
        model = OnnxModel(file)
        return {name: model.logits(table.rows, max_length=self.max_length) for name, table in self.tables.items()}

    def judge(self, outputs: Mapping[str, np.ndarray], margins: tuple[float, float]) -> list[Judgement]:
        """Compare answers with those of the model as it was trained.

        Args:
            outputs: name -> (N, C) logits.
            margins: see `railkd.export.gate.judge`.

        Returns:
            A judgement for each table.
        """
        return [
            judge(self.target, name, table, (self.original[name], outputs[name]), margins)
            for name, table in self.tables.items()
        ]

    def answer(self) -> dict[str, np.ndarray]:
        """Return name -> (N, C) logits of the model in PyTorch."""
        return {
            name: predict_logits(self.model, self.tokenizer, table.rows, max_length=self.max_length)
            for name, table in self.tables.items()
        }


def read_subject(trained: Finished, model: Any, options: ExportOptions, say: Say) -> Subject:
    """Read the rows of the gates, and answer them by the model.

    Args:
        trained: the model and its run.
        model: loaded, on the CPU.
        options: of the export.
        say: receives lines for the user.

    Returns:
        The model with its rows and answers.
    """
    checkpoint = trained.checkpoint
    reading, named = trained.sources(options)
    sources = Sources(None, None, None, named, frozenset())
    target = Target.of_model(checkpoint.labels, checkpoint.task.problem_type, str(checkpoint), asked_task(reading))
    tables = TableReader(reading, say, Trained.of(checkpoint.config)).tests(sources, replace(target, row=sources.row))
    length = trained_length(options.max_length, checkpoint.config, say)
    subject = Subject(model, checkpoint.tokenizer, replace(target, row=sources.row), tables, length)
    subject.reference = subject.answer()
    subject.original = subject.reference
    return subject
