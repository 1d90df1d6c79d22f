"""The table of models side by side: size and time, the metric, and the agreement with the first of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from railkd.data.reader import Table
from railkd.export.latency import BATCH, Timing
from railkd.runtime.words import size
from railkd.tasks.target import Target

#: Letters of the name of a model in the table.
_LONGEST = 40


@dataclass(frozen=True)
class Quality:
    """The scores of a model on labelled rows, and its agreement with another.

    Attributes:
        metric: name of the metric.
        scores: name of a set -> its value.
        agreement: share of the rows of all sets that have the answer of the teacher, or the correlation with its
            numbers; None: there is no teacher.
        rows: number of these rows.
        thresholds: the answers follow thresholds, which the other models do not have.
    """

    metric: str
    scores: Mapping[str, float]
    agreement: float | None
    rows: int
    thresholds: bool = False


@dataclass(frozen=True)
class Answered:
    """The answers of a model to labelled rows.

    Attributes:
        target: task and classes of the model.
        tables: name of a set -> its rows, with labels in the order of the model's classes.
        outputs: name of a set -> (N, C).
    """

    target: Target
    tables: Mapping[str, Table]
    outputs: Mapping[str, np.ndarray]

    def words(self) -> list[Any]:
        """Return the answers to the rows of all sets, as names or numbers."""
        return [
            answer
            for name, table in self.tables.items()
            for answer in self.target.answers(table, self.outputs[name])[1]
        ]

    def quality(self, teacher: Answered | None) -> Quality:
        """Score the answers, and compare them with those of a teacher.

        Args:
            teacher: its answers to the same rows; None: there is none.

        Returns:
            The scores and the agreement.
        """
        metric, words = self.target.primary_metric, self.words()
        scores = {}
        for name, table in self.tables.items():
            found = self.target.score(table, self.outputs[name])
            scores[name] = round(found.get(metric, next(iter(found.values()))), 6)
        agreement = None
        if teacher is not None and self.target.task.points:
            agreement = float(np.mean([ours == theirs for ours, theirs in zip(words, teacher.words(), strict=True)]))
        elif teacher is not None:
            agreement = _correlation(np.asarray(words), np.asarray(teacher.words()))
        cut = self.target.task.cut is not None
        return Quality(metric, scores, None if agreement is None else round(agreement, 6), len(words), cut)


def _correlation(ours: np.ndarray, theirs: np.ndarray) -> float:
    spread = min(float(np.ptp(ours)), float(np.ptp(theirs)))
    return float(np.corrcoef(ours, theirs)[0, 1]) if spread > 0 else 0.0


def as_record(timings: Sequence[Timing], qualities: Sequence[Quality]) -> dict[str, Any]:
    """Return a table for a record.

    Args:
        timings: of the models; the first is the measure of the others.
        qualities: of the same models, in this order; empty: there are no rows with labels.

    Returns:
        ``threads``, and ``sides``: a mapping for each model.
    """
    empty: list[dict[str, Any]] = [{}] * len(timings)
    known = [asdict(one) for one in qualities] or empty
    sides = [asdict(timing) | quality for timing, quality in zip(timings, known, strict=True)]
    return {"threads": torch.get_num_threads(), "sides": sides}


def cells(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return a table of `as_record` in words.

    Args:
        found: the record.

    Returns:
        The heads of the columns, and the cells of each row.
    """
    sides = found["sides"]
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [("model", _named)]
    for name in sides[0].get("scores", ()):
        columns.append((f"{sides[0]['metric']}, {name}", partial(_score, name)))
    if any(side.get("agreement") is not None for side in sides):
        columns.append(("agreement", lambda side: f"{side['agreement']:.4f}"))
    columns += [
        ("parameters", lambda side: size(side["parameters"], "") if side.get("parameters") else "-"),
        ("size", lambda side: size(side["size"])),
        ("ms a row", lambda side: f"{side['p50_ms']:.2f}"),
        ("95 %", lambda side: f"{side['p95_ms']:.2f}"),
        (f"rows/s by {BATCH}", lambda side: f"{side['rows_per_second']:,.0f}"),
        ("of the time", lambda side: f"{side['ratio']:.3f}"),
        ("of the size", lambda side: f"{side['size_ratio']:.3f}"),
    ]
    return [head for head, _ in columns], [[cell(side) for _, cell in columns] for side in sides]


def _score(name: str, side: Mapping[str, Any]) -> str:
    return f"{side['scores'][name]:.4f}"


def _named(side: Mapping[str, Any]) -> str:
    return _tail(side["name"]) + (", with thresholds" if side.get("thresholds") else "")


def _tail(name: str) -> str:
    """Return a name, or the end of a long path, which tells files apart."""
    return name if len(name) <= _LONGEST else f"...{name[3 - _LONGEST :]}"


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return a table of `as_record` as lines of text, in columns.

    Args:
        found: the record.

    Returns:
        A line about the measurement, the heads, and a line for each model.
    """
    heads, rows = cells(found)
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    shown = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *rows)
    ]
    threads = found["threads"]
    return [f"latency on the CPU, {threads} {'thread' if threads == 1 else 'threads'}, tokenisation left out:", *shown]
