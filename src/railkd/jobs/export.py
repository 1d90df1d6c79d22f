"""Exports a trained model: the plain folder, ONNX and int8 files that have passed their gates, and a record of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from railkd.data.reader import TEXT_COLUMNS, Table
from railkd.data.sources import SELECTION_SET, Source, parse_named
from railkd.data.tokens import full_lengths
from railkd.errors import RailkdError, RunFailed
from railkd.export import latency, quantize
from railkd.export.card import model_card
from railkd.export.example import write_example
from railkd.export.gate import Judgement, judge, pool, problems_of
from railkd.export.layout import Shipped
from railkd.export.onnx import write_onnx
from railkd.export.parity import Parity, compare
from railkd.export.session import OnnxModel
from railkd.jobs.options import Say
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.shipping_options import ExportOptions
from railkd.jobs.splits import Sources, TableReader, asked_task
from railkd.jobs.trained import Trained, trained_length
from railkd.models.checkpoints import Checkpoint
from railkd.models.inference import predict_logits
from railkd.models.quiet import quiet_transformers
from railkd.records import RunRecord
from railkd.runtime import hardware
from railkd.runtime.environment import versions
from railkd.runtime.files import temporary_beside, usual_permissions, write_json, write_text
from railkd.runtime.words import counted, duration, size
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
        reference: name -> (N, C) logits in PyTorch.
    """

    model: Any
    tokenizer: Any
    target: Target
    tables: dict[str, Table]
    max_length: int
    reference: dict[str, np.ndarray] = field(default_factory=dict)

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
        rows = np.unique(np.linspace(0, len(table) - 1, quantize.SAMPLE).astype(int))
        return table.rows.select(rows.tolist()), self.reference[name][rows]

    def outputs(self, file: Path) -> dict[str, np.ndarray]:
        """Return name -> (N, C) logits of an ONNX file."""
        model = OnnxModel(file)
        return {name: model.logits(table.rows, max_length=self.max_length) for name, table in self.tables.items()}


def export(options: ExportOptions, say: Say) -> dict[str, Any]:
    """Export a trained model. The output folder is complete, or absent if a gate fails.

    Args:
        options: settings of ``railkd export``.
        say: receives lines for the user.

    Returns:
        The record of the export, as ``export.json`` holds it. A gate that fails raises `railkd.errors.RunFailed`.
    """
    start, output = time.perf_counter(), Path(str(options.output))
    trained = Finished.find(str(options.model), trust=options.trust_remote_code)
    fresh = Shipped(temporary_beside(output))
    fresh.path.mkdir(parents=True)
    try:
        record = _write(trained, options, fresh, say)
        record["seconds"]["all"] = round(time.perf_counter() - start, 2)
        write_json(fresh.record, record)
        if output.exists():
            shutil.rmtree(output)
        fresh.path.rename(output)
    finally:
        shutil.rmtree(fresh.path, ignore_errors=True)
    say(f"written: {output}, in {duration(record['seconds']['all'])}")
    return record


def _write(trained: Finished, options: ExportOptions, fresh: Shipped, say: Say) -> dict[str, Any]:
    """Write every file but the record, which is returned."""
    checkpoint = trained.checkpoint
    model, tokenizer = checkpoint.model(), checkpoint.tokenizer
    seconds: dict[str, float] = {}
    with quiet_transformers(), usual_permissions(fresh.path):
        model.save_pretrained(fresh.path)
        tokenizer.save_pretrained(fresh.path)
    record: dict[str, Any] = {"config": Request(options).as_dict(), "seconds": seconds}
    if options.onnx or options.int8:
        subject = _subject(trained, model, options, say)
        fresh.onnx.parent.mkdir()
        record["onnx"] = _timed(seconds, "onnx", lambda: _onnx(subject, fresh, say))
        if options.int8:
            record["int8"] = _timed(seconds, "int8", lambda: _int8(subject, fresh, options, say))
        record["latency"] = _timed(seconds, "latency", lambda: _latency(trained, subject, fresh, say))
        write_example(fresh, subject.max_length)
    files = {file.relative_to(fresh.path).as_posix(): file.stat().st_size for file in fresh.path.rglob("*.onnx")}
    files |= {file.name: file.stat().st_size for file in fresh.path.glob("*.safetensors")}
    say("sizes: " + ", ".join(f"{name} {size(count)}" for name, count in sorted(files.items())))
    record |= {"bytes": files, "machine": hardware.machine(), "versions": versions()}
    write_text(fresh.card, model_card(trained.record, model.config, record))
    return record


def _latency(trained: Finished, subject: Subject, fresh: Shipped, say: Say) -> dict[str, Any]:
    """Time the teacher, the model and its files side by side; without a teacher, the model is the measure."""
    teacher = trained.teacher()
    sides = [latency.Side.of_model("teacher, PyTorch", teacher.model(), teacher.tokenizer)] if teacher else []
    sides.append(latency.Side.of_model("model, PyTorch", subject.model, subject.tokenizer))
    for name, file in (("model, ONNX", fresh.onnx), ("model, int8", fresh.int8)):
        if file.is_file():
            sides.append(latency.Side.of_onnx(name, file))
    found = latency.as_record(latency.measure(sides, subject.texts, subject.max_length))
    for line in (f"latency, {counted(found['threads'], 'thread')}, tokenisation left out:", *found["lines"]):
        say(line)
    return found


