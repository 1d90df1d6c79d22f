"""The loop: start what is ready, take what has ended, write the records. Equal for every executor."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from railkd.bench import attempt
from railkd.bench.display import Progress
from railkd.bench.executor import Executor
from railkd.bench.plan import Job
from railkd.errors import Problems, RailkdError
from railkd.records import RunRecord, write_lines
from railkd.runtime.files import write_text

GRID, RECORDS = "grid.yaml", "records.jsonl"
_ROOMS = ("teachers", "caches", "runs")
_OURS = {GRID, RECORDS, ".lock", *_ROOMS}


@contextmanager
def claimed(output: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make the bench's folder ours while it runs.

    Raises:
        RailkdError: it holds something else, another bench without a word what to do with it, or one that runs.
    """
    if output.is_file():
        raise RailkdError(f"--output '{output}' is a file, wanted a folder")
    there = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if there - {".lock"} and GRID not in there:
        raise RailkdError(f"--output '{output}' holds files that are no bench; name another folder, or empty it")
    if GRID in there and not (resume or overwrite):
        raise RailkdError(
            f"--output '{output}' holds another bench; --resume goes on with it, --overwrite runs all of it again"
        )
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RailkdError(f"--output '{output}': another bench is running there; wait for it, or stop it") from None
    try:
        if overwrite:
            for name in _ROOMS:
                shutil.rmtree(output / name, ignore_errors=True)
            (output / RECORDS).unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def finished(jobs: Sequence[Job], output: str) -> dict[str, RunRecord]:
    """The records of what an earlier bench has finished, by folder; what failed or was cut is not among them.

    Raises:
        RailkdError: a finished job that now has other settings.
    """
    found, problems = {}, Problems()
    for job in jobs:
        record = attempt.result(job, output)
        if record is None or record.state != "finished":
            continue
        found[job.folder] = record
        if other := attempt.changed(job, record):
            problems.add(f"'{job.folder}' is finished with other settings: {'; '.join(other)}")
    if problems.found:
        many = f" (and {len(problems.found) - 1} more)" if len(problems.found) > 1 else ""
        raise RailkdError(
            f"{problems.found[0]}{many}; give the grid its old settings, remove the folders of these, or use another "
            "--output"
        )
    return found


def forgotten(jobs: Sequence[Job], output: Path) -> list[str]:
    """Folders of finished students that the plan has no longer."""
    kept = {job.folder for job in jobs}
    there = sorted(path.parent.name for path in output.glob(f"runs/*/{attempt.RECORD}"))
    return [f"runs/{name}" for name in there if f"runs/{name}" not in kept]


def run(
    jobs: Sequence[Job],
    executor: Executor,
    output: Path,
    *,
    done: Mapping[str, RunRecord],
    grid: str,
    retries: int,
    progress: Progress,
) -> list[RunRecord]:
    """Run a plan to its end.

    Args:
        done: of `finished`, which is not run again.
        grid: the text of the grid file, kept beside the records.
        retries: how often a job is tried again whose process died.

    Returns:
        A record for each job, in the order of the plan.
    """
    records = dict(done)
    write_text(output / GRID, grid)
    waiting = {job.folder: job for job in jobs if job.folder not in records}
    running: dict[str, float] = {}
    tries: dict[str, int] = {}

    def keep() -> None:
        write_lines(output / RECORDS, [records[job.folder] for job in jobs if job.folder in records])

    def ended(job: Job, seconds: float | None = None) -> None:
        record = attempt.result(job, str(output))
        assert record is not None
        records[job.folder] = record
        keep()
        progress.ended(job, record, seconds)

    keep()
    progress.begin(jobs, records, executor.slots)
    while waiting or running:
        for job in list(waiting.values()):
            lost = [need for need in job.needs if need in records and records[need].state != "finished"]
            if lost:
                del waiting[job.folder]
                attempt.fail(job, str(output), f"not run, because '{lost[0]}' failed")
                ended(job)
            elif len(running) < executor.slots and all(need in records for need in job.needs):
                del waiting[job.folder]
                executor.submit(job)
                running[job.folder] = time.monotonic()
                progress.started(job)
        outcome = executor.next(0.25) if running else None
        if outcome is None:
            continue
        job, seconds = outcome.job, time.monotonic() - running.pop(outcome.job.folder)
        tries[job.folder] = tries.get(job.folder, 0) + 1
        if outcome.died and tries[job.folder] <= retries:
            progress.died(job, outcome.error)
            waiting = {job.folder: job} | waiting
            continue
        if outcome.died:
            attempt.fail(job, str(output), f"{outcome.error}, {tries[job.folder]} times")
        ended(job, seconds)
    return [records[job.folder] for job in jobs]
