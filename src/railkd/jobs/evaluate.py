"""Scores a finished model on labelled files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from railkd.data.predictions import write_answers
from railkd.data.reader import TEXT_COLUMNS, Table
from railkd.export import side_by_side
from railkd.export.latency import measure
from railkd.export.side_by_side import Answered
from railkd.jobs.options import EvaluateOptions, Say, required
from railkd.jobs.request import Request, on_its_device
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.scorer import MeanScorer, Scorer
from railkd.jobs.splits import Sources, TableReader, asked_task, digests
from railkd.jobs.thresholds import Thresholds
from railkd.jobs.trained import Trained, trained_length
from railkd.models.limits import truncation_line
from railkd.models.named_teachers import as_list
from railkd.records import RunRecord
from railkd.runtime import hardware, ranks
from railkd.runtime.files import write_json
from railkd.runtime.progress import bar
from railkd.runtime.words import listed
from railkd.tasks.by_class import confusion, scores_by_class
from railkd.tasks.comparison import compare
from railkd.tasks.judging import Finding
from railkd.tasks.target import Target

#: Key of the table of several models in the file of scores. No set has a name with spaces.
SIDE_BY_SIDE = "side by side"


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
    own = target.own_scores(table, outputs)
    scores = target.score(table, outputs) | own.values
    record.metrics[name], record.domains[name] = scores, table.domain
    record.higher_is_better |= own.higher
    record.baselines[name] = compare(target, table, outputs, scores)
    scored = target.scored(table, outputs)
    if classes := scores_by_class(scored):
        record.classes[name] = classes
    if pairs := confusion(scored):
        record.confusion[name] = pairs
    if gaps := target.describe_gaps(table) | own.failures:
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


@on_its_device
def evaluate(options: EvaluateOptions, say: Say, *, keep: Path | None = None, show: Say | None = None) -> RunRecord:
    """Score a model on labelled files.

    Rows or labels that do not fit the model raise `railkd.errors.RailkdError`.

    Args:
        options: settings of ``railkd evaluate``.
        say: receives lines for the user.
        keep: folder that receives texts and predictions of every row; None keeps none.
        show: receives the lines of the table of several models; None: ``say`` does.

    Returns:
        The record, with metrics of each file.
    """
    ranks.initialize()
    record = RunRecord("evaluate", None, 0, config=Request(options).as_dict())
    model = _find(options, say)
    named = listed(as_list(options.model))
    checkpoint, sources = model.checkpoint, Sources.parse(options)
    required(list(sources.tests), "--test")
    target = target_of(model, named, options, sources)
    cut = Thresholds.asked(options.thresholds, model, named, say)
    target = target if cut is None else replace(target, task=cut.apply(target.task))
    tables = TableReader(options, say, Trained.of(checkpoint.config)).tests(sources, target)
    target.try_own(tables)
    record.contents = {**digests({}, tables), **target.own_contents(), "model": model.content()}
    tokenizer = model.load().checkpoint.tokenizer
    max_length = trained_length(options.max_length, checkpoint.config, say)
    record.labels = list(checkpoint.labels)
    folder = RunFolder(keep) if keep and ranks.is_main_process() else None
    fitted = {name: {"thresholds": cut.shown_on(name, table, say)} for name, table in tables.items()} if cut else {}
    with record.phase("evaluation"):
        for name, table in tables.items():
            say(f"{name}: {truncation_line(table.rows, tokenizer, max_length)}")
        answered = answer(model, target, tables, max_length, options)
        for name, table in tables.items():
            score(record, target, name, table, answered.outputs[name], keep=folder, texts=True)
    record.sizes = model.sizes()
    found = compare_models(options, model, answered, sources, say) if options.latency or options.teacher else None
    record.peak_memory, record.machine = hardware.peak_memory(), hardware.machine()
    for line in side_by_side.lines(found) if found else ():
        (show or say)(line)
    if options.output and ranks.is_main_process():
        plain = {name: _plain(record, name) | fitted.get(name, {}) for name in record.metrics}
        write_json(options.output, plain | ({SIDE_BY_SIDE: found} if found else {}))
    return record


def _find(options: EvaluateOptions, say: Say) -> Scorer:
    """Return the model to score, or the mean of several."""
    names = as_list(required(options.model, "--model"))
    if len(names) == 1:
        return Scorer.find(names[0], trust=options.trust_remote_code)
    trust, length = options.trust_remote_code, options.max_length
    found = MeanScorer(names, options.model_weights, max_length=length, trust=trust)
    say(found.described)
    return found


def _plain(record: RunRecord, name: str) -> dict[str, Any]:
    """Return the scores of one set as JSON holds them; what a set does not have is left out."""
    found: dict[str, Any] = {**record.metrics[name], "domain": record.domains[name]}
    if name in record.classes:
        found["classes"] = [asdict(one) for one in record.classes[name]]
    if own := {metric: up for metric, up in record.higher_is_better.items() if metric in record.metrics[name]}:
        found["higher_is_better"] = own
    return found | {
        key: kept[name] for key, kept in (("confusion", record.confusion), ("gaps", record.gaps)) if name in kept
    }


def target_of(model: Scorer, name: str, options: EvaluateOptions, sources: Sources) -> Target:
    """Return task and classes of a model.

    Args:
        model: the model.
        name: as the user gave it, for messages.
        options: may name the kind of task.
        sources: the known data set whose metrics count.
    """
    checkpoint = model.checkpoint
    target = Target.of_model(checkpoint.labels, checkpoint.task.problem_type, name, asked_task(options))
    return replace(target, row=sources.row).asking(options.metrics)


def answer(
    model: Scorer, target: Target, tables: Mapping[str, Table], max_length: int, options: EvaluateOptions
) -> Answered:
    """Return the answers of a model to labelled tables.

    Args:
        model: the model.
        target: its task and classes.
        tables: with labels in the order of these classes.
        max_length: in tokens.
        options: rows of a batch, and whether to show progress.
    """
    outputs = {}
    for name, table in tables.items():
        with bar(f"evaluating {name}", "rows", quiet=options.quiet) as advance:
            outputs[name] = model.logits(
                table.rows, max_length=max_length, batch_size=options.batch_size, on_progress=advance
            )
    return Answered(target, tables, outputs)


def compare_models(
    options: EvaluateOptions, model: Scorer, answered: Answered, sources: Sources, say: Say
) -> dict[str, Any]:
    """Score and time other models beside the one that is scored.

    Args:
        options: name the teacher, which comes first, and the other models.
        model: the scored one.
        answered: its answers.
        sources: of the rows.
        say: receives lines for the user.

    Returns:
        The table, as `railkd.export.side_by_side.as_record` has it.
    """
    names = [str(name) for name in (options.teacher, options.model, *options.latency) if name]
    models, answers = {str(options.model): model}, {str(options.model): answered}
    for name in dict.fromkeys(names):
        if name not in models:
            models[name] = Scorer.find(name, trust=options.trust_remote_code).load()
            target = target_of(models[name], name, options, sources)
            tables = {key: target.label(table) for key, table in answered.tables.items()}
            length = trained_length(options.max_length, models[name].checkpoint.config, say)
            answers[name] = answer(models[name], target, tables, length, options)
    ordered = list(dict.fromkeys(names))
    lengths = [
        trained_length(options.max_length, models[name].checkpoint.config, lambda line: None) for name in ordered
    ]
    teacher = answers[options.teacher] if options.teacher else None
    qualities = [answers[name].quality(teacher) for name in ordered]
    texts: list[tuple[str, ...]] = []
    for table in answered.tables.values():
        columns = [table.rows[column][:] for column in TEXT_COLUMNS if column in table.rows.column_names]
        texts += zip(*columns, strict=True)
    timings = measure([models[name].side(name) for name in ordered], texts, lengths)
    return side_by_side.as_record(timings, qualities)
