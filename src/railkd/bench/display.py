"""What a user sees of a bench: one live table on a terminal, a plain line for each job elsewhere."""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from railkd.bench.plan import Job
from railkd.records import RunRecord
from railkd.runtime.words import duration


def name_of(job: Job) -> str:
    """A job in words: ``RTE, teacher``, ``RTE, 3-layers, kd, seed 1``."""
    if job.kind == "distill":
        return f"{job.task}, {job.student}, {job.arm}, seed {job.seed}"
    return f"{job.task}, {job.arm or 'teacher pass'}"


def headline(record: RunRecord) -> tuple[str, float] | None:
    """The first number of the first test in the domain (of any, if none is): its name and value."""
    tests = [name for name in record.metrics if name != "eval"]
    inside = [name for name in tests if record.domains.get(name) == "in"] or tests or list(record.metrics)
    for name in inside[:1]:
        metric, value = next(iter(record.metrics[name].items()))
        return f"{name} {metric}", value
    return None


def best_so_far(records: Sequence[RunRecord], task: str) -> str:
    """The student and arm of a task with the highest mean over its finished seeds, in words. For the eye only."""
    scores: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for record in records:
        found = headline(record) if record.job == "distill" and record.task == task else None
        if found:
            scores[record.student, record.arm, found[0]].append(found[1])
    if not scores:
        return ""
    means = {key: statistics.fmean(values) for key, values in scores.items()}
    best = max(means, key=means.__getitem__)
    student, arm, what = best
    ties = sum(mean == means[best] for mean in means.values()) - 1
    equal = f" and {ties} equal" if ties else ""
    many = f", {len(scores[best])} seeds" if len(scores[best]) > 1 else ""
    return f"{student}, {arm}{equal}: {what} {means[best]:.4f}{many}"


def seconds_left(
    waiting: Sequence[Job], running: Mapping[str, tuple[Job, float]], taken: Sequence[tuple[Job, float]], slots: int
) -> float | None:
    """What is left, from what like jobs took: of the same task, student and arm, or else of the same kind.

    None: nothing of a kind that is still to come has been done.
    """

    def expected(job: Job) -> float | None:
        alike = [
            lambda j: (j.kind, j.task, j.student, j.arm),
            lambda j: (j.kind, j.task, j.student),
            lambda j: (j.kind, j.task),
            lambda j: j.kind,
        ]
        for key in alike:
            found = [seconds for other, seconds in taken if key(other) == key(job)]
            if found:
                return statistics.fmean(found)
        return None

    total = 0.0
    for job, gone in [*((job, 0.0) for job in waiting), *running.values()]:
        likely = expected(job)
        if likely is None:
            return None
        total += max(0.0, likely - gone)
    return total / slots


class Progress:
    """Told by the loop what happens.

    Args:
        title: of the bench. quiet: say nothing but what went wrong.
        console: where it is said (default: standard error).
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
            self._live = Live(console=self._console, transient=True, refresh_per_second=4, get_renderable=self.screen)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, jobs: Sequence[Job], records: Mapping[str, RunRecord], slots: int) -> None:
        """The plan, what of it is done already, and how many run at a time."""
        self._jobs, self._records, self._slots = jobs, dict(records), slots
        there = f", {len(records)} of them there already" if records else ""
        self._say(f"{self.title}: {len(jobs)} jobs{there}; {slots} at a time")

    def started(self, job: Job) -> None:
        """A job runs."""
        self._running[job.folder] = (job, time.monotonic())

    def died(self, job: Job, error: str) -> None:
        """Its process ended; it is tried again."""
        self._running.pop(job.folder, None)
        self._say(f"{name_of(job)}: {error}; tried again")

    def ended(self, job: Job, record: RunRecord, seconds: float | None) -> None:
        """A job finished or failed."""
        self._running.pop(job.folder, None)
        self._records[job.folder] = record
        if seconds is not None and record.state == "finished":
            self._taken.append((job, seconds))
        count = f"[{len(self._records)}/{len(self._jobs)}]"
        if record.state == "failed":
            self._say(f"{count} {name_of(job)}: failed: {record.error}", loud=True)
            return
        found = headline(record)
        what = f"{found[0]} {found[1]:.4f}" if found else f"{record.sizes.get('rows', 0):,} rows"
        left = self._left()
        time_ = f", {duration(seconds)}" if seconds is not None else ""
        self._say(f"{count} {name_of(job)}: {what}{time_}" + (f"; {left}" if left and self._live is None else ""))

    def note(self, line: str) -> None:
        """Something a user should know."""
        self._say(line)

    def _say(self, line: str, *, loud: bool = False) -> None:
        if self._live is not None:
            self._live.console.print(Text(line, style="red" if loud else ""))
        elif loud or not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def _left(self) -> str:
        now = time.monotonic()
        running = {folder: (job, now - start) for folder, (job, start) in self._running.items()}
        waiting = [job for job in self._jobs if job.folder not in self._records and job.folder not in running]
        if not waiting and not running:
            return ""
        seconds = seconds_left(waiting, running, self._taken, self._slots)
        return "" if seconds is None else f"about {duration(seconds)} left"

    def screen(self) -> Group:
        """The live table as it stands."""
        records = list(self._records.values())
        failed = sum(record.state == "failed" for record in records)
        head = [f"{self.title}: {len(records)} of {len(self._jobs)} jobs done"]
        head += [f"{failed} failed"] if failed else []
        head += [left] if (left := self._left()) else []
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
        for name in ("task", "teacher", "students", "best so far"):
            table.add_column(name, overflow="fold")
        for task in dict.fromkeys(job.task for job in self._jobs):
            mine = [job for job in self._jobs if job.task == task]
            students = [job for job in mine if job.kind == "distill"]
            done = sum(job.folder in self._records for job in students)
            table.add_row(
                Text(task), Text(self._teacher(mine)), f"{done} of {len(students)}", Text(best_so_far(records, task))
            )
        now = time.monotonic()
        running = [
            Text(f"running: {name_of(job)} ({duration(now - start)})", style="dim")
            for job, start in self._running.values()
        ]
        bar = ProgressBar(total=max(1, len(self._jobs)), completed=len(records), width=60)
        return Group(Text(", ".join(head), style="bold"), bar, table, *running)

    def _teacher(self, jobs: Sequence[Job]) -> str:
        """The teachers of a task: how good, or how far."""
        said = []
        for job in jobs:
            record = self._records.get(job.folder)
            if job.kind not in ("finetune", "evaluate"):
                continue
            found = headline(record) if record else None
            state = (
                "failed" if record and record.state == "failed" else "running" if job.folder in self._running else "-"
            )
            said.append(f"{found[1]:.4f}" if found else state)
        return ", ".join(said)
