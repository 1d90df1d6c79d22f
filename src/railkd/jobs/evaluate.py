"""Scores a finished model on labelled files."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from railkd.data.predictions import write_answers
from railkd.data.reader import TEXT_COLUMNS, Table
from railkd.jobs.options import EvaluateOptions, Say, required
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.scorer import Scorer
from railkd.jobs.splits import Sources, TableReader, asked_task, digests
from railkd.jobs.thresholds import Thresholds
from railkd.jobs.trained import Trained, trained_length
from railkd.models.limits import truncation_line
from railkd.records import RunRecord
from railkd.runtime import hardware, ranks
from railkd.runtime.files import write_json
from railkd.runtime.progress import bar
from railkd.tasks.by_class import confusion, scores_by_class
from railkd.tasks.comparison import compare
from railkd.tasks.judging import Finding
from railkd.tasks.target import Target


def score(
    record: RunRecord,
    target: Target,
    name: str,
    table: Table,
    outputs: np.ndarray,
    *,
    keep: RunFolder | None,
    texts: bool,
) -> None:
    """Write the metrics of a labelled table into a record, and the predictions of its rows into a folder.

    Args:
        record: receives the metrics; its labels are known.
        target: task and classes of the model.
        name: name of the table.
        table: N rows with labels.
        outputs: (N, C), in the order of the table.
        keep: folder that receives the predictions; None keeps none.
        texts: True writes the texts beside the predictions.
    """
    scores = target.score(table, outputs)
    record.metrics[name], record.domains[name] = scores, table.domain
    record.baselines[name] = compare(target, table, outputs, scores)
    scored = target.scored(table, outputs)
    if classes := scores_by_class(scored):
        record.classes[name] = classes
    if pairs := confusion(scored):
        record.confusion[name] = pairs
    if gaps := target.describe_gaps(table):
        record.gaps[name] = gaps
    if keep is None:
        return
    file = keep.predictions(name)
    record.predictions[name] = file.relative_to(keep.path).as_posix()
    file.parent.mkdir(parents=True, exist_ok=True)
    keep.own(file)
    columns = [column for column in TEXT_COLUMNS if column in table.rows.column_names]
    rows = list(zip(*[table.rows[column][:] for column in columns], strict=True)) if texts else None
    write_answers(file, *target.answers(table, outputs), outputs, record.labels, rows)


def judge(outputs: np.ndarray, labels: np.ndarray, target: Target, table: Table, *, allowed: bool = False) -> Finding:
    """Judge whether a teacher knows more than the answer that needs no model.

    Args:
        outputs: (N, C), its answers.
        labels: (N,) of the same rows.
        target: task and classes of the teacher.
        table: where the rows come from.
        allowed: a weak teacher is only warned of.

    Returns:
        The finding.
    """
    names = target.space.names
    cells = {name: table.cells.spellings(name) for name in names} if table.cells else None
    return target.task.judge(outputs, labels, names, cells, allowed=allowed)


def evaluate(options: EvaluateOptions, say: Say, *, keep: Path | None = None) -> RunRecord:
    """Score a model on labelled files.

    Rows or labels that do not fit the model raise `railkd.errors.RailkdError`.

    Args:
        options: settings of ``railkd evaluate``.
        say: receives lines for the user.
        keep: folder that receives texts and predictions of every row; None keeps none.

    Returns:
        The record, with metrics of each file.
    """
    ranks.initialize()
    record = RunRecord("evaluate", None, 0, config=Request(options).as_dict())
    model = Scorer.find(required(options.model, "--model"), trust=options.trust_remote_code)
    checkpoint, sources = model.checkpoint, Sources.parse(options)
    required(list(sources.tests), "--test")
    target = Target.of_model(checkpoint.labels, checkpoint.task.problem_type, str(options.model), asked_task(options))
    target = replace(target, row=sources.row).asking(options.metrics)
    cut = Thresholds.asked(options.thresholds, model, str(options.model), say)
    target = target if cut is None else replace(target, task=cut.apply(target.task))
    tables = TableReader(options, say, Trained.of(checkpoint.config)).tests(sources, target)
    record.contents = {**digests({}, tables), "model": model.content()}
    tokenizer = model.load().checkpoint.tokenizer
    max_length = trained_length(options.max_length, checkpoint.config, say)
    record.labels = list(checkpoint.labels)
    folder = RunFolder(keep) if keep and ranks.is_main_process() else None
    fitted = {name: {"thresholds": cut.shown_on(name, table, say)} for name, table in tables.items()} if cut else {}
    with record.phase("evaluation"):
        for name, table in tables.items():
            say(f"{name}: {truncation_line(table.rows, tokenizer, max_length)}")
            with bar(f"evaluating {name}", "rows", quiet=options.quiet) as advance:
                outputs = model.logits(
                    table.rows, max_length=max_length, batch_size=options.batch_size, on_progress=advance
                )
            score(record, target, name, table, outputs, keep=folder, texts=True)
    record.sizes = model.sizes()
    if options.latency:
        _time(options, model, tables, max_length, say)
    record.peak_memory, record.machine = hardware.peak_memory(), hardware.machine()
    if options.output and ranks.is_main_process():
        write_json(options.output, {name: _plain(record, name) | fitted.get(name, {}) for name in record.metrics})
    return record


def _plain(record: RunRecord, name: str) -> dict[str, Any]:
    """Return the scores of one set as JSON holds them; what a set does not have is left out."""
    found: dict[str, Any] = {**record.metrics[name], "domain": record.domains[name]}
    if name in record.classes:
        found["classes"] = [asdict(one) for one in record.classes[name]]
    return found | {
        key: kept[name] for key, kept in (("confusion", record.confusion), ("gaps", record.gaps)) if name in kept
    }


def _time(options: EvaluateOptions, model: Scorer, tables: dict[str, Table], max_length: int, say: Say) -> None:
    """Time other models beside the one that is scored, and print the times."""
    from railkd.export.latency import measure

    names, texts = [str(options.model), *options.latency], []
    others = [Scorer.find(name, trust=options.trust_remote_code) for name in options.latency]
    sides = [one.side(name) for name, one in zip(names, (model, *others), strict=True)]
    for table in tables.values():
        columns = [table.rows[column][:] for column in TEXT_COLUMNS if column in table.rows.column_names]
        texts += list(zip(*columns, strict=True))
    say("latency on the CPU, interleaved, tokenisation left out:")
    for timing in measure(sides, texts, max_length):
        say(str(timing))
