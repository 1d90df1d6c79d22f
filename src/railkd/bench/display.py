"""Shows a running bench: a live table on a terminal, otherwise a plain line for each job."""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from railkd.bench.plan import Job
from railkd.bench.results import NOT_RUN
from railkd.records import RunRecord
from railkd.runtime.words import counted, duration, listed, visible


def describe_job(job: Job) -> str:
    """Return a job in words, such as ``RTE, teacher`` or ``RTE, 3-layers, kd, seed 1``.

    Args:
        job: of the plan.
    """
    if job.kind == "distill":
        return f"{job.task}, {job.student}, {job.arm}, seed {job.seed}"
    return f"{job.task}, {job.arm or 'teacher pass'}"


def find_main_score(record: RunRecord) -> tuple[str, float] | None:
    """Return the first metric of the first in-domain test, or of the first test if none is in domain.

    Args:
        record: of a job.

    Returns:
        Test and metric, and the value; None if the record has no scores.
    """
    tests = [name for name in record.metrics if name != "eval"]
    in_domain = [name for name in tests if record.domains.get(name) == "in"] or tests or list(record.metrics)
    for name in in_domain[:1]:
        metric, value = next(iter(record.metrics[name].items()))
        return f"{name} {metric}", value
    return None


def describe_best(records: Sequence[RunRecord], task: str) -> str:
    """Return in words the student and arm of a task with the highest mean over its finished seeds.

    It shows how the bench proceeds. It is no result: nothing is tested here.

    Args:
        records: of all jobs.
        task: whose students are compared.

    Returns:
        The text; empty if no student has finished.
    """
    scores: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for record in records:
        score = find_main_score(record) if record.job == "distill" and record.task == task else None
        if score:
            scores[record.student, record.arm, score[0]].append(score[1])
    if not scores:
        return ""
    means = {key: statistics.fmean(values) for key, values in scores.items()}
    best = max(means, key=means.__getitem__)
    student, arm, metric = best
    ties = sum(mean == means[best] for mean in means.values()) - 1
    equal = f" and {ties} equal" if ties else ""
    seeds = f", {len(scores[best])} seeds" if len(scores[best]) > 1 else ""
    return f"{student}, {arm}{equal}: {metric} {means[best]:.4f}{seeds}"


def estimate_seconds_left(
    waiting: Sequence[Job], running: Mapping[str, tuple[Job, float]], taken: Sequence[tuple[Job, float]], slots: int
) -> float | None:
    """Estimate the time to the end of a plan from the jobs that finished.

    The estimate of a job is the mean over finished jobs of the same task, student and arm, or else of the same task
    and student, or else of the same task, or else of the same kind.

    Args:
        waiting: jobs that have not started.
        running: folder -> a job that runs, and the seconds since its start.
        taken: finished jobs and their seconds.
        slots: jobs at a time.

    Returns:
        Seconds, or None if no job of some kind has finished.
    """
    alike: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for job, seconds in taken:
        for key in _keys(job):
            alike[key].append(seconds)
    means = {key: statistics.fmean(values) for key, values in alike.items()}
    total = 0.0
    for job, elapsed in [*((job, 0.0) for job in waiting), *running.values()]:
        expected = next((means[key] for key in _keys(job) if key in means), None)
        if expected is None:
            return None
        total += max(0.0, expected - elapsed)
    return total / slots


def _keys(job: Job) -> list[tuple[str, ...]]:
    """Return what similar jobs have in common, the most similar first."""
    whole = (job.kind, job.task, job.student, job.arm)
    return [whole[:length] for length in (4, 3, 2, 1)]


