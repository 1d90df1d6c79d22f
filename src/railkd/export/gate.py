"""Decides whether one model is no worse than another by more than a margin: overall and for each group of rows.

``railkd export`` asks this of each file that it writes, and ``railkd certify`` of any two models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from railkd.data.keys import example_key
from railkd.data.reader import TEXT_COLUMNS, Table
from railkd.runtime.words import shortened
from railkd.statistics import ALPHA, holm
from railkd.statistics.paired import Drop, drop_of_scores, drop_of_shares, rows_needed
from railkd.tasks.target import Target

#: States of a line.
PASSES, FAILS, UNDECIDED = "passes", "fails", "too few rows to tell"


@dataclass(frozen=True)
class Line:
    """The comparison on one group of rows.

    Attributes:
        name: "overall", "class NAME", or what the caller calls it.
        drop: the drop and its statistics.
        margin: drop that is tolerated, a share.
        needed: rows with which a model without a true drop passes four times out of five.
        p_holm: one-sided p-value, adjusted by Holm's method for all lines of the comparison: to quote this line alone.
        state: `PASSES`, `FAILS` or `UNDECIDED`.
    """

    name: str
    drop: Drop
    margin: float
    needed: int
    p_holm: float
    state: str

    def __str__(self) -> str:
        d, m = 100 * self.drop.drop, 100 * self.margin
        counts = "" if self.drop.lost is None else f", {self.drop.lost:,} lost and {self.drop.won:,} won"
        short = self.state == UNDECIDED or (self.state == FAILS and self.drop.rows < self.needed)
        more = f"; {self.needed:,} rows are needed" if short else ""
        return (
            f"{self.name}: {self.state}; drop {d:+.2f} points of {self.drop.rows:,} rows{counts}; at most "
            f"{100 * self.drop.bound:.2f} with 95 % confidence, allowed {m:g}{more}"
        )


@dataclass(frozen=True)
class Flip:
    """A row on which the verdicts differ.

    Attributes:
        index: number of the row, from 0.
        text: of the row, cut if it is long.
        gold: the label; None if it has none.
        reference: answer of the reference.
        candidate: answer of the candidate.
        confidence: of the reference in its answer, and of the candidate in its own, from 0 to 1.
    """

    index: int
    text: str
    gold: Any
    reference: Any
    candidate: Any
    confidence: tuple[float, float]


@dataclass(frozen=True)
class Judgement:
    """The comparison of two models on one table.

    Attributes:
        name: of the table.
        metric: what the drop is of.
        lines: the comparison overall, then for each group.
        flips: rows on which the verdicts differ, most confident first.
        outcomes: name of a line -> (n,) keys of its rows, and (2, n) bool: which of them each model gets right. Empty
            for scores that are no share of rows.
        domain: "in" or "out" of the domain of the training rows.
    """

    name: str
    metric: str
    lines: tuple[Line, ...]
    flips: tuple[Flip, ...]
    outcomes: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False, compare=False)
    domain: str = "in"

    @property
    def passes(self) -> bool:
        """True if the comparison passes overall and fails in no group. A group may have too few rows to tell."""
        return self.lines[0].state == PASSES and all(line.state != FAILS for line in self.lines)

    @property
    def problems(self) -> list[Line]:
        """The lines that keep it from passing."""
        return [line for line in self.lines if line.state == FAILS or (line is self.lines[0] and line.state != PASSES)]

    @property
    def smallest_margin(self) -> float:
        """The smallest margin with which the comparison overall would have passed on its own, a share."""
        return max(0.0, self.lines[0].drop.bound)

    def as_dict(self) -> dict[str, Any]:
        """Return the judgement as plain values, for JSON."""
        plain = asdict(replace(self, outcomes={}))
        del plain["outcomes"]
        return plain | {"passes": self.passes, "smallest_margin": self.smallest_margin}


def judge(
    target: Target,
    name: str,
    table: Table,
    outputs: tuple[np.ndarray, np.ndarray],
    margins: tuple[float, float],
    *,
    groups: Mapping[str, np.ndarray] | None = None,
    given: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> Judgement:
    """Compare a candidate with a reference on a labelled table.

    The comparison overall must pass, and no group may fail. Each line is tested at 5 %: a candidate that is worse by
    the margin overall, or in a group with enough rows, passes at most 5 % of the time (an intersection-union test:
    Berger 1982, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24, 295-300). A group with
    too few rows is not decided.

    Args:
        target: task and classes of both models.
        name: of the table.
        table: N rows with labels.
        outputs: (N, C) of the reference, and (N, C) of the candidate.
        margins: the drop that is tolerated overall, and within a class or another group, as shares.
        groups: name -> (N,) bool; further groups of rows.
        given: N encoded answers of each model, where they are not those of its outputs.

    Returns:
        The judgement.
    """
    gold, reference = target.answers(table, outputs[0], given[0])
    candidate = target.answers(table, outputs[1], given[1])[1]
    known = np.array([value is not None for value in gold])
    parts = {"overall": known}
    if target.task.points:
        parts |= {f"class {label}": rows for label, rows in _classes(target, gold).items()}
    parts |= {label: rows & known for label, rows in (groups or {}).items()}
    found: dict[str, Drop] = {}
    keys, outcomes = _keys(table), {}
    for label, rows in parts.items():
        if rows.any():
            margin = margins[0] if label == "overall" else margins[1]
            right = _right(target, gold, reference, candidate, label)
            if right is None:
                found[label] = _drop_of_metric(target, table, outputs, np.flatnonzero(rows), margin)
            else:
                outcomes[label] = keys[rows], right[:, rows]
                found[label] = _drop_of_right(right[:, rows], margin)
    metric = "accuracy" if target.task.points else target.primary_metric
    flips = _flips(target, table, outputs, given, gold, reference, candidate)
    return Judgement(name, metric, _lines(found, margins), flips, outcomes, table.domain)


def pool(judgements: Sequence[Judgement], margins: tuple[float, float]) -> Judgement | None:
    """Return the comparison on the rows of several tables together: overall, for each group, and for each domain.

    A row that an earlier table holds too, with its texts and label, does not count again: the same rows twice are no
    further evidence. Equal rows within a table all count, because a sample may draw a text more than once.

    Args:
        judgements: of the tables. They may have common rows.
        margins: as for `judge`.

    Returns:
        The judgement, without flips; None for fewer than two tables, and for scores that are no share of rows.
    """
    lines = [line for judgement in judgements for line in judgement.lines]
    if len(judgements) < 2 or any(line.drop.lost is None for line in lines):
        return None
    names = dict.fromkeys(line.name for line in lines)
    parts = {name: [one.outcomes[name] for one in judgements if name in one.outcomes] for name in names}
    domains = {one.domain: f"{'in' if one.domain == 'in' else 'out of'} the domain" for one in judgements}
    for domain, name in domains.items() if len(domains) > 1 else ():
        parts[name] = [one.outcomes["overall"] for one in judgements if one.domain == domain]
    found = {}
    for name, outcomes in parts.items():
        seen, kept = np.empty(0, np.int64), []
        for keys, right in outcomes:
            kept.append(right[:, ~np.isin(keys, seen)])
            seen = np.concatenate([seen, keys])
        found[name] = _drop_of_right(np.concatenate(kept, 1), margins[0] if name == "overall" else margins[1])
    return Judgement("all sets", "accuracy", _lines(found, margins), ())


def problems_of(judgements: Sequence[Judgement], margins: tuple[float, float]) -> list[str]:
    """Return what keeps a candidate from passing on several tables, in words; nothing if it passes.

    Of several tables, the rows together must be enough to tell; a single table only must not fail.

    Args:
        judgements: of `judge`, one for each table.
        margins: as for `judge`.
    """
    whole = pool(judgements, margins)
    if whole is None:
        return [f"{one.name}, {line}" for one in judgements for line in one.problems]
    found = [f"{whole.name}, {line}" for line in whole.problems]
    return found + [f"{one.name}, {line}" for one in judgements for line in one.lines if line.state == FAILS]


def _classes(target: Target, gold: Sequence[Any]) -> dict[str, np.ndarray]:
    """Return class -> (N,) bool: the rows that are of the class, as the table names it."""
    names = list(dict.fromkeys(name for value in gold if value is not None for name in _names(target, value)))
    return {
        str(name): np.array([value is not None and name in _names(target, value) for value in gold]) for name in names
    }


def _names(target: Target, value: Any) -> list[Any]:
    return list(value) if target.task.several else [value]


def _right(
    target: Target, gold: Sequence[Any], reference: Sequence[Any], candidate: Sequence[Any], label: str
) -> np.ndarray | None:
    """Return (2, N) bool: which rows each model gets right; of a multi-label class, whether it finds the class."""
    if not target.task.points:
        return None
    name = label.removeprefix("class ")
    if target.task.several and name != label:
        return np.array([[name in answer for answer in given] for given in (reference, candidate)])
    pairs = [zip(gold, given, strict=True) for given in (reference, candidate)]
    return np.array([[a == b for a, b in pair] for pair in pairs])


def _keys(table: Table) -> np.ndarray:
    """Return (N,) int64: 64 bits of the hash of each row's texts and label."""
    columns = [table.rows[name][:] for name in (*TEXT_COLUMNS, "label") if name in table.rows.column_names]
    return np.array([example_key(*map(str, row))[0] for row in zip(*columns, strict=True)], dtype=np.int64)


