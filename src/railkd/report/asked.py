"""Scores by the metrics that the user asked for beside the main ones: ``--metrics``, by name or by a function."""

from __future__ import annotations

from typing import Any

from railkd.errors import RailkdError
from railkd.report.scores import DOMAINS, SELECTION_SET, Column, Scores, Selected, table
from railkd.report.study import Run, Study
from railkd.tasks.metrics import find_metric, greater_is_better


def asked(study: Study) -> dict[str, Any]:
    """Return a table of each domain, as `scores.table` returns it. Nothing in it is scaled, averaged or ranked.

    Args:
        study: the records.

    Returns:
        "in" and "out" -> the table.
    """
    scores = Scores(study, _asked_scores)
    return {domain: table(scores, domain) for domain in DOMAINS}


def _asked_scores(run: Run) -> list[Selected]:
    """Return (column, domain, score) of each test set and metric that was asked for.

    The record says which values of the user's own functions are better: the functions need not exist any more.
    """
    record = run.record
    own, wanted = record.higher_is_better, {_spelled(name) for name in _texts(record.config.get("metrics"))}
    return [
        (
            Column(record.task, name, metric, own.get(metric, greater_is_better(metric)), main=False),
            record.domains.get(name, "in"),
            value,
        )
        for name, metrics in record.metrics.items()
        if name != SELECTION_SET
        for metric, value in list(metrics.items())[1:]
        if metric in own or metric in wanted
    ]


def _texts(value: Any) -> list[str]:
    """Return the texts of a setting, which a record from elsewhere may hold in any form."""
    return [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]


def _spelled(name: str) -> str:
    """Return the name of a metric as records write it."""
    try:
        return find_metric(name).name
    except RailkdError:  # the address of a function, or a metric of a later release
        return name