class Progress:
    """Shows the state of a bench. The loop calls its methods when something happens.

    Args:
        title: of the bench.
        quiet: print failed jobs only.
        console: where the table goes (default: standard error).
    """

    def __init__(self, title: str, *, quiet: bool = False, console: Console | None = None) -> None:
        self.title, self.quiet = title, quiet
        self._console = console or Console(stderr=True)
        self._jobs: Sequence[Job] = ()
        self._records: dict[str, RunRecord] = {}
        self._running: dict[str, tuple[Job, float]] = {}
        self._taken: list[tuple[Job, float]] = []
        self._slots = 1
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal and not self.quiet:
            self._live = Live(console=self._console, transient=True, refresh_per_second=4, get_renderable=self.render)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, jobs: Sequence[Job], records: Mapping[str, RunRecord], slots: int) -> None:
        """Take the plan and print its size.

        Args:
            jobs: the plan.
            records: of the jobs that are done already, by folder.
            slots: jobs at a time.
        """
        self._jobs, self._records, self._slots = jobs, dict(records), slots
        done = f", {len(records)} of them done already" if records else ""
        self._print(f"{self.title}: {len(jobs)} jobs{done}; {slots} at a time")

    def start(self, job: Job) -> None:
        """Note that a job started.

        Args:
            job: of the plan.
        """
        self._running[job.folder] = (job, time.monotonic())

    def retry(self, job: Job, error: str) -> None:
        """Print that the process of a job crashed and that the job is retried.

        Args:
            job: of the plan.
            error: how the process ended.
        """
        self._running.pop(job.folder, None)
        self._print(f"{describe_job(job)}: {error}; retrying")

    def end(self, job: Job, record: RunRecord, seconds: float | None) -> None:
        """Print that a job finished or failed.

        Args:
            job: of the plan.
            record: what it wrote.
            seconds: since its start; None if it was not run.
        """
        self._running.pop(job.folder, None)
        self._records[job.folder] = record
        if seconds is not None and record.state == "finished":
            self._taken.append((job, seconds))
        count = f"[{len(self._records)}/{len(self._jobs)}]"
        if record.state == "failed":
            self._print(f"{count} {describe_job(job)}: failed: {record.error}", loud=True)
            return
        score = find_main_score(record)
        result = f"{score[0]} {score[1]:.4f}" if score else f"{record.sizes.get('rows', 0):,} rows"
        time_ = f", {duration(seconds)}" if seconds is not None else ""
        left = self._time_left() if self._live is None else ""
        self._print(f"{count} {describe_job(job)}: {result}{time_}" + (f"; {left}" if left else ""))

    def leave_out(self, job: Job, left_out: Sequence[Job], records: Mapping[str, RunRecord], reason: str) -> None:
        """Print in one line that jobs are left out because of another job.

        Args:
            job: the job that failed, or whose teacher is weak.
            left_out: the jobs that are not run.
            records: what is written of them, by folder.
            reason: in words.
        """
        self._records |= records
        counts = Counter(other.kind for other in left_out)
        kinds = {"cache": "teacher pass", "distill": "run"}
        parts = [counted(count, kinds.get(kind, kind)) for kind, count in counts.items()]
        where = describe_job(job) if job.kind != "distill" else job.task
        self._print(f"[{len(self._records)}/{len(self._jobs)}] {where}: {listed(parts)} left out: {reason}", loud=True)

    def note(self, line: str) -> None:
        """Print a line.

        Args:
            line: without an end of line.
        """
        self._print(line)

    def _print(self, line: str, *, loud: bool = False) -> None:
        if self._live is not None:
            self._live.console.print(Text(visible(line), style="red" if loud else ""))
        elif loud or not self.quiet:
            print(visible(line), file=sys.stderr, flush=True)

    def _time_left(self) -> str:
        now = time.monotonic()
        running = {folder: (job, now - start) for folder, (job, start) in self._running.items()}
        waiting = [job for job in self._jobs if job.folder not in self._records and job.folder not in running]
        if not waiting and not running:
            return ""
        seconds = estimate_seconds_left(waiting, running, self._taken, self._slots)
        return "" if seconds is None else f"about {duration(seconds)} left"

    def render(self) -> Group:
        """Return the live table in its current state."""
        records = list(self._records.values())
        left_out = sum(record.error.startswith(NOT_RUN) for record in records)
        failed = sum(record.state == "failed" for record in records) - left_out
        head = [f"{self.title}: {len(records) - left_out} of {len(self._jobs)} jobs done"]
        head += [f"{failed} failed"] if failed else []
        head += [f"{left_out} left out"] if left_out else []
        head += [left] if (left := self._time_left()) else []
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
        for name in ("task", "teacher", "students", "best so far"):
            table.add_column(name, overflow="fold")
        for task in dict.fromkeys(job.task for job in self._jobs):
            own = [job for job in self._jobs if job.task == task]
            students = [job for job in own if job.kind == "distill"]
            done = sum(job.folder in self._records for job in students)
            table.add_row(
                Text(visible(task)),
                self._teachers(own),
                f"{done} of {len(students)}",
                Text(visible(describe_best(records, task))),
            )
        now = time.monotonic()
        running = [
            Text(visible(f"running: {describe_job(job)} ({duration(now - start)})"), style="dim")
            for job, start in self._running.values()
        ]
        bar = ProgressBar(total=max(1, len(self._jobs)), completed=len(records), width=60)
        return Group(Text(visible(", ".join(head)), style="bold"), bar, table, *running)

    def _teachers(self, jobs: Sequence[Job]) -> str:
        """Return the score or the state of each teacher among these jobs."""
        return ", ".join(self._state(job) for job in jobs if job.kind in ("finetune", "evaluate"))

    def _state(self, job: Job) -> str:
        record = self._records.get(job.folder)
        if record and (score := find_main_score(record)):
            return f"{score[1]:.4f}"
        if record and record.state == "failed":
            return "failed"
        return "running" if job.folder in self._running else "-"
