"""Exports a trained model: the plain folder, ONNX and int8 files that have passed their gates, and a record of them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from railkd.errors import RailkdError, RunFailed
from railkd.export import latency, quantize, side_by_side
from railkd.export.card import model_card
from railkd.export.example import write_example
from railkd.export.gate import Judgement, pool, problems_of
from railkd.export.layout import Shipped, onnx_parts
from railkd.export.onnx import write_onnx
from railkd.export.parity import compare
from railkd.export.push import push
from railkd.export.vocabulary import trim, write_tokenizer
from railkd.jobs.options import Say
from railkd.jobs.request import Request
from railkd.jobs.scorer import Scorer
from railkd.jobs.shipping import Finished, Subject, read_subject
from railkd.jobs.shipping_options import ExportOptions
from railkd.jobs.thresholds import FILE, Thresholds
from railkd.jobs.trained import trained_length
from railkd.jobs.trimming import judge_trimming, plan_trimming
from railkd.models.checkpoints import Checkpoint
from railkd.models.quiet import quiet_transformers
from railkd.runtime import hardware
from railkd.runtime.environment import versions
from railkd.runtime.files import temporary_beside, usual_permissions, write_json, write_text
from railkd.runtime.words import counted, duration, size

Result = TypeVar("Result")
#: Name and path of an exported file -> its (n, C) logits for the rows of `Subject.spread`.
Answers = dict[tuple[str, Path], np.ndarray]


def export(options: ExportOptions, say: Say) -> dict[str, Any]:
    """Export a trained model. The output folder is complete, or absent if a gate fails.

    Args:
        options: settings of ``railkd export``.
        say: receives lines for the user.

    Returns:
        The record of the export, as ``export.json`` holds it. A gate that fails raises `railkd.errors.RunFailed`.

    Raises:
        RailkdError: a file that railkd did not write came into the output folder meanwhile.
    """
    start, output = time.perf_counter(), Path(str(options.output))
    trained = Finished.find(str(options.model), trust=options.trust_remote_code)
    if options.vocabulary:
        trained.training_rows()  # before the work: it refuses a model without any
    fresh = Shipped(temporary_beside(output))
    fresh.path.mkdir(parents=True)
    try:
        record = _write(trained, options, fresh, say)
        record["seconds"]["all"] = round(time.perf_counter() - start, 2)
        write_json(fresh.record, record)
        fresh.finish()
        for path in Shipped(output).foreign()[:1]:  # it came while the export ran
            raise RailkdError(f"--output: '{path}' was not written by railkd export. Fix: move it elsewhere")
        if output.exists():
            shutil.rmtree(output)
        fresh.path.rename(output)
    finally:
        shutil.rmtree(fresh.path, ignore_errors=True)
    if options.push:
        say(f"pushed: {push(output, options.push, private=options.private)}")
    say(f"written: {output}, in {duration(record['seconds']['all'])}")
    return record


def _write(trained: Finished, options: ExportOptions, fresh: Shipped, say: Say) -> dict[str, Any]:
    """Write every file but the record, which is returned."""
    checkpoint = trained.checkpoint
    model, tokenizer = checkpoint.model(), checkpoint.tokenizer
    seconds: dict[str, float] = {}
    record: dict[str, Any] = {"kind": "railkd export 1", "config": Request(options).as_dict(), "seconds": seconds}
    asked = options.onnx or options.int8 or options.vocabulary
    subject = read_subject(trained, model, options, say) if asked else None
    trimming = None
    if subject is not None and options.vocabulary:
        trimming = plan_trimming(trained, subject, options, say)
        model = trim(model, trimming)
    with quiet_transformers(), usual_permissions(fresh.path):
        model.save_pretrained(fresh.path)
        tokenizer.save_pretrained(fresh.path)
        _name_tokenizer(fresh.tokenizer_config)
    record |= _thresholds(checkpoint, fresh, say, trimmed=trimming is not None)
    if subject is not None and trimming is not None:
        write_tokenizer(trimming, fresh.path)
        subject, record["vocabulary"] = judge_trimming(subject, trimming, fresh, options, say)
    if subject is not None and (options.onnx or options.int8):
        record |= _write_onnx(trained, subject, options, fresh, seconds, say)
    parts = [part for file in fresh.path.rglob("*.onnx") for part in onnx_parts(file)]
    files = {file.relative_to(fresh.path).as_posix(): file.stat().st_size for file in parts}
    files |= {file.name: file.stat().st_size for file in fresh.path.glob("*.safetensors")}
    say("sizes: " + ", ".join(f"{name} {size(count)}" for name, count in sorted(files.items())))
    say("time: " + ", ".join(f"{name} {duration(spent)}" for name, spent in seconds.items()))
    record |= {"bytes": files, "machine": hardware.machine(), "versions": versions()}
    write_text(fresh.card, model_card(trained.record, model.config, record))
    return record


def _name_tokenizer(file: Path) -> None:
    """Give the class of a tokenizer without one of its own the name that transformers 4 knows too."""
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if config.get("tokenizer_class") == "TokenizersBackend":
        write_json(file, config | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _thresholds(checkpoint: Checkpoint, fresh: Shipped, say: Say, *, trimmed: bool) -> dict[str, Any]:
    """Ship the thresholds that lie beside a model, or say why not. Return their part of the record."""
    file = checkpoint.folder / FILE
    if not file.is_file():
        return {}
    try:
        found = Thresholds.read(file)
    except RailkdError as error:
        say(f"warning: {FILE} is left out: {error}")
        return {}
    if trimmed or found.model != Scorer(checkpoint).content():
        reason = "it has a smaller vocabulary" if trimmed else "they were fitted for another model"
        say(f"warning: {FILE} is left out: {reason}. Fix: run railkd calibrate on the exported folder")
        return {}
    model = Scorer.find(fresh.path, trust=checkpoint.trusted).content()  # its config names another transformers
    write_json(fresh.thresholds, asdict(replace(found, model=model)))
    say(f"{FILE}: thresholds for {found.goal}, fitted on {found.fitted_on}")
    return {"thresholds": {"goal": found.goal, "fitted_on": asdict(found.fitted_on)}}


def _write_onnx(
    trained: Finished, subject: Subject, options: ExportOptions, fresh: Shipped, seconds: dict[str, float], say: Say
) -> dict[str, Any]:
    """Write the ONNX files and the example. Return their part of the record, and add to its seconds."""
    found: dict[str, Any] = {}
    fresh.onnx.parent.mkdir()
    if options.int8:  # its gate needs every row; the float32 file is compared on some of them
        _timed(seconds, "model", lambda: subject.reference)
    found["onnx"], answers = _timed(seconds, "onnx", lambda: _onnx(subject, fresh, say))
    answered: Answers = {("ONNX", fresh.onnx): answers}
    if options.int8:
        found["int8"], answers = _timed(seconds, "int8", lambda: _int8(subject, fresh, options, say))
        answered["int8", fresh.int8] = answers[subject.spread]
    found["latency"] = _timed(seconds, "latency", lambda: _latency(trained, subject, answered, options, say))
    if fresh.thresholds.is_file():
        found["by_thresholds"] = _by_thresholds(subject, fresh, answered, say)
    write_example(fresh, subject.max_length, several=subject.target.task.several)
    return found


def _by_thresholds(subject: Subject, fresh: Shipped, answered: Answers, say: Say) -> dict[str, Any]:
    """Count the rows that a file answers otherwise than the model, both by the thresholds of the model."""
    task, known = Thresholds.read(fresh.thresholds).apply(subject.target.task), subject.sample[1]
    flips = {name: compare(known, outputs, task).flips for (name, _), outputs in answered.items()}
    counts = ", ".join(f"{count:,} verdicts of {name}" for name, count in flips.items())
    say(f"{FILE}: {counts} differ from those of the model, on {len(known):,} rows")
    return {"rows": len(known), "flips": flips}


def _latency(
    trained: Finished, subject: Subject, answered: Answers, options: ExportOptions, say: Say
) -> dict[str, Any]:
    """Time the teacher, the model and its files side by side; without a teacher, the model is the measure."""
    sides = [latency.Side.of_model("model, PyTorch", subject.model, subject.tokenizer)]
    sides += [latency.Side.of_onnx(f"model, {name}", file) for name, file in answered]
    lengths = [subject.max_length] * len(sides)
    teacher = None
    if checkpoint := trained.teacher():
        model, length = checkpoint.model(), trained_length(options.max_length, checkpoint.config, say)
        teacher = checkpoint, subject.answers_of(model, checkpoint.tokenizer, length)
        sides.insert(0, latency.Side.of_model("teacher, PyTorch", model, checkpoint.tokenizer))
        lengths.insert(0, length)
    timings = latency.measure(sides, subject.texts(subject.spread), lengths)
    found = side_by_side.as_record(timings, subject.qualities(list(answered.values()), teacher))
    for line in side_by_side.lines(found):
        say(line)
    return found


def _timed(seconds: dict[str, float], name: str, work: Callable[[], Result]) -> Result:
    start = time.perf_counter()
    found = work()
    seconds[name] = round(time.perf_counter() - start, 2)
    return found


def _onnx(subject: Subject, fresh: Shipped, say: Say) -> tuple[dict[str, Any], np.ndarray]:
    """Write the float32 file, and compare it with the model in PyTorch. Return its record and its (n, C) logits."""
    write_onnx(subject.model, subject.tokenizer, subject.example(), fresh.onnx)
    rows, reference = subject.sample
    outputs = subject.outputs(fresh.onnx, rows)
    parity = compare(reference, outputs, subject.target.task)
    say(f"onnx: {parity}, of all lengths")
    if not parity.holds:
        raise RunFailed(
            f"onnx: the file differs from the model in PyTorch: {parity}, allowed {parity.allowed:.1e}. Nothing was "
            "written. Fix: please report this, with the kind of the model"
        )
    return {"parity": asdict(parity)}, outputs


class _Tried(NamedTuple):
    """An int8 file, its (N, C) logits, and what keeps it from passing."""

    made: quantize.Quantisation
    outputs: np.ndarray
    judged: list[Judgement]
    problems: list[str]


def _int8(subject: Subject, fresh: Shipped, options: ExportOptions, say: Say) -> tuple[dict[str, Any], np.ndarray]:
    """Write the int8 file, and judge its (N, C) logits. What fails its gate is written again with more in float32."""
    some = subject.spread_of(quantize.SAMPLE)
    rows, reference = subject.tokens.select(some), subject.reference[some]
    margins, how = (options.max_drop / 100, options.max_class_drop / 100), {"max_length": subject.max_length}

    def tried(*left_out: str, embeddings: bool) -> _Tried:
        made = quantize.write_int8(
            fresh.onnx, fresh.int8, rows, reference, embeddings=embeddings, left_out=left_out, **how
        )
        outputs = subject.outputs(fresh.int8)
        judged = subject.judge(outputs, margins)
        return _Tried(made, outputs, judged, problems_of(judged, margins))

    found = tried(embeddings=True)
    if found.problems:
        say(f"int8: {found.problems[0]}; next, embeddings stay in float32")
        found = tried(embeddings=False)
    if found.problems and options.per_op:
        order, count = quantize.by_sensitivity(fresh.onnx, fresh.int8, rows, reference, **how), 0
        while found.problems and count < len(order) - 1:
            count = min(max(1, 2 * count), len(order) - 1)
            more = f"{counted(count, 'operator')} stay in float32: {', '.join(order[:count])}"
            say(f"int8: {found.problems[0]}; next, {more}")
            found = tried(*order[:count], embeddings=False)
        if not found.problems:  # embeddings are most of the bytes, and seldom the reason
            say("int8: passes; next, embeddings have 8 bits again")
            smaller = tried(*order[:count], embeddings=True)
            found = tried(*order[:count], embeddings=False) if smaller.problems else smaller
    return _judged(subject, fresh, found, options, say), found.outputs


def _judged(subject: Subject, fresh: Shipped, tried: _Tried, options: ExportOptions, say: Say) -> dict[str, Any]:
    made, outputs, judged, problems = tried
    parity = compare(subject.reference, outputs, subject.target.task)
    way = "per channel" if made.per_channel else "per tensor"
    say(f"int8: {counted(made.integer, 'integer product')}, {way}; {parity}")
    whole = pool(judged, (options.max_drop / 100, options.max_class_drop / 100))
    for one in [*([whole] if whole else []), *judged]:
        for line in one.lines:
            say(f"int8, {one.name}, {line}")
    if problems:
        raise RunFailed(
            f"int8: the quality gate fails: {'; '.join(problems[:4])}. Nothing was written. Fix: give "
            f"{'' if options.per_op else '--per-op, '}more rows by --eval, or a larger --max-drop or --max-class-drop"
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
