"""Certifies that one model is no worse than another by more than a margin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from railkd.data.columns import find_columns
from railkd.data.predictions import write_predictions
from railkd.data.reader import Table
from railkd.data.tokens import full_lengths
from railkd.errors import RailkdError
from railkd.export.gate import UNDECIDED, Judgement, judge, pool, problems_of
from railkd.jobs.answer_file import AnswerFile
from railkd.jobs.options import Say
from railkd.jobs.request import Request, on_its_device
from railkd.jobs.scorer import Scorer
from railkd.jobs.shipping_options import CertifyOptions
from railkd.jobs.splits import Sources, TableReader, asked_task
from railkd.jobs.trained import Trained, trained_length
from railkd.jobs.validation import is_answer_file
from railkd.runtime.environment import versions
from railkd.runtime.files import write_json
from railkd.runtime.words import counted, listed
from railkd.tasks import Task
from railkd.tasks.target import Target

_METHOD = (
    "One-sided 95 % bounds: Tango's score method for shares of rows, the percentile bootstrap for other scores. The "
    "comparison overall must pass and no line may fail, each tested at 5 %; groups with too few rows are not decided. "
    "To quote one line alone, use p_holm, adjusted for the lines of its set."
)
#: Ranges of text length that are judged apart: thirds of the rows.
BANDS = 3


@dataclass(frozen=True)
class Certificate:
    """The outcome of a comparison.

    Attributes:
        passes: the candidate is no worse by more than the margins.
        verdict: the outcome in a sentence.
        details: a line for each comparison, and for rows with another verdict.
    """

    passes: bool
    verdict: str
    details: tuple[str, ...]


@on_its_device
def certify(options: CertifyOptions, say: Say) -> Certificate:
    """Compare a candidate with a reference on labelled rows.

    Models or files with other classes, and files that lack rows, raise `railkd.errors.RailkdError`.

    Args:
        options: settings of ``railkd certify``.
        say: receives lines for the user.

    Returns:
        The certificate.
    """
    sources, margins = Sources.parse(options), (options.margin / 100, options.class_margin / 100)
    names = (str(options.against), str(options.model))
    models = [None if is_answer_file(name) else Scorer.find(name, trust=options.trust_remote_code) for name in names]
    known = next((model.checkpoint.config for model in models if model is not None), None)
    reader = TableReader(options, say, Trained.of(known) if known is not None else None)
    sides = _sides(names, models, options, sources, say)
    target = replace(sides[0].target, row=sources.row)
    tables = reader.tests(sources, target)
    for model in models:
        if model is not None:
            model.load()
    reference, candidate = models
    one_model = reference is not None and candidate is not None and reference.is_the_model_of(candidate)
    judged = []
    for name, table in tables.items():
        (ours, said), (theirs, answered) = (side.answer(table) for side in sides)
        one_model = one_model and np.array_equal(ours, theirs)
        groups, given = _bands(reference or candidate, table), (said, answered)
        judged.append(judge(target, name, table, (ours, theirs), margins, groups=groups, given=given))
    found = _conclude(judged, margins, options, one_model=one_model)
    if options.flipped:
        write_predictions(options.flipped, _flipped(judged), quoted=None)
        say(f"written: {options.flipped}")
    return found


@dataclass(frozen=True)
class _Side:
    """A model or a file of predictions.

    Attributes:
        target: its task and classes.
        answer: returns the (N, C) outputs for a labelled table, and N encoded answers; None: those of the outputs.
    """

    target: Target
    answer: Callable[[Table], tuple[np.ndarray, np.ndarray | None]]


def _sides(
    names: Sequence[str], models: Sequence[Scorer | None], options: CertifyOptions, sources: Sources, say: Say
) -> list[_Side]:
    """Return reference and candidate. The classes of a file are put in the order of the other side."""
    files = _of_one_kind(names, models, asked_task(options))
    known = [(name, model.checkpoint.labels) for name, model in zip(names, models, strict=True) if model]
    if any(file.bare for file in files if file):
        task = next(file.task for file in files if file)
        every = {label for _, labels in known for label in labels} or _classes_in(sources, options, task)
        every |= {label for file in files if file for label in file.labels}
        files = [file.again(more=sorted(every)) if file and file.bare else file for file in files]
    other, labels = next(iter(known), None) or next((file.name, file.labels) for file in files if file)
    found = []
    for name, model, file in zip(names, models, files, strict=True):
        if model:
            classes, kind = model.checkpoint.labels, model.checkpoint.task.problem_type
            target = Target.of_model(classes, kind, name, asked_task(options))
            found.append(_Side(target, partial(_logits, model, options, say)))
        elif file:
            target = Target.of_model(labels or ("value",), file.task.problem_type, name)
            found.append(_Side(target, file.ordered(labels, other).match))
    first, second = (side.target for side in found)
    if first.space.names != second.space.names or first.task is not second.task:
        ours, theirs = (listed(target.space.names, 20) or "a number" for target in (first, second))
        raise RailkdError(
            f"Expected two models with the same classes in the same order, got {ours} and {theirs}. Fix: compare "
            "models of one task."
        )
    return found


def _of_one_kind(names: Sequence[str], models: Sequence[Scorer | None], asked: Task | None) -> list[AnswerFile | None]:
    """Return the files among both sides. One whose columns fit several kinds of task is of the kind of the other."""
    files = [None if model else AnswerFile.read(name, asked) for name, model in zip(names, models, strict=True)]
    if asked is not None:
        return files
    kinds = [(file.settled, file.task.several or file.task.width == 1, file.task) for file in files if file]
    kinds += [(True, True, model.checkpoint.task) for model in models if model]
    task = max(kinds, key=lambda kind: kind[:2])[2]
    return [file.again(task) if file and not file.settled and file.task is not task else file for file in files]


def _classes_in(sources: Sources, options: CertifyOptions, task: Task) -> set[str]:
    """Return the classes that the labelled rows name."""
    reader, found = TableReader(options, lambda line: None), set()
    target = Target.of_model(("value",), task.problem_type, "")
    for source in sources.tests.values():
        cells = reader.read(source, split=source.scored_split).cells
        found |= {cells.label_map.get(name, name) for name in target.written(cells)} if cells else set()
    return found


def _logits(model: Scorer, options: CertifyOptions, say: Say, table: Table) -> tuple[np.ndarray, None]:
    length = trained_length(options.max_length, model.checkpoint.config, say)
    return model.logits(table.rows, max_length=length, batch_size=options.batch_size), None


def _bands(model: Scorer | None, table: Table) -> dict[str, np.ndarray]:
    """Return range of lengths -> (N,) bool, for thirds of the rows by their tokens, or words if there is no model."""
    columns = find_columns(table.rows.column_names).text
    texts = list(zip(*[table.rows[name][:] for name in columns], strict=True))
    if model is None:
        unit, lengths = "words", np.array([sum(len(text.split()) for text in row) for row in texts])
    else:
        unit, lengths = "tokens", full_lengths(model.checkpoint.tokenizer, texts)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BANDS + 1), method="lower"))
    if len(edges) < 3:
        return {}
    found, low = {}, int(edges[0])
    for high in map(int, edges[1:]):
        found[f"length {low} to {high} {unit}"] = (lengths >= low) & (lengths <= high)
        low = high + 1
    return found


def _flipped(judged: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Return the rows whose verdict differs as a table, most confident first."""
    flips = [(one.name, flip) for one in judged for flip in one.flips]
    flips.sort(key=lambda pair: -max(pair[1].confidence))
    return [
        {
            "set": name,
            "index": flip.index,
            "gold": flip.gold,
            "reference": flip.reference,
            "reference_confidence": flip.confidence[0],
            "candidate": flip.candidate,
            "candidate_confidence": flip.confidence[1],
            "text": flip.text,
        }
        for name, flip in flips
    ]