def _timed(seconds: dict[str, float], name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    start = time.perf_counter()
    found = work()
    seconds[name] = round(time.perf_counter() - start, 2)
    return found


def _subject(trained: Finished, model: Any, options: ExportOptions, say: Say) -> Subject:
    checkpoint = trained.checkpoint
    reading, named = trained.sources(options)
    sources = Sources(None, None, None, named, frozenset())
    target = Target.of_model(checkpoint.labels, checkpoint.task.problem_type, str(checkpoint), asked_task(reading))
    tables = TableReader(reading, say, Trained.of(checkpoint.config)).tests(sources, replace(target, row=sources.row))
    length = trained_length(options.max_length, checkpoint.config, say)
    subject = Subject(model, checkpoint.tokenizer, replace(target, row=sources.row), tables, length)
    for name, table in tables.items():
        subject.reference[name] = predict_logits(model, checkpoint.tokenizer, table.rows, max_length=length)
    return subject


def _onnx(subject: Subject, fresh: Shipped, say: Say) -> dict[str, Any]:
    """Write the float32 file, and compare it with the model in PyTorch."""
    write_onnx(subject.model, subject.tokenizer, subject.example(), fresh.onnx)
    parity = _parity(subject, subject.outputs(fresh.onnx))
    say(f"onnx: {parity}")
    if not parity.holds:
        raise RunFailed(
            f"onnx: the file differs from the model in PyTorch: {parity}, allowed {parity.allowed:.1e}. Nothing was "
            "written. Fix: please report this, with the kind of the model"
        )
    return {"parity": asdict(parity)}


def _parity(subject: Subject, outputs: dict[str, np.ndarray]) -> Parity:
    reference = np.concatenate([subject.reference[name] for name in subject.tables])
    return compare(reference, np.concatenate([outputs[name] for name in subject.tables]), subject.target.task)


def _int8(subject: Subject, fresh: Shipped, options: ExportOptions, say: Say) -> dict[str, Any]:
    """Write the int8 file, and judge its answers. What fails its gate is written again with more of it in float32."""
    rows, reference = subject.sample()
    margins, how = (options.max_drop / 100, options.max_class_drop / 100), {"max_length": subject.max_length}
    embeddings, count = True, 0
    order: list[str] | None = None
    while True:
        left_out = (order or [])[:count]
        made = quantize.write_int8(
            fresh.onnx, fresh.int8, rows, reference, embeddings=embeddings, left_out=left_out, **how
        )
        outputs = subject.outputs(fresh.int8)
        judged = [
            judge(subject.target, name, table, (subject.reference[name], outputs[name]), margins)
            for name, table in subject.tables.items()
        ]
        problems = problems_of(judged, margins)
        if problems and embeddings:
            embeddings = False
            say(f"int8: {problems[0]}; next, embeddings stay in float32")
            continue
        if not problems or not options.per_op:
            break
        order = order or quantize.by_sensitivity(fresh.onnx, fresh.int8, rows, reference, **how)
        if count >= len(order) - 1:
            break
        count = min(max(1, 2 * count), len(order) - 1)
        say(f"int8: {problems[0]}; next, {counted(count, 'operator')} stay in float32: {', '.join(order[:count])}")
    return _judged(subject, fresh, made, judged, outputs, problems, say)


def _judged(
    subject: Subject,
    fresh: Shipped,
    made: quantize.Quantisation,
    judged: list[Judgement],
    outputs: dict[str, np.ndarray],
    problems: list[str],
    say: Say,
) -> dict[str, Any]:
    parity = _parity(subject, outputs)
    way = "per channel" if made.per_channel else "per tensor"
    say(f"int8: {counted(made.integer, 'integer product')}, {way}; {parity}")
    margins = (judged[0].lines[0].margin, judged[0].lines[-1].margin)
    whole = pool(judged, margins)
    for one in [*([whole] if whole else []), *judged]:
        for line in one.lines:
            say(f"int8, {one.name}, {line}")
    if problems:
        raise RunFailed(
            f"int8: the quality gate fails: {'; '.join(problems[:4])}. Nothing was written. Fix: give --per-op, more "
            "rows by --eval, or a larger --max-drop or --max-class-drop"
        )
    found = {
        "quantisation": asdict(made),
        "parity": asdict(parity),
        "gates": [one.as_dict() | {"flips": len(one.flips)} for one in judged],
        "together": whole.as_dict() if whole else None,
    }
    kinds = [*quantize.KINDS, *([quantize.LOOKUP] if made.embeddings else [])]
    config = {"op_types": kinds, "machine": hardware.machine(), "versions": versions()}
    write_json(fresh.quantize_config, config | found)
    return found
