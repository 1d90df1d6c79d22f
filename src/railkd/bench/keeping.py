"""Deletes the weights of students that a grid does not keep. Records, predictions, scores and curves always stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from railkd.bench.plan import Job
from railkd.data.sources import SELECTION_SET
from railkd.jobs.run_folder import RunFolder
from railkd.models.checkpoints import OBJECTIVE_FILE
from railkd.records import RunRecord
from railkd.tasks.metrics import greater_is_better


def drop_unwanted(job: Job, jobs: Sequence[Job], records: Mapping[str, RunRecord], output: Path, kept: str) -> None:
    """Delete the weights that are not wanted after a run has finished.

    Args:
        job: the run.
        jobs: the plan.
        records: of the jobs that have ended, by folder.
        output: the bench's folder.
        kept: "all"; "none"; or "best": of the finished seeds of the same task, student and arm, the one with the best
            score on the rows that choose the epoch.
    """
    if kept == "all" or job.kind != "distill" or records[job.folder].state != "finished":
        return
    key = (job.kind, job.task, job.student, job.arm)
    alike = [job]
    if kept == "best":
        ended = [j for j in jobs if j.folder in records and records[j.folder].state == "finished"]
        alike = [other for other in ended if (other.kind, other.task, other.student, other.arm) == key]
        alike.remove(max(alike, key=lambda other: _score(records[other.folder])))
    for other in alike:
        drop_weights(output / other.folder)


def drop_weights(folder: Path) -> None:
    """Delete the trained model of a run, and the weights of its objective.

    Args:
        folder: of the run. Only files that railkd wrote are deleted.
    """
    ledger = RunFolder(folder).ledger
    models = tuple(f"{name}/" for name in RunFolder.MODELS.values())
    names = [name for name in ledger.names() if name.startswith(models) or name == OBJECTIVE_FILE]
    if names:
        ledger.remove(names)


def _score(record: RunRecord) -> float:
    """Return the score on the selection set, so that higher is better; 0 without one: then the first seed is kept."""
    metric, value = next(iter(record.metrics.get(SELECTION_SET, {}).items()), ("accuracy", 0.0))
    return value if greater_is_better(metric) else -value
