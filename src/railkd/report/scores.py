"""How well each arm did: the tables in and out of the domain, differences to the baseline, contrasts and ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from railkd import statistics
from railkd.report.study import Question, Run, Study, arm_order, whose
from railkd.statistics import Estimate
from railkd.tasks.metrics import greater_is_better

#: The set that chose the kept weights: no test.
SELECTING = "eval"
TEACHER = "teacher"
DOMAINS = ("in", "out")

Seeds = dict[int, float]


def teacher_arm(run: Run) -> str:
    """The name of a teacher in the tables; where a task has several, it says whose."""
    return TEACHER + whose(run)


@dataclass(frozen=True, order=True)
class Column:
    """One test set, scored by the metric that counts."""

    task: str
    set: str
    metric: str

    @property
    def points(self) -> bool:
        """Whether it can be averaged with others: every metric but a squared error, all times 100."""
        return greater_is_better(self.metric)


class Scores:
    """Every test score of a study: (student, arm) -> column -> seed -> value, times 100 where `Column.points`.

    Attributes:
        columns: of each domain, by task and set.
        values: students and, as arms of the student "", the teachers (`teacher_arm`).
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.values: dict[tuple[str, str], dict[Column, Seeds]] = defaultdict(lambda: defaultdict(dict))
        domains: dict[Column, str] = {}
        for run, owner in [
            *((run, (run.record.student, run.record.arm)) for run in study.students),
            *((run, ("", teacher_arm(run))) for run in study.teachers),
        ]:
            for column, domain, value in scored(run):
                domains[column] = domain
                self.values[owner][column][run.record.seed] = value
        self.columns = {d: sorted(column for column in domains if domains[column] == d) for d in DOMAINS}
        self.students = sorted({student for student, _ in self.values} - {""})

    def arms(self, student: str) -> list[str]:
        """Of a student, in the order of the tables."""
        return arm_order(arm for owner, arm in self.values if owner == student)

    def described(self, column: Column, domain: str) -> dict[str, Any]:
        """A column, and whether its task alone does not say which set it is."""
        alone = domain == "in" and sum(other.task == column.task for other in self.columns[domain]) == 1
        return asdict(column) | {"points": column.points, "show_set": not alone}

    def differences(self, student: str, arm: str, baseline: str, column: Column) -> Seeds:
        """Arm minus baseline, on equal seeds."""
        ours, theirs = self.values.get((student, arm), {}), self.values.get((student, baseline), {})
        return statistics.paired_differences(ours.get(column, {}), theirs.get(column, {}))

    def pooled(
        self, arm: str, baseline: str, domain: str, students: Iterable[str] | None = None
    ) -> statistics.Contrast | None:
        """The contrast over tasks: a task has a difference for each seed, the mean over students and sets."""
        found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for student in self.students if students is None else students:
            for column in self.columns[domain]:
                if column.points:
                    for seed, value in self.differences(student, arm, baseline, column).items():
                        found[column.task][seed].append(value)
        means = {task: {seed: float(np.mean(v)) for seed, v in seeds.items()} for task, seeds in found.items()}
        return statistics.contrast(means) if means else None


def scored(run: Run) -> list[tuple[Column, str, float]]:
    """Column, domain and value of each test set of a run."""
    found = []
    for name, metrics in run.record.metrics.items():
        if name != SELECTING and metrics:
            metric, value = next(iter(metrics.items()))
            column = Column(run.record.task, name, metric)
            found.append((column, run.record.domains.get(name, "in"), 100 * value if column.points else value))
    return found


def table(scores: Scores, domain: str) -> dict[str, Any]:
    """Rows of arms under each student, the teacher first; columns of test sets; average and rank over tasks."""
    columns = scores.columns[domain]
    groups = []
    for student in ["", *scores.students]:
        arms = scores.arms(student)
        if arms and any(scores.values[student, arm].get(column) for arm in arms for column in columns):
            rows = _rows(scores, student, arms, domain)
            groups.append({"student": student, "averaged": any(row["average"] for row in rows), "rows": rows})
    return {
        "domain": domain,
        "columns": [scores.described(column, domain) for column in columns],
        "groups": groups,
    }


def _rows(scores: Scores, student: str, arms: Sequence[str], domain: str) -> list[dict[str, Any]]:
    columns = scores.columns[domain]
    estimates = {arm: [_estimate(scores.values[student, arm].get(c)) for c in columns] for arm in arms}
    rows: list[dict[str, Any]] = [
        {"arm": arm, "cells": [_cell(e) for e in estimates[arm]], "average": None, "rank": None} for arm in arms
    ]
    if student:
        for place, column in enumerate(columns):
            for row, best in zip(rows, _best_of_column(scores, student, arms, column), strict=True):
                if row["cells"][place]:
                    row["cells"][place]["best"] = best
    _averages(scores, student, rows, domain)
    return rows