def _drop_of_right(right: np.ndarray, margin: float) -> Drop:
    """Return the drop of the share of n rows that are right; ``right`` is (2, n) bool: reference and candidate."""
    ours, theirs = right
    return drop_of_shares(int((ours & ~theirs).sum()), int((~ours & theirs).sum()), len(ours), margin)


def _drop_of_metric(
    target: Target, table: Table, outputs: tuple[np.ndarray, np.ndarray], rows: np.ndarray, margin: float
) -> Drop:
    labels, metric = np.asarray(table.rows["label"])[rows], target.primary_metric

    def score(chosen: np.ndarray) -> tuple[float, float]:
        first, second = (
            target.score(table, given[rows][chosen], labels[chosen]).get(metric, float("nan")) for given in outputs
        )
        return first, second

    return drop_of_scores(score, len(rows), margin)


def _lines(found: Mapping[str, Drop], margins: tuple[float, float]) -> tuple[Line, ...]:
    whole = found["overall"]
    disagreement = 0.0 if whole.lost is None or whole.won is None else (whole.lost + whole.won) / whole.rows
    lines = []
    for (name, drop), adjusted in zip(found.items(), holm([drop.p for drop in found.values()]).tolist(), strict=True):
        margin = margins[0] if name == "overall" else margins[1]
        needed = rows_needed(disagreement, margin)
        if drop.p < ALPHA:
            state = PASSES
        elif drop.rows < needed and drop.p_worse >= ALPHA:
            state = UNDECIDED
        else:
            state = FAILS
        lines.append(Line(name, drop, margin, needed, adjusted, state))
    return tuple(lines)


def _flips(
    target: Target,
    table: Table,
    outputs: tuple[np.ndarray, np.ndarray],
    given: tuple[np.ndarray | None, np.ndarray | None],
    gold: Sequence[Any],
    reference: Sequence[Any],
    candidate: Sequence[Any],
) -> tuple[Flip, ...]:
    if not target.task.points:
        return ()
    rows = [i for i, pair in enumerate(zip(reference, candidate, strict=True)) if pair[0] != pair[1]]
    sure = [
        target.task.confidence(values[rows], None if answers is None else answers[rows])
        for values, answers in zip(outputs, given, strict=True)
        if rows
    ]
    columns = [table.rows[column] for column in TEXT_COLUMNS if column in table.rows.column_names]
    flips = [
        Flip(
            i,
            shortened(" | ".join(column[i] for column in columns), 200),
            gold[i],
            reference[i],
            candidate[i],
            (round(float(sure[0][number]), 6), round(float(sure[1][number]), 6)),
        )
        for number, i in enumerate(rows)
    ]
    return tuple(sorted(flips, key=lambda flip: -max(flip.confidence)))
