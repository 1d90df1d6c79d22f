"""How training went: learning curves, which teacher block taught which, what the gauges read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from railkd.report.scores import scored
from railkd.report.study import Run, Study, arm_order

#: Terms of the loss, as logged.
TERMS = ("ce", "kd", "intermediate")
#: Points of a curve: enough for the eye, few enough for a page.
POINTS = 24


def curves(study: Study) -> list[dict[str, Any]]:
    """For each task, student and quantity: an arm's mean over seeds and its standard deviation, along the epochs."""
    groups: dict[tuple[str, str], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in study.students:
        groups[run.record.task, run.record.student][run.record.arm].append(run)
    found = []
    for task, student in sorted(groups):
        arms = groups[task, student]
        for name in (_selecting_metric(next(iter(arms.values()))), *TERMS):
            lines = [line for arm in arm_order(arms) if (line := _line(arm, [_series(run, name) for run in arms[arm]]))]
            if lines:
                found.append({"task": task, "student": student, "quantity": name, "lines": lines})
    return found


def _selecting_metric(runs: Sequence[Run]) -> str:
    """``eval_accuracy``: the metric that counts, as Trainer logs it on the selecting set."""
    counted = [column.metric for run in runs for column, _, _ in scored(run)]
    return f"eval_{counted[0]}" if counted else "eval_loss"


def _series(run: Run, name: str) -> list[tuple[float, float]]:
    return [
        (float(entry["epoch"]), float(entry[name])) for entry in run.record.curve if name in entry and "epoch" in entry
    ]


def _line(arm: str, series: Sequence[Sequence[tuple[float, float]]]) -> dict[str, Any] | None:
    """Mean and sd over seeds where all seeds have a point, thinned to `POINTS`."""
    series = [points for points in series if points]
    if not series:
        return None
    by_seed = [dict(points) for points in series]
    at = sorted(set.intersection(*map(set, by_seed)))
    if not at:
        return None
    if len(at) > POINTS:
        at = [at[round(i * (len(at) - 1) / (POINTS - 1))] for i in range(POINTS)]
    values = np.array([[points[x] for x in at] for points in by_seed])
    sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(at))
    return {"arm": arm, "seeds": len(values), "x": at, "mean": values.mean(axis=0).tolist(), "sd": sd.tolist()}


def coverage(study: Study) -> list[dict[str, Any]]:
    """For each student and arm that draws: share of draws in which a teacher block taught the 1st, 2nd, ... match."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in study.students:
        if run.record.coverage and any(map(sum, run.record.coverage.values())):
            groups[run.record.student, run.record.arm].append(run)
    found = []
    for (student, arm), runs in sorted(groups.items()):
        shapes = {(tuple(sorted(r.record.coverage)), len(next(iter(r.record.coverage.values())))) for r in runs}
        if len(shapes) == 1:  # teachers of one depth
            ((blocks, _),) = shapes
            counts = np.sum([[run.record.coverage[block] for block in blocks] for run in runs], axis=0)
            shares = counts / np.maximum(1, counts.sum(axis=0))
            draws = int(counts.sum(axis=0).max())
            found.append(
                {
                    "student": student,
                    "arm": arm,
                    "blocks": list(blocks),
                    "shares": shares.tolist(),
                    "draws": draws,
                    "runs": len(runs),
                }
            )
    return found


def similarity(study: Study) -> list[dict[str, Any]]:
    """For each student and arm: similarity of its blocks (rows) with the teacher's, before and after; mean of runs."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for run in study.students:
        matrices = run.record.gauges.get("similarity") or {}
        if matrices.get("after"):
            groups[run.record.student, run.record.arm].append(matrices)
    found = []
    for student, arm in sorted(groups, key=lambda key: (key[0], arm_order(a for _, a in groups).index(key[1]))):
        matrices = groups[student, arm]
        if len({np.shape(m["after"]) for m in matrices}) == 1:
            before = [m["before"] for m in matrices if m.get("before")]
            found.append(
                {
                    "student": student,
                    "arm": arm,
                    "runs": len(matrices),
                    "before": np.mean(before, axis=0).tolist() if before else None,
                    "after": np.mean([m["after"] for m in matrices], axis=0).tolist(),
                }
            )
    return found


def gauges(study: Study) -> list[dict[str, Any]]:
    """For each student and arm with gauges: first and last reading, mean over runs, and the collapse warnings."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in study.students:
        if run.record.gauges.get("readings"):
            groups[run.record.student, run.record.arm].append(run)
    found = []
    for (student, arm), runs in sorted(groups.items()):
        first, last = ([run.record.gauges["readings"][i] for run in runs] for i in (0, -1))
        names = [name for name in ("rank", "target_rank", "variance", "term") if name in last[0]]
        warned = [run for run in runs if run.record.gauges.get("warning")]
        found.append(
            {
                "student": student,
                "arm": arm,
                "runs": len(runs),
                "first": {name: float(np.mean([reading[name] for reading in first])) for name in names},
                "last": {name: float(np.mean([reading[name] for reading in last])) for name in names},
                "warned": len(warned),
                "warning": warned[0].record.gauges["warning"] if warned else "",
            }
        )
    return found
