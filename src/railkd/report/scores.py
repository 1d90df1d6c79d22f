"""Scores of the arms: the tables in and out of the domain, averages, ranks, differences and contrasts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from railkd import statistics
from railkd.records import Question
from railkd.report.study import Run, Study, arm_order, teacher_arm
from railkd.statistics import Estimate
from railkd.tasks.metrics import greater_is_better

#: The selection set: it picked the best epoch, so it is not a test set.
SELECTION_SET = "eval"
#: The row of the tables with the scores of the best answer that needs no model.
NO_MODEL = "no model"
DOMAINS = ("in", "out")

#: Seed -> value.
Seeds = dict[int, float]
#: Column, domain ("in" or "out") and score.
Selected = tuple["Column", str, float]


@dataclass(frozen=True, order=True)
class Column:
    """A column of a score table: one test set and a metric.

    Attributes:
        task: name of the task.
        set: name of the test set.
        metric: name of the metric.
        higher: True if higher is better.
        main: True if the metric is the main one of the set.
    """

    task: str
    set: str
    metric: str
    higher: bool = True
    main: bool = True

    @property
    def points(self) -> bool:
        """True if the score is in points (times 100): main metrics except squared error. Only points are averaged."""
        return self.main and self.higher

    def scaled(self, value: float) -> float:
        """Return a value of the metric as the tables show it: in points, or as it is."""
        return 100 * value if self.points else value


class Scores:
    """The test scores of a study, in points (times 100) where `Column.points` is true.

    Args:
        study: the study.
        select: returns the columns of a run, with domain and score.

    Attributes:
        study: the study.
        values: (student, arm) -> column -> seed -> score. Teachers are arms of the student "", named by `teacher_arm`.
        constants: column -> score of the commonest class or of the mean, which needs no model.
        columns: "in" and "out" -> the columns of that domain, by task and set.
        students: names of the students.
    """

    def __init__(self, study: Study, select: Callable[[Run], list[Selected]] | None = None) -> None:
        self.study = study
        self.values: dict[tuple[str, str], dict[Column, Seeds]] = defaultdict(lambda: defaultdict(dict))
        self.constants: dict[Column, float] = {}
        domains: dict[Column, str] = {}
        for run, owner in [
            *((run, (run.record.student, run.record.arm)) for run in study.students),
            *((run, ("", teacher_arm(run))) for run in study.teachers),
        ]:
            for column, domain, value in (select or test_scores)(run):
                domains[column] = domain
                self.values[owner][column][run.record.seed] = value
                baseline = run.record.baselines.get(column.set)
                if baseline and column.metric in baseline.metrics:
                    self.constants[column] = column.scaled(baseline.metrics[column.metric])
        self.columns = {d: sorted(column for column in domains if domains[column] == d) for d in DOMAINS}
        self.students = sorted({student for student, _ in self.values} - {""})

    def arms(self, student: str) -> list[str]:
        """Return the arms of a student in the order of the tables.

        Args:
            student: name of the student; "" for the teachers.

        Returns:
            Names of arms.
        """
        return arm_order(arm for owner, arm in self.values if owner == student)

    def column_dict(self, column: Column, domain: str) -> dict[str, Any]:
        """Return a column as a plain dict.

        Args:
            column: the column.
            domain: "in" or "out".

        Returns:
            ``task``, ``set``, ``metric``, ``points``, and ``show_set``: True if the task does not identify the set.
        """
        sets = {other.set for other in self.columns[domain] if other.task == column.task}
        names = {"task": column.task, "set": column.set, "metric": column.metric}
        return names | {"points": column.points, "show_set": domain != "in" or len(sets) > 1}

    def differences(self, student: str, arm: str, baseline: str, column: Column) -> Seeds:
        """Return arm minus baseline on a test set, for the seeds that both have.

        Args:
            student: name of the student.
            arm: the arm.
            baseline: the arm to subtract.
            column: the test set.

        Returns:
            Seed -> difference.
        """
        ours, theirs = self.values.get((student, arm), {}), self.values.get((student, baseline), {})
        return statistics.paired_differences(ours.get(column, {}), theirs.get(column, {}))

    def pooled(
        self, arm: str, baseline: str, domain: str, students: Iterable[str] | None = None
    ) -> statistics.Contrast | None:
        """Pool the differences of two arms over tasks.

        Each task has one difference per seed: the mean over its students and sets.

        Args:
            arm: the arm.
            baseline: the arm to subtract.
            domain: "in" or "out".
            students: the students to include; None means all.

        Returns:
            The contrast; None if the arms have no run in common.
        """
        by_task: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for student in self.students if students is None else students:
            for column in self.columns[domain]:
                if column.points:
                    for seed, value in self.differences(student, arm, baseline, column).items():
                        by_task[column.task][seed].append(value)
        means = {task: {seed: float(np.mean(v)) for seed, v in seeds.items()} for task, seeds in by_task.items()}
        return statistics.contrast(means) if means else None


def test_scores(run: Run) -> list[Selected]:
    """Return the main score of each test set of a run.

    Args:
        run: the run.

    Returns:
        (column, domain, score) of each test set.
    """
    scores = []
    for name, metrics in run.record.metrics.items():
        if name != SELECTION_SET and metrics:
            metric, value = next(iter(metrics.items()))
            column = Column(run.record.task, name, metric, greater_is_better(metric))
            scores.append((column, run.record.domains.get(name, "in"), column.scaled(value)))
    return scores


def table(scores: Scores, domain: str) -> dict[str, Any]:
    """Return the score table of a domain: arms by test sets, with average and rank over tasks.

    Args:
        scores: the scores.
        domain: "in" or "out".

    Returns:
        ``domain``; ``columns``; ``constant``, the row of the best answer that needs no model, None if it is not known;
        and ``groups``, one for the teachers (student "") and one for each student, with rows of ``arm``, ``cells``,
        ``average`` and ``rank``.
    """
    columns = scores.columns[domain]
    cells = [_cell(_estimate({0: scores.constants[c]} if c in scores.constants else None)) for c in columns]
    groups = []
    for student in ["", *scores.students]:
        arms = scores.arms(student)
        if arms and any(scores.values[student, arm].get(column) for arm in arms for column in columns):
            rows = _rows(scores, student, arms, domain)
            groups.append({"student": student, "averaged": any(row["average"] for row in rows), "rows": rows})
    return {
        "domain": domain,
        "columns": [scores.column_dict(column, domain) for column in columns],
        "constant": {"arm": NO_MODEL, "cells": cells, "average": None, "rank": None} if any(cells) else None,
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
    """Fill in average and rank over tasks, for the arms that have a score on every test set."""
    columns = [column for column in scores.columns[domain] if column.points]
    tasks = list(dict.fromkeys(column.task for column in columns))
    if len(tasks) < 2:
        return
    by_arm: dict[str, list[float]] = {}
    for row in rows:
        values = scores.values[student, row["arm"]]
        if all(values.get(column) for column in columns):
            by_set = {c: float(np.mean(list(values[c].values()))) for c in columns}
            by_arm[row["arm"]] = [float(np.mean([by_set[c] for c in columns if c.task == task])) for task in tasks]
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
    best = _mark_best(complete, means, lambda a, b: _p_value(scores.pooled(a, b, domain, [student])))
    for row in rows:
        if row["arm"] in by_arm:
            row["rank"] = float(ranks[row["arm"]])
            row["average"]["best"] = row["arm"] in best


def _sd_of_average(values: dict[Column, Seeds], columns: Sequence[Column], tasks: Sequence[str]) -> float | None:
    """Return the standard deviation of the average over the seeds that every column has."""
    seeds = sorted(set.intersection(*(set(values[column]) for column in columns)))
    averages = [
        float(np.mean([np.mean([values[c][seed] for c in columns if c.task == task]) for task in tasks]))
        for seed in seeds
    ]
    return statistics.mean_and_sd(averages)[1] if averages else None


def _best_of_column(scores: Scores, student: str, arms: Sequence[str], column: Column) -> list[bool]:
    """Return True for the arm that beats every other arm of the student on one test set."""
    present = [arm for arm in arms if scores.values[student, arm].get(column)]
    if len(present) < 2:
        return [False] * len(arms)
    sign = 1 if column.higher else -1  # of errors, the lowest is the best
    means = [sign * float(np.mean(list(scores.values[student, arm][column].values()))) for arm in present]
    best = _mark_best(present, means, lambda a, b: _p_value(_estimate(scores.differences(student, a, b, column))))
    return [arm in best for arm in arms]


def _mark_best(arms: Sequence[str], means: Sequence[float], p_value: Callable[[str, str], float]) -> set[str]:
    """Return the arm that `statistics.best_arms` marks, if any. Only the arm with the highest mean is tested."""
    first = int(np.argmax(means))
    p = np.full((len(arms), len(arms)), np.nan)
    p[first] = [np.nan if place == first else p_value(arms[first], arm) for place, arm in enumerate(arms)]
    return {arm for arm, best in zip(arms, statistics.best_arms(means, p), strict=True) if best}


def _p_value(result: Estimate | statistics.Contrast | None) -> float:
    """Return the p-value, nan if there is no test."""
    estimate = result.estimate if isinstance(result, statistics.Contrast) else result
    return np.nan if estimate is None or estimate.p is None else estimate.p


def _estimate(values: Seeds | None) -> Estimate | None:
    return statistics.estimate(list(values.values())) if values else None


def _cell(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {name: getattr(estimate, name) for name in ("mean", "sd", "n", "low", "high")} | {"best": False}


def differences(scores: Scores) -> list[dict[str, Any]]:
    """Return the difference of every arm to the baseline, for each student.

    Args:
        scores: the scores.

    Returns:
        A row for each test set (``over`` is "seeds"), and a row for each domain with two tasks or more ("tasks").
    """
    rows = []
    baseline = scores.study.baseline
    no_column = {"task": "", "set": "", "metric": "", "points": True, "show_set": False}
    for domain, student in product(DOMAINS, scores.students):
        for arm in scores.arms(student):
            if arm == baseline:
                continue
            names = {"domain": domain, "student": student, "arm": arm, "baseline": baseline}
            for column in scores.columns[domain]:
                estimate = _estimate(scores.differences(student, arm, baseline, column))
                if estimate:
                    rows.append(names | scores.column_dict(column, domain) | {"over": "seeds"} | asdict(estimate))
            pooled = scores.pooled(arm, baseline, domain, [student])
            if pooled and pooled.over == "tasks":
                rows.append(names | no_column | {"over": "tasks"} | asdict(pooled.estimate))
    return rows


def contrasts(scores: Scores) -> dict[str, Any]:
    """Return the contrasts named before the run, or every arm against the baseline if none was named.

    Args:
        scores: the scores.

    Returns:
        ``named``: True if the contrasts were named before the run; ``family``: number of contrasts with a test, which
        Holm's method adjusts for; ``rows``: the contrasts.
    """
    study = scores.study
    arms = arm_order(run.record.arm for run in study.students)
    default = [Question(f"{a} against {study.baseline}", a, study.baseline) for a in arms if a != study.baseline]
    pairs = [(q, scores.pooled(q.arm, q.baseline, q.domain)) for q in study.questions or default]
    p_values = {number: _p_value(pooled) for number, (_, pooled) in enumerate(pairs)}
    tests = {number: p for number, p in p_values.items() if not np.isnan(p)}
    adjusted = dict(zip(tests, statistics.holm(list(tests.values())).tolist(), strict=True))
    rows = []
    for number, (question, pooled) in enumerate(pairs):
        holm = adjusted.get(number)
        shown = holm is not None and holm < statistics.ALPHA
        row: dict[str, Any] = asdict(question) | {"holm": holm, "shown": shown, "over": None, "tasks": 0, "pairs": 0}
        if pooled is not None:
            row |= asdict(pooled.estimate) | {"over": pooled.over, "tasks": pooled.tasks, "pairs": pooled.pairs}
        rows.append(row)
    return {"named": bool(study.questions), "family": len(adjusted), "rows": rows}
