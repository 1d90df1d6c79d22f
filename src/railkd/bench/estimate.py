"""Estimates what a grid will take before it runs: the number of jobs, the bytes on disk, and the time.

The time of a job is the mean of finished jobs that differ only in their seed. Without such jobs it is computed from the
speed of its model, which is measured once on this machine. Models and rows that would have to be downloaded are not
measured; their time is printed as not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from railkd.bench.grid import Grid, Machine
from railkd.bench.plan import Job
from railkd.bench.results import read_record
from railkd.bench.sizes import Bases, compute_sizes, count_rows, find_local
from railkd.bench.speed import Speed, measure_speeds
from railkd.data.shares import split_share
from railkd.data.sources import Source
from railkd.jobs.options import DEFAULT_MAX_LENGTH
from railkd.models.checkpoints import Checkpoint
from railkd.models.named_teachers import as_list
from railkd.objectives import method_spec
from railkd.runtime import hardware
from railkd.runtime.progress import bar
from railkd.runtime.words import counted, duration, size, visible

#: Rows of a task that are tokenised to estimate the length of a batch.
_SAMPLE = 32


@dataclass(frozen=True)
class _Line:
    """The estimate for a task. None: not known until models and rows are on this machine."""

    task: str
    jobs: Counter[str]
    done: int
    rows: int | None
    bytes: int | None
    seconds: float | None


def print_estimate(
    grid: Grid, jobs: Sequence[Job], output: Path, machine: Machine, console: Console, *, quiet: bool = False
) -> None:
    """Print the plan: a row for each task, the sums, and where the numbers come from.

    Args:
        grid: what to compare.
        jobs: the plan of the grid.
        output: the bench's folder; its finished jobs are not counted as time left.
        machine: jobs at a time and threads of each.
        console: where the table goes.
        quiet: do not show which model is measured.
    """
    slots, threads = machine.processes or 1, machine.threads or 1
    records = {job.folder: record for job in jobs if (record := read_record(job, str(output))) is not None}
    done = {folder: record for folder, record in records.items() if record.state == "finished"}
    with hardware.limited_threads(threads):
        plan = _Plan(jobs, done, quiet=quiet)
    lines = [plan.line(task, slots) for task in dict.fromkeys(job.task for job in jobs)]
    counts = Counter("mean" if isinstance(getattr(j.request.options, "model", None), list) else j.kind for j in jobs)
    head = [counted(len(part), name) for part, name in _parts(grid)]
    totals = [counted(counts[kind], name) for kind, name in _KINDS.items() if counts[kind] or kind not in _RARE]
    console.print(Text(visible(f"{grid.name}: {' x '.join(head)} = {', '.join(totals)}")))
    console.print(Text(visible(f"arms: {', '.join(arm.name for arm in grid.arms)}")), "", _table(lines), "", sep="\n")
    disk = compute_sizes(jobs, done, output, grid.keep_students, slots)
    left = _or_unknown(_sum(line.seconds for line in lines), duration)
    where = "on the machines that Ray chooses" if machine.executor == "ray" else "on this machine"
    pace = f"{slots} at a time, {counted(threads, 'thread')} each, {where}"
    console.print(Text(f"in all: {len(done)} of {len(jobs)} jobs done; time left {left}, {pace}"))
    console.print(Text(f"on disk: {disk}"))
    console.print(Text(_SOURCES))


def _table(lines: Sequence[_Line]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for name in ("task", "teachers", "teacher passes", "runs", "done", "training rows", "caches", "time left"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for line in lines:
        kinds = [str(line.jobs[kind]) for kind in ("finetune", "cache", "distill")]
        estimates = [
            _or_unknown(line.rows or None, "{:,}".format),
            _or_unknown(line.bytes, size),
            _or_unknown(line.seconds, duration),
        ]
        table.add_row(Text(visible(line.task)), *kinds, str(line.done), *estimates)
    return table


_SOURCES = (
    "time: the mean of finished jobs that differ only in their seed; if there are none, from the speed of each model "
    "on this machine with random weights, without evaluation. not known: the model or the rows are not on this machine "
    "yet"
)
_KINDS = {"distill": "run", "finetune": "teacher", "evaluate": "given teacher", "cache": "teacher pass"}
_KINDS |= {"mean": "teacher mean"}
#: Kinds that are named where they occur.
_RARE = ("evaluate", "mean")


def _parts(grid: Grid) -> list[tuple[Sequence[Any], str]]:
    return [(grid.tasks, "task"), (grid.students, "student"), (grid.arms, "arm"), (grid.seeds, "seed")]


class _Plan:
    """The estimates for the jobs of a plan. Each model is measured once, when the first job needs its time.

    Args:
        jobs: the plan.
        done: folder -> record of the finished jobs.
        quiet: do not show which model is measured.
    """

    def __init__(self, jobs: Sequence[Job], done: dict[str, Any], *, quiet: bool) -> None:
        self.jobs, self.done, self.bases = jobs, done, Bases(jobs)
        left = [job for job in jobs if job.folder not in done]
        self.means = _mean_seconds(jobs, done)
        self.speeds = self._measure([job for job in left if _alike(job) not in self.means], quiet)

    def line(self, task: str, slots: int) -> _Line:
        """Return the estimate for a task."""
        jobs = [job for job in self.jobs if job.task == task]
        left = [job for job in jobs if job.folder not in self.done]
        seconds = _sum(self.means.get(_alike(job)) or self._expected(job) for job in left)
        return _Line(
            task=task,
            jobs=Counter(job.kind for job in jobs),
            done=len(jobs) - len(left),
            rows=_sum(map(count_rows, _sources(jobs[-1]))),
            bytes=_sum(self.bases.cache_bytes(job) for job in jobs if job.kind == "cache"),
            seconds=None if seconds is None else seconds / slots,
        )

    def _measure(self, jobs: Sequence[Job], quiet: bool) -> dict[tuple[str, int | None], Speed]:
        """Measure the models of jobs whose time is not known from finished ones."""
        wanted: dict[tuple[str, int | None], tuple[Checkpoint, int | None, int]] = {}
        for job in jobs:
            if job.kind == "evaluate" or None in map(count_rows, [*_sources(job), *_unlabelled(job)]):
                continue
            name, layers = (self.bases.teacher(job), None) if job.kind == "cache" else self.bases.start(job)
            checkpoint = find_local(name)
            if checkpoint is not None:
                rows = int(job.request.training.get("per_device_train_batch_size", 32))
                wanted.setdefault((name, layers), (checkpoint, layers, rows))
        if not wanted:
            return {}
        with bar("measuring models", "models", quiet=quiet) as advance:
            return measure_speeds(wanted.values(), advance)

    def _expected(self, job: Job) -> float | None:
        """Return the time from the speed of a model, or None if the model or the rows are not on this machine."""
        if job.kind == "evaluate":
            return 0.0
        options, source = job.request.options, _sources(job)[0]
        name, layers = (self.bases.teacher(job), None) if job.kind == "cache" else self.bases.start(job)
        speed, rows = self.speeds.get((name, layers)), _sum(map(count_rows, _sources(job)))
        more = _sum(map(count_rows, _unlabelled(job)))
        if speed is None or rows is None or more is None:
            return None
        rows = min(rows, getattr(options, "max_train_rows", None) or rows)
        tokens = min(_mean_length(name, source), options.max_length or DEFAULT_MAX_LENGTH)
        if job.kind == "cache":
            return rows * speed.seconds("forward", tokens)
        training = job.request.training
        steps = training.get("max_steps") or 0
        epochs = float(training.get("num_train_epochs", 3))
        batch = int(training.get("per_device_train_batch_size", 32))
        total = steps * batch if steps > 0 else epochs * (rows * (1 - (options.eval_share or 0)) + more)
        return total * speed.seconds("training", tokens)


def _sources(job: Job) -> list[str]:
    train = job.request.options.train
    return train if isinstance(train, list) else [str(train)]


def _unlabelled(job: Job) -> list[str]:
    """Return the sources of rows without labels that a job trains on. A run without a teacher leaves them out."""
    options = job.request.options
    taught = job.kind == "distill" and method_spec(job.request.training["method"]).needs_teacher
    return [split_share(text)[0] for text in as_list(options.unlabelled)] if taught else []


def _alike(job: Job) -> tuple[str, ...]:
    """Return what jobs that differ only in their seed have in common."""
    return job.kind, job.task, job.student, job.arm


def _mean_seconds(jobs: Sequence[Job], done: dict[str, Any]) -> dict[tuple[str, ...], float]:
    """Return the mean seconds of finished jobs that differ only in their seed."""
    found: dict[tuple[str, ...], list[float]] = {}
    for job in jobs:
        if job.folder in done:
            found.setdefault(_alike(job), []).append(sum(done[job.folder].seconds.values()))
    return {key: sum(values) / len(values) for key, values in found.items()}


def _sum(values: Iterable[Any]) -> Any:
    """Return the sum, or None if one of the values is not known."""
    found = list(values)
    return None if None in found else sum(found)


def _or_unknown(value: Any, show: Callable[[Any], str]) -> str:
    return "not known" if value is None else show(value)


@cache
def _mean_length(model: str, source: str) -> float:
    """Return the mean length of some rows in tokens of a model."""
    checkpoint = find_local(model)
    assert checkpoint is not None
    lengths = [len(ids) for ids in checkpoint.tokenizer(_sample(source), verbose=False)["input_ids"]]
    return max(2.0, sum(lengths) / len(lengths))


@cache
def _sample(source: str) -> list[str]:
    rows = Source.parse(source).rows("train")
    chosen = rows.select(range(min(_SAMPLE, len(rows))))
    return [" ".join(str(cell) for cell in row.values() if isinstance(cell, str)) for row in chosen]
