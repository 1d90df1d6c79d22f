"""Training dynamics: learning curves, coverage of teacher blocks, similarity of blocks, collapse gauges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from railkd.report.scores import test_scores
from railkd.report.study import Run, Study, arm_order

#: Terms of the loss, under their names in the log.
TERMS = ("ce", "kd", "intermediate")
#: Most points of a curve, which limits the size of the page.
MAX_POINTS = 24


def curves(study: Study) -> list[dict[str, Any]]:
    """Return the learning curves of every task and student.

    Args:
        study: the study.

    Returns:
        A dict for each task, student and quantity (the main metric and each loss term), with a line for each arm: its
        mean over seeds and standard deviation by epoch.
    """
    groups: dict[tuple[str, str], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in study.students:
        groups[run.record.task, run.record.student][run.record.arm].append(run)
    curves = []
    for task, student in sorted(groups):
        arms = groups[task, student]
        for name in (_selection_metric(next(iter(arms.values()))), *TERMS):
            lines = [line for arm in arm_order(arms) if (line := _line(arm, [_series(run, name) for run in arms[arm]]))]
            if lines:
                curves.append({"task": task, "student": student, "quantity": name, "lines": lines})
    return curves


def _selection_metric(runs: Sequence[Run]) -> str:
    """Return the main metric under the name that Trainer logs for the selection set, such as ``eval_accuracy``."""
    metrics = [column.metric for run in runs for column, _, _ in test_scores(run)]
    return f"eval_{metrics[0]}" if metrics else "eval_loss"


def _series(run: Run, name: str) -> list[tuple[float, float]]:
    return [
        (float(entry["epoch"]), float(entry[name])) for entry in run.record.curve if name in entry and "epoch" in entry
    ]


def _line(arm: str, series: Sequence[Sequence[tuple[float, float]]]) -> dict[str, Any] | None:
    """Return mean and standard deviation at the epochs that all seeds have, thinned to `MAX_POINTS`."""
    series = [points for points in series if points]
    if not series:
        return None
    by_seed = [dict(points) for points in series]
    epochs = sorted(set.intersection(*map(set, by_seed)))
    if not epochs:
        return None
    if len(epochs) > MAX_POINTS:
        epochs = [epochs[round(i * (len(epochs) - 1) / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]
    values = np.array([[points[x] for x in epochs] for points in by_seed])
    sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(epochs))
    return {"arm": arm, "seeds": len(values), "x": epochs, "mean": values.mean(axis=0).tolist(), "sd": sd.tolist()}


def coverage(study: Study) -> list[dict[str, Any]]:
    """Return how often each teacher block taught each matched student block, for the arms that draw blocks.

    Args:
        study: the study.

    Returns:
        A dict for each student and arm; ``shares`` is (teacher blocks, matched student blocks), each column sums to 1.
        An arm whose runs differ in depth is left out.
    """
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in study.students:
        if run.record.coverage and any(map(sum, run.record.coverage.values())):
            groups[run.record.student, run.record.arm].append(run)
    rows = []
    for (student, arm), runs in sorted(groups.items()):
        shapes = {(tuple(sorted(r.record.coverage)), len(next(iter(r.record.coverage.values())))) for r in runs}
        if len(shapes) == 1:
            ((blocks, _),) = shapes
            counts = np.sum([[run.record.coverage[block] for block in blocks] for run in runs], axis=0)
            shares = counts / np.maximum(1, counts.sum(axis=0))
            draws = int(counts.sum(axis=0).max())
            rows.append(
                {
                    "student": student,
                    "arm": arm,
                    "blocks": list(blocks),
                    "shares": shares.tolist(),
                    "draws": draws,
                    "runs": len(runs),
                }
            )
    return rows


def similarity(study: Study) -> list[dict[str, Any]]:
    """Return the similarity of student and teacher blocks, before and after training.

    Args:
        study: the study.

    Returns:
        A dict for each student and arm; ``before`` and ``after`` are (student blocks, teacher blocks), means over runs.
        An arm whose runs differ in depth is left out.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for run in study.students:
        matrices = run.record.gauges.get("similarity") or {}
        if matrices.get("after"):
            groups[run.record.student, run.record.arm].append(matrices)
    rows = []
    for student, arm in sorted(groups, key=lambda key: (key[0], arm_order(a for _, a in groups).index(key[1]))):
        matrices = groups[student, arm]
        if len({np.shape(m["after"]) for m in matrices}) == 1:
            before = [m["before"] for m in matrices if m.get("before")]
            rows.append(
                {
                    "student": student,
                    "arm": arm,
                    "runs": len(matrices),
                    "before": np.mean(before, axis=0).tolist() if before else None,
                    "after": np.mean([m["after"] for m in matrices], axis=0).tolist(),
                }
            )
    return rows


def gauges(study: Study) -> list[dict[str, Any]]:
    """Return the collapse gauges before and after training.

    Args:
        study: the study.

    Returns:
        A dict for each student and arm: its ``first`` and ``last`` reading, means over runs, the number of runs with a
        collapse warning and the first warning.
    """
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in study.students:
        if run.record.gauges.get("readings"):
            groups[run.record.student, run.record.arm].append(run)
    rows = []
    for (student, arm), runs in sorted(groups.items()):
        first, last = ([run.record.gauges["readings"][i] for run in runs] for i in (0, -1))
        names = [name for name in ("rank", "target_rank", "variance", "term") if name in last[0]]
        warned = [run for run in runs if run.record.gauges.get("warning")]
        rows.append(
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
    return rows