def _conclude(
    judged: list[Judgement], margins: tuple[float, float], options: CertifyOptions, *, one_model: bool
) -> Certificate:
    """Return the outcome, and write the evidence."""
    whole = pool(judged, margins)
    deciding = [whole] if whole else judged
    shown = [*([whole] if whole else []), *judged]
    passes = one_model or not problems_of(judged, margins)
    lines = [f"{one.name}, {line}" for one in shown for line in one.lines]
    if one_model:
        lines.append("both names are one model: nothing is lost, whatever the number of rows")
    else:
        smallest = 100 * max(one.smallest_margin for one in deciding)
        lines.append(f"the smallest margin that would have passed overall: {smallest:.2f} points")
    flips = [(one.name, flip) for one in judged for flip in one.flips]
    flips.sort(key=lambda pair: -max(pair[1].confidence))
    lines.append(f"rows with another verdict: {len(flips):,}")
    lines += [
        f"  {name} row {flip.index + 1}: gold {flip.gold}, reference {flip.reference} ({flip.confidence[0]:.2f}), "
        f"candidate {flip.candidate} ({flip.confidence[1]:.2f}): {flip.text}"
        for name, flip in flips[: options.flips]
    ]
    shows = "is no worse" if passes else "is not shown to be no worse"
    verdict = (
        f"'{options.model}' {shows} than '{options.against}' by more than {options.margin:g} points "
        f"({options.class_margin:g} within a class or a range of lengths)"
    )
    undecided = sum(line.state == UNDECIDED for one in deciding for line in one.lines[1:])
    if passes and undecided and not one_model:
        verdict += f"; not shown for {counted(undecided, 'group')} with too few rows"
    if options.output:
        evidence = {
            "kind": "railkd certificate 1",
            "passes": passes,
            "one_model": one_model,
            "config": Request(options).as_dict(),
            "method": _METHOD,
            "together": whole.as_dict() if whole else None,
            "sets": [judgement.as_dict() for judgement in judged],
            "versions": versions(),
        }
        write_json(options.output, evidence)
    return Certificate(passes, verdict, tuple(lines))
