"""Reads and writes the results of jobs in the bench's folder: a record or a failure each, compared with the plan.

A finished job has its record in its folder, a failed job has `FAILURE`, and a job that was interrupted or never ran has
neither. So the folders alone say what is left to do, and resuming needs no other state.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from railkd.bench.plan import Job
from railkd.errors import Problems, RailkdError
from railkd.jobs.contents import UNSEEN, changed_settings
from railkd.jobs.run_folder import RunFolder
from railkd.records import RECORD_FILE, RunRecord

#: Files in a job's folder, which is a `RunFolder` too: its record when it failed, and its console output.
FAILURE, LOG = "failure.json", "log.txt"
#: Starts the error of a job that was not started.
NOT_RUN = "not run, because "


def read_record(job: Job, output: str) -> RunRecord | None:
    """Return the record of a job that finished or failed, labelled with the plan's names.

    Args:
        job: the job of the plan. Its task, student, arm and folder are written into the record, because the job itself
            does not know them.
        output: the bench's folder.

    Returns:
        The record, or None if the job has not ended.
    """
    folder = Path(output) / job.folder
    for file in (RunFolder(folder).record, folder / FAILURE):
        if file.is_file():
            record = RunRecord.read(file)
            record.task, record.student, record.arm, record.folder = job.task, job.student, job.arm, job.folder
            return record
    return None


def write_failure(job: Job, output: str, error: str) -> None:
    """Write `FAILURE`: a record with the state "failed" and the error.

    Args:
        job: the job that failed, or that was not run because a job it needs failed.
        output: the bench's folder.
        error: the reason, in words.
    """
    folder = Path(output) / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    record = RunRecord(job.kind, job.request.training.get("method"), job.seed, config=job.config)
    record.state, record.error = "failed", error
    record.write(folder / FAILURE)


def read_finished(jobs: Sequence[Job], output: str) -> dict[str, RunRecord]:
    """Return the records of the jobs that an earlier run of the bench finished.

    Args:
        jobs: the plan.
        output: the bench's folder.

    Returns:
        Folder of the job -> its record. Jobs that failed or were interrupted are not in it, so they run again.

    Raises:
        RailkdError: the settings of a finished job differ from those in the plan.
    """
    found, problems = {}, Problems()
    for job in jobs:
        record = read_record(job, output)
        if record is None or record.state != "finished":
            continue
        found[job.folder] = record
        if changes := list_changes(job, record):
            problems.add(f"'{job.folder}' finished with other settings: {'; '.join(changes)}")
    if problems.messages:
        many = f" (and {len(problems.messages) - 1} more)" if len(problems.messages) > 1 else ""
        raise RailkdError(
            f"{problems.messages[0]}{many}. Fix: restore the old settings in the grid, remove the folders of these "
            "jobs, or use another --output"
        )
    return found


def list_changes(job: Job, record: RunRecord) -> list[str]:
    """List the settings in which a finished job differs from the current plan.

    Args:
        job: the job of the plan.
        record: what the finished job wrote.

    Returns:
        A text such as ``epochs was 1, is 3`` for each setting that differs. Rows and models may lie elsewhere:
        `railkd.bench.contents` compares what they hold. A cache takes the rows that its students bring, and an
        evaluation does not read training rows.
    """
    compared = [*record.contents, *(["train"] if job.kind in ("cache", "evaluate") else [])]
    return changed_settings(record.config, json.loads(json.dumps(job.config)), UNSEEN, compared)


def find_removed(jobs: Sequence[Job], output: Path) -> list[str]:
    """Return the folders of finished students that are no longer in the plan.

    Args:
        jobs: the plan.
        output: the bench's folder.
    """
    planned = {job.folder for job in jobs}
    finished = sorted(path.parent.name for path in output.glob(f"runs/*/{RECORD_FILE}"))
    return [f"runs/{name}" for name in finished if f"runs/{name}" not in planned]
