"""What each arm cost: seconds by phase, beside fine-tuning the same student, and what a teacher pass adds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from railkd.report.scores import Scores
from railkd.report.study import Run, Study, arm_order, teaches
from railkd.statistics import mean_and_sd

FINETUNE = "finetune"
PASS, TRAINING, EVALUATION = "teacher pass", "training", "evaluation"


def times(study: Study) -> dict[str, Any]:
    """Mean seconds of a run, by student and arm, over tasks and seeds; cached and live runs apart.

    ``ratio`` compares training alone with that of the arm finetune on equal tasks and seeds (a geometric mean);
    ``shared`` adds to each run its part of the teacher pass that the task's runs share, ``charged`` the whole pass.
    """
    passes = _shared_passes(study)
    groups: dict[tuple[str, str, bool], list[Run]] = defaultdict(list)
    for run in study.students:
        groups[run.record.student, run.record.arm, _live(run)].append(run)
    finetune = {
        (run.record.task, run.record.student, run.record.seed): run.record.seconds.get(TRAINING, 0.0)
        for run in study.students
        if run.record.method == FINETUNE
    }
    order = arm_order(run.record.arm for run in study.students)
    rows = []
    for student, arm, live in sorted(groups, key=lambda key: (key[0], order.index(key[1]), key[2])):
        runs = groups[student, arm, live]
        seconds = [_seconds(run, passes) for run in runs]
        base = [finetune.get((run.record.task, run.record.student, run.record.seed), 0.0) for run in runs]
        training, sd = mean_and_sd([row[TRAINING] for row in seconds])
        rows.append(
            {
                "student": student,
                "arm": arm,
                "teacher": "live" if live else "cached" if any(row["whole"] for row in seconds) else "none",
                "runs": len(runs),
                "training": training,
                "training_sd": sd,
                "evaluation": _mean([row[EVALUATION] for row in seconds]),
                "pass": _mean([row["whole"] for row in seconds]),
                "examples_per_second": _mean([run.record.examples_per_second for run in runs]),
                "peak_memory": max(run.record.peak_memory for run in runs),
                "ratio": _ratio([row[TRAINING] for row in seconds], base),
                "shared": _ratio([row[TRAINING] + row["part"] for row in seconds], base),
                "charged": _ratio([row[TRAINING] + row["whole"] for row in seconds], base),
            }
        )
    made = [
        {
            "task": made.record.task + (f" ({made.record.student})" if made.record.student else ""),
            "seconds": made.record.seconds.get(PASS, 0.0),
            "runs": users,
            "rows": made.record.sizes.get("rows"),
            "bytes": made.record.sizes.get("bytes"),
        }
        for made, users in sorted(passes, key=lambda item: (item[0].record.task, item[0].record.student))
    ]
    return {"rows": rows, "passes": made}


def cost(study: Study, scores: Scores) -> list[dict[str, Any]]:
    """A point for each student and arm: average test score in the domain, seconds of training, parameters."""
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


def _shared_passes(study: Study) -> list[tuple[Run, int]]:
    """Teacher passes, and how many runs share each."""
    return [(made, sum(_reads(run, made) for run in study.students)) for made in study.caches]


def _reads(run: Run, made: Run) -> bool:
    return _reads_cache(run) and run.record.task == made.record.task and teaches(made, run.record.student)


def _live(run: Run) -> bool:
    return bool(run.record.config.get("live"))


def _reads_cache(run: Run) -> bool:
    return run.record.method != FINETUNE and not _live(run)


def _seconds(run: Run, passes: list[tuple[Run, int]]) -> dict[str, float]:
    """Phases of a run; the pass it made itself is all its own, one that is shared is a part of it."""
    seconds = run.record.seconds
    own = seconds.get(PASS, 0.0)
    found = ((made.record.seconds.get(PASS, 0.0), users) for made, users in passes if _reads(run, made))
    shared, users = next(found, (0.0, 0))
    return {
        TRAINING: seconds.get(TRAINING, 0.0),
        EVALUATION: seconds.get(EVALUATION, 0.0),
        "part": own + (shared / users if users else 0.0),
        "whole": own + shared,
    }


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Geometric mean of the ratios of pairs; None without any."""
    pairs = [mine / yours for mine, yours in zip(ours, theirs, strict=True) if mine > 0 and yours > 0]
    return float(np.exp(np.mean(np.log(pairs)))) if pairs else None


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
