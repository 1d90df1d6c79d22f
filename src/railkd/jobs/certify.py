"""Certifies that one model is no worse than another by more than a margin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from railkd.data.columns import find_columns
from railkd.data.reader import Table
from railkd.data.tokens import full_lengths
from railkd.errors import RailkdError
from railkd.export.gate import UNDECIDED, Judgement, judge, pool, problems_of
from railkd.jobs.options import Say
from railkd.jobs.request import Request
from railkd.jobs.scorer import Scorer
from railkd.jobs.shipping_options import CertifyOptions
from railkd.jobs.splits import Sources, TableReader, asked_task
from railkd.jobs.trained import Trained, trained_length
from railkd.runtime.environment import versions
from railkd.runtime.files import write_json
from railkd.runtime.words import counted, listed
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


def certify(options: CertifyOptions, say: Say) -> Certificate:
    """Compare a candidate with a reference on labelled rows.

    Args:
        options: settings of ``railkd certify``.
        say: receives lines for the user.

    Returns:
        The certificate.

    Raises:
        RailkdError: the models have other classes.
    """
    names = (str(options.against), str(options.model))
    reference, candidate = (Scorer.find(name, trust=options.trust_remote_code) for name in names)
    sources, models = Sources.parse(options), (reference, candidate)
    first, second = (
        Target.of_model(model.checkpoint.labels, model.checkpoint.task.problem_type, name, asked_task(options))
        for model, name in zip(models, names, strict=True)
    )
    if first.space.names != second.space.names or first.task is not second.task:
        ours, theirs = (listed(target.space.names, 20) or "a number" for target in (first, second))
        raise RailkdError(
            f"Expected two models with the same classes in the same order, got {ours} and {theirs}. Fix: compare "
            "models of one task."
        )
    target, margins = replace(first, row=sources.row), (options.margin / 100, options.class_margin / 100)
    tables = TableReader(options, say, Trained.of(reference.checkpoint.config)).tests(sources, target)
    for model in models:
        model.load()
    judged, one_model = [], reference.is_the_model_of(candidate)
    for name, table in tables.items():
        outputs = (_logits(reference, table, options, say), _logits(candidate, table, options, say))
        one_model = one_model and np.array_equal(*outputs)
        groups = _bands(reference, table)
        judged.append(judge(target, name, table, outputs, margins, groups=groups))
    return _conclude(judged, margins, options, one_model=one_model)


def _logits(model: Scorer, table: Table, options: CertifyOptions, say: Say) -> np.ndarray:
    length = trained_length(options.max_length, model.checkpoint.config, say)
    return model.logits(table.rows, max_length=length, batch_size=options.batch_size)


def _bands(model: Scorer, table: Table) -> dict[str, np.ndarray]:
    """Return range of lengths -> (N,) bool, for thirds of the rows by their number of tokens."""
    columns = find_columns(table.rows.column_names).text
    texts = list(zip(*[table.rows[name][:] for name in columns], strict=True))
    lengths = full_lengths(model.checkpoint.tokenizer, texts)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BANDS + 1), method="lower"))
    if len(edges) < 3:
        return {}
    found, low = {}, int(edges[0])
    for high in map(int, edges[1:]):
        found[f"length {low} to {high} tokens"] = (lengths >= low) & (lengths <= high)
        low = high + 1
    return found


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
