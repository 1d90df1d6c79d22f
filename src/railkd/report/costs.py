"""Cost of the arms: seconds of each phase, ratios to fine-tuning, teacher passes, and score against cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from railkd.report.scores import Scores
from railkd.report.study import Run, Study, arm_order, serves
from railkd.statistics import mean_and_sd

FINETUNE = "finetune"
#: Phases of a record.
PASS, TRAINING, EVALUATION = "teacher pass", "training", "evaluation"


def times(study: Study) -> dict[str, Any]:
    """Return the seconds of each arm and the teacher passes.

    Args:
        study: the study.

    Returns:
        ``rows``, one for each student, arm and kind of teacher (cached or live), with means over tasks and seeds, and
        ``passes``, the teacher passes. Three columns are ratios to the arm finetune on equal tasks and seeds
        (geometric means): ``ratio`` compares training alone, ``shared`` adds to each run its part of the teacher pass
        that the runs of the task share, ``charged`` adds the whole pass to each run.
    """
    passes = [(item, sum(_uses_pass(run, item) for run in study.students)) for item in study.caches]
    groups: dict[tuple[str, str, bool], list[Run]] = defaultdict(list)
    for run in study.students:
        groups[run.record.student, run.record.arm, _is_live(run)].append(run)
    finetune = {
        (run.record.task, run.record.student, run.record.seed): run.record.seconds.get(TRAINING, 0.0)
        for run in study.students
        if run.record.method == FINETUNE
    }
    order = arm_order(run.record.arm for run in study.students)
    rows = []
    for student, arm, live in sorted(groups, key=lambda key: (key[0], order.index(key[1]), key[2])):
        runs = groups[student, arm, live]
        base = [finetune.get((run.record.task, run.record.student, run.record.seed), 0.0) for run in runs]
        rows.append({"student": student, "arm": arm} | _times_row(runs, base, passes, live))
    passes.sort(key=lambda item: (item[0].record.task, item[0].record.student))
    return {"rows": rows, "passes": [_pass_row(item, users) for item, users in passes]}


def _times_row(runs: list[Run], finetune: list[float], passes: list[tuple[Run, int]], live: bool) -> dict[str, Any]:
    """Return a row of the time table. ``finetune`` is the training time of the arm finetune, run by run; 0: none."""
    seconds = [_seconds(run, passes) for run in runs]
    training, sd = mean_and_sd([row[TRAINING] for row in seconds])
    return {
        "teacher": "live" if live else "cached" if any(row["whole"] for row in seconds) else "none",
        "runs": len(runs),
        "training": training,
        "training_sd": sd,
        "evaluation": _mean([row[EVALUATION] for row in seconds]),
        "pass": _mean([row["whole"] for row in seconds]),
        "examples_per_second": _mean([run.record.examples_per_second for run in runs]),
        "peak_memory": max(run.record.peak_memory for run in runs),
        "ratio": _ratio([row[TRAINING] for row in seconds], finetune),
        "shared": _ratio([row[TRAINING] + row["part"] for row in seconds], finetune),
        "charged": _ratio([row[TRAINING] + row["whole"] for row in seconds], finetune),
    }


def _pass_row(teacher_pass: Run, users: int) -> dict[str, Any]:
    record = teacher_pass.record
    return {
        "task": record.task + (f" ({record.student})" if record.student else ""),
        "seconds": record.seconds.get(PASS, 0.0),
        "runs": users,
        "rows": record.sizes.get("rows"),
        "bytes": record.sizes.get("bytes"),
    }


def cost(study: Study, scores: Scores) -> list[dict[str, Any]]:
    """Return score against cost for each student and arm.

    Args:
        study: the study.
        scores: its scores.

    Returns:
        A point for each arm with a score on every test set of the domain: mean ``score``, ``seconds`` of training of a
        run, ``parameters``.
    """
    points = []
    for student in scores.students:
        for arm in scores.arms(student):
            columns = [column for column in scores.columns["in"] if column.points]
            values = scores.values[student, arm]
            if columns and all(values.get(column) for column in columns):
                runs = [run.record for run in study.students if (run.record.student, run.record.arm) == (student, arm)]
                points.append(
                    {
                        "student": student,
                        "arm": arm,
                        "score": _mean([_mean(list(values[column].values())) for column in columns]),
                        "seconds": _mean([record.seconds.get(TRAINING, 0.0) for record in runs]),
                        "parameters": _mean([record.sizes.get("parameters", 0) for record in runs]),
                    }
                )
    return points


def _is_live(run: Run) -> bool:
    return bool(run.record.config.get("live"))


def _uses_pass(run: Run, teacher_pass: Run) -> bool:
    """Return True if a run reads the cache that a teacher pass wrote."""
    cached = run.record.method != FINETUNE and not _is_live(run)
    return cached and run.record.task == teacher_pass.record.task and serves(teacher_pass, run.record.student)


def _seconds(run: Run, passes: list[tuple[Run, int]]) -> dict[str, float]:
    """Return the seconds of a run: training, evaluation, its part of the teacher pass, and the whole pass.

    A pass that the run made itself counts in full; a shared pass counts by its number of users.
    """
    seconds = run.record.seconds
    own = seconds.get(PASS, 0.0)
    used = [(item.record.seconds.get(PASS, 0.0), users) for item, users in passes if _uses_pass(run, item)]
    return {
        TRAINING: seconds.get(TRAINING, 0.0),
        EVALUATION: seconds.get(EVALUATION, 0.0),
        "part": own + sum(whole / users for whole, users in used if users),
        "whole": own + sum(whole for whole, _ in used),
    }


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return the geometric mean of the ratios of pairs; None without pairs."""
    pairs = [mine / yours for mine, yours in zip(ours, theirs, strict=True) if mine > 0 and yours > 0]
    return float(np.exp(np.mean(np.log(pairs)))) if pairs else None


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