def _averages(scores: Scores, student: str, rows: list[dict[str, Any]], domain: str) -> None:
    """Average and rank over tasks, of the arms that were scored on every task."""
    columns = [column for column in scores.columns[domain] if column.points]
    tasks = list(dict.fromkeys(column.task for column in columns))
    if len(tasks) < 2:
        return
    by_arm: dict[str, list[float]] = {}
    for row in rows:
        values = scores.values[student, row["arm"]]
        if all(values.get(column) for column in columns):
            of_set = {c: float(np.mean(list(values[c].values()))) for c in columns}
            by_arm[row["arm"]] = [float(np.mean([of_set[c] for c in columns if c.task == task])) for task in tasks]
            row["average"] = {
                "mean": float(np.mean(by_arm[row["arm"]])),
                "sd": _sd_of_average(values, columns, tasks),
                "best": False,
            }
    if not student or len(by_arm) < 2:
        return
    complete = list(by_arm)
    ranks = dict(zip(complete, statistics.average_ranks(np.array([by_arm[a] for a in complete]).T), strict=True))
    means = [float(np.mean(by_arm[arm])) for arm in complete]
    p = [[_p(scores.pooled(a, b, domain, [student])) if a != b else np.nan for b in complete] for a in complete]
    best = dict(zip(complete, statistics.best_arms(means, p), strict=True))
    for row in rows:
        if row["arm"] in by_arm:
            row["rank"] = float(ranks[row["arm"]])
            row["average"]["best"] = bool(best[row["arm"]])


def _sd_of_average(values: dict[Column, Seeds], columns: Sequence[Column], tasks: Sequence[str]) -> float | None:
    """Standard deviation over seeds of the average, of the seeds that every column has."""
    seeds = sorted(set.intersection(*(set(values[column]) for column in columns)))
    averages = [
        float(np.mean([np.mean([values[c][seed] for c in columns if c.task == task]) for task in tasks]))
        for seed in seeds
    ]
    return statistics.mean_and_sd(averages)[1] if averages else None


def _best_of_column(scores: Scores, student: str, arms: Sequence[str], column: Column) -> list[bool]:
    there = [arm for arm in arms if scores.values[student, arm].get(column)]
    if len(there) < 2:
        return [False] * len(arms)
    sign = 1 if column.points else -1
    means = [sign * float(np.mean(list(scores.values[student, arm][column].values()))) for arm in there]
    p = [[_p(_estimate(scores.differences(student, a, b, column))) if a != b else np.nan for b in there] for a in there]
    best = dict(zip(there, statistics.best_arms(means, p), strict=True))
    return [bool(best.get(arm, False)) for arm in arms]


def _p(found: Estimate | statistics.Contrast | None) -> float:
    """As a number: nan where there is no test."""
    estimate = found.estimate if isinstance(found, statistics.Contrast) else found
    return np.nan if estimate is None or estimate.p is None else estimate.p


def _estimate(values: Seeds | None) -> Estimate | None:
    return statistics.estimate(list(values.values())) if values else None


def _cell(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        "mean": estimate.mean,
        "sd": estimate.sd,
        "n": estimate.n,
        "low": estimate.low,
        "high": estimate.high,
        "best": False,
    }


def differences(scores: Scores) -> list[dict[str, Any]]:
    """Every arm against the baseline: one row a test set, over seeds, and one a domain, over tasks."""
    found = []
    baseline = scores.study.baseline
    for domain in DOMAINS:
        for student in scores.students:
            for arm in scores.arms(student):
                if arm == baseline:
                    continue
                base = {"domain": domain, "student": student, "arm": arm, "baseline": baseline}
                for column in scores.columns[domain]:
                    values = scores.differences(student, arm, baseline, column)
                    if values:
                        one = asdict(statistics.estimate(list(values.values())))
                        found.append(base | scores.described(column, domain) | {"over": "seeds"} | one)
                pooled = scores.pooled(arm, baseline, domain, [student])
                if pooled and pooled.over == "tasks":
                    nothing = {"task": "", "set": "", "metric": "", "points": True, "show_set": False}
                    found.append(base | nothing | {"over": "tasks"} | asdict(pooled.estimate))
    return found


def contrasts(scores: Scores) -> dict[str, Any]:
    """The family: contrasts named before the run, or else every arm against the baseline, which says so."""
    study = scores.study
    arms = arm_order(run.record.arm for run in study.students)
    named = bool(study.questions)
    others = [Question(f"{a} against {study.baseline}", a, study.baseline) for a in arms if a != study.baseline]
    found = [(q, scores.pooled(q.arm, q.baseline, q.domain)) for q in study.questions or others]
    tests = [_p(contrast) for _, contrast in found]
    adjusted = dict(
        zip(
            (number for number, p in enumerate(tests) if not np.isnan(p)),
            statistics.holm([p for p in tests if not np.isnan(p)]).tolist(),
            strict=True,
        )
    )
    rows = []
    for number, (question, contrast) in enumerate(found):
        p = adjusted.get(number)
        shown = p is not None and p < statistics.ALPHA
        row: dict[str, Any] = asdict(question) | {"holm": p, "shown": shown, "over": None, "tasks": 0, "pairs": 0}
        if contrast is not None:
            row |= asdict(contrast.estimate) | {"over": contrast.over, "tasks": contrast.tasks, "pairs": contrast.pairs}
        rows.append(row)
    return {"named": named, "family": len(adjusted), "rows": rows}
