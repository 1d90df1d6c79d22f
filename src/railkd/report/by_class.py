"""Scores of each class: precision, recall and F1 of every arm, as means over seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from railkd.records import ClassScore
from railkd.report.scores import SELECTION_SET
from railkd.report.study import Run, Study, arm_order, serves, teacher_arm

#: A table shows at most this many classes: those of the lowest F1.
MOST_CLASSES = 40
SCORES = ("precision", "recall", "f1")


def by_class(study: Study) -> list[dict[str, Any]]:
    """Return a table of classes for each test set and student whose records have the scores of classes.

    Args:
        study: the records.

    Returns:
        Tables with ``task``, ``set``, ``student``, ``arms``, ``total`` (number of classes), and ``classes``: rows of
        ``name``, ``rows`` (of the set that have the class) and ``cells``, one for each arm: None, or its scores. Of
        many classes the table has those of the lowest F1, worst first.
    """
    owners: dict[tuple[str, str, str], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in study.students:
        for name in run.record.classes:
            if name != SELECTION_SET:
                owners[run.record.task, name, run.record.student][run.record.arm].append(run)
    students = sorted({run.record.student for run in study.students}) or [""]
    for run in study.teachers:
        for name in run.record.classes:
            for student in students if name != SELECTION_SET else ():
                if serves(run, student):
                    owners[run.record.task, name, student][teacher_arm(run)].append(run)
    return [_table(*key, arms) for key, arms in sorted(owners.items())]


def _table(task: str, name: str, student: str, runs: dict[str, list[Run]]) -> dict[str, Any]:
    teachers = [arm for arm, theirs in runs.items() if theirs[0].record.job != "distill"]
    arms = [*teachers, *arm_order(arm for arm in runs if arm not in teachers)]
    scores = {arm: [{one.name: one for one in run.record.classes[name]} for run in runs[arm]] for arm in arms}
    known = {one.name: one for arm in arms for found in scores[arm] for one in found.values()}
    rows: list[dict[str, Any]] = [
        {
            "name": label,
            "rows": known[label].support,
            "cells": [_means(found[label] for found in scores[arm] if label in found) for arm in arms],
        }
        for label in known
    ]
    if len(rows) > MOST_CLASSES:
        rows = sorted(rows, key=lambda row: _mean_f1(row["cells"]))[:MOST_CLASSES]
    return {"task": task, "set": name, "student": student, "arms": arms, "total": len(known), "classes": rows}


def _means(scores: Iterable[ClassScore]) -> dict[str, float | None] | None:
    """Return the mean of each score over the runs that define it; None without a run."""
    found = list(scores)
    if not found:
        return None
    values = {key: [getattr(one, key) for one in found if getattr(one, key) is not None] for key in SCORES}
    return {key: float(np.mean(of_runs)) if of_runs else None for key, of_runs in values.items()}


def _mean_f1(cells: Iterable[dict[str, float | None] | None]) -> float:
    """Return the mean F1 over the arms; infinity if no arm defines it, so that such a class comes last."""
    values = [cell["f1"] for cell in cells if cell and cell["f1"] is not None]
    return float(np.mean(values)) if values else math.inf
