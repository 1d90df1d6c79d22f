"""The loop of a bench: start the jobs that are ready, take those that ended, write the records.

It is the same for every executor.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from railkd.bench.display import Progress
from railkd.bench.executors.protocol import Executor, Outcome
from railkd.bench.keeping import drop_unwanted
from railkd.bench.ownership import GRID, claim, is_bench
from railkd.bench.plan import Job
from railkd.bench.results import NOT_RUN, read_record, write_failure
from railkd.errors import RailkdError
from railkd.jobs.run_folder import RunFolder
from railkd.models.named_teachers import named_teachers
from railkd.records import RECORDS_FILE, RunRecord, write_lines
from railkd.runtime.files import write_text
from railkd.runtime.ownership import LOCK, hold

#: Seconds that the loop waits for a job to end before it looks again.
_WAIT = 0.25
#: Starts the error of a run whose teacher is no better than an answer without a model.
_WEAK = "weak teacher: "


@contextmanager
def lock_folder(output: Path, *, resume: bool, overwrite: bool, folders: Iterable[str] = ()) -> Iterator[None]:
    """Reserve the bench's folder while the bench runs.

    Args:
        output: the folder; made if it does not exist.
        resume: the folder may hold a bench, which is continued.
        overwrite: the folder may hold a bench, whose jobs and records are deleted; what railkd did not write stays.
        folders: of the jobs, relative to the bench's folder.

    Yields:
        Nothing; the lock is held inside the block.

    Raises:
        RailkdError: the folder holds files that belong to no bench, or a bench although neither ``resume`` nor
            ``overwrite`` is given, or another bench runs in it.
    """
    if output.is_file():
        raise RailkdError(f"--output '{output}': expected a folder, got a file")
    ours = is_bench(output)
    if not ours and output.is_dir() and any(path.name != LOCK for path in output.iterdir()):
        raise RailkdError(
            f"--output '{output}': the folder holds files that do not belong to a bench. Fix: name another "
            "folder, or empty this one"
        )
    if ours and not (resume or overwrite):
        raise RailkdError(
            f"--output '{output}': the folder holds a bench. Fix: --resume continues it, --overwrite runs it again"
        )
    with hold(output, f"--output '{output}': another bench is running in it. Fix: wait for it, or stop it"):
        claim(output, folders, overwrite=overwrite)
        yield


def run(
    jobs: Sequence[Job],
    executor: Executor,
    output: Path,
    *,
    done: Mapping[str, RunRecord],
    grid: str,
    retries: int,
    progress: Progress,
    kept: str = "all",
) -> list[RunRecord]:
    """Run a plan to its end.

    Args:
        jobs: the plan.
        executor: where the jobs run.
        output: the bench's folder.
        done: records of the jobs that are finished already, by folder (`railkd.bench.results.read_finished`). These
            jobs are not run.
        grid: the text of the grid file, kept beside the records.
        retries: how often a job is retried whose process crashed.
        progress: shows what happens.
        kept: which students keep their weights (`railkd.bench.keeping`).

    Returns:
        A record for each job, in the order of the plan.
    """
    write_text(output / GRID, grid)
    loop = _Loop(jobs, executor, output, done, retries, progress, kept)
    loop.write_records()
    progress.begin(jobs, loop.records, executor.slots)
    for job in jobs:
        if job.folder in done:
            drop_unwanted(job, jobs, done, output, kept)  # the grid may have asked for less since
            loop.leave_out_followers(job)
    while loop.waiting or loop.running:
        loop.start_ready()
        outcome = executor.next(_WAIT) if loop.running else None
        if outcome is not None:
            loop.take(outcome)
    return [loop.records[job.folder] for job in jobs]


class _Loop:
    """The state of a bench: which jobs wait, run and have ended."""

    def __init__(
        self,
        jobs: Sequence[Job],
        executor: Executor,
        output: Path,
        done: Mapping[str, RunRecord],
        retries: int,
        progress: Progress,
        kept: str,
    ) -> None:
        self.jobs, self.executor, self.output = jobs, executor, output
        self.retries, self.progress, self.kept = retries, progress, kept
        self.records = dict(done)
        self.waiting = {job.folder: job for job in jobs if job.folder not in self.records}
        #: Folder of a running job -> the time it was started.
        self.running: dict[str, float] = {}
        self.crashes: dict[str, int] = {}

    def write_records(self) -> None:
        ended = [self.records[job.folder] for job in self.jobs if job.folder in self.records]
        write_lines(self.output / RECORDS_FILE, ended)

    def start_ready(self) -> None:
        """Start the jobs whose needs are met while slots are free."""
        for job in list(self.waiting.values()):
            if len(self.running) < self.executor.slots and all(need in self.records for need in job.needs):
                del self.waiting[job.folder]
                self.executor.submit(job)
                self.running[job.folder] = time.monotonic()
                self.progress.start(job)

    def take(self, outcome: Outcome) -> None:
        """Retry a crashed job, or record the end of a job."""
        job = outcome.job
        seconds = time.monotonic() - self.running.pop(job.folder)
        if outcome.crashed:
            count = self.crashes[job.folder] = self.crashes.get(job.folder, 0) + 1
            if count <= self.retries:
                self.progress.retry(job, outcome.error)
                self.waiting = {job.folder: job} | self.waiting
                return
            write_failure(job, str(self.output), f"{outcome.error}, {count} times")
        self.end(job, seconds)

    def end(self, job: Job, seconds: float | None = None) -> None:
        record = read_record(job, str(self.output))
        assert record is not None
        self.records[job.folder] = record
        self.write_records()
        drop_unwanted(job, self.jobs, self.records, self.output, self.kept)
        self.progress.end(job, record, seconds)
        self.leave_out_followers(job)

    def leave_out_followers(self, job: Job) -> None:
        """Leave out what would fail because of a job that ended: said in one line, however many jobs it are."""
        record = self.records[job.folder]
        followers, reason = find_followers(job, record, self.waiting.values())
        for follower in followers:
            del self.waiting[follower.folder]
            write_failure(follower, str(self.output), f"{NOT_RUN}{reason}")
            left = read_record(follower, str(self.output))
            assert left is not None
            self.records[follower.folder] = left
        if followers:
            self.write_records()
            self.progress.leave_out(job, followers, {f.folder: self.records[f.folder] for f in followers}, reason)


def find_followers(job: Job, record: RunRecord, waiting: Iterable[Job]) -> tuple[list[Job], str]:
    """Find the jobs that would fail because of a job that ended.

    Args:
        job: the job that ended.
        record: what it left.
        waiting: the jobs that have not started.

    Returns:
        The jobs, and the reason in words: the job failed, or it is a teacher that is too weak, or the first run found
        its teacher too weak.
    """
    jobs = list(waiting)
    if record.state != "finished" and not record.error.startswith(_WEAK):
        lost = {job.folder}
        for other in jobs:  # each stands behind the jobs that it needs
            lost |= {other.folder} if lost.intersection(other.needs) else set()
        return [other for other in jobs if other.folder in lost], f"'{job.folder}' failed"
    if record.state != "finished":
        teacher, reason = _teacher_of(job), record.error.removeprefix(_WEAK)
    elif job.kind == "finetune" and record.finding.get("level") == "error":
        teacher = [str(RunFolder(Path(str(job.request.options.output))).model("finetune"))]
        reason = f"{record.finding['detail']}; {record.finding['fix']}"
    else:
        return [], ""
    runs = [other for other in jobs if other.kind == "distill" and _teacher_of(other) == teacher]
    asked = {run.folder: run.request.options for run in runs}
    guarded = [
        run
        for run in runs
        if (asked[run.folder].cache or asked[run.folder].teacher_labels)
        and not (asked[run.folder].allow_weak_teacher or asked[run.folder].rescale_teacher)
    ]
    needed = {need for other in jobs if other.kind == "distill" and other not in guarded for need in other.needs}
    built = [other for other in jobs if other.kind == "cache" and other.folder not in needed]
    passes = [other for other in built if [other.request.options.teacher] == teacher]
    return [*passes, *guarded], f"its teacher is weak: {reason}"


def _teacher_of(job: Job) -> list[str]:
    """Return the teachers of a run: their checkpoints and the files of their answers."""
    return [one.name for one in named_teachers(job.request.options)]
