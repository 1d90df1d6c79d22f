"""Estimates what a grid will take before it runs: the number of jobs, the bytes of the caches, and the time.

The time of a job is the mean of finished jobs that differ only in their seed. Without such jobs it is measured: the
teacher or student, with random weights, runs over a few batches of the task's rows on this machine. Models and rows
that would have to be downloaded are not measured; their time is printed as not known.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from railkd.bench.grid import Grid, Machine
from railkd.bench.plan import Job
from railkd.bench.results import read_record
from railkd.data.sources import Source
from railkd.jobs import findings
from railkd.jobs.options import DEFAULT_MAX_LENGTH
from railkd.models.checkpoints import Checkpoint
from railkd.models.heads import task_of_config
from railkd.models.quiet import quiet_transformers
from railkd.runtime import hardware
from railkd.runtime.words import counted, duration, size, visible
from railkd.signals import checked_poolings

#: Rows of a task that are tokenised to estimate the length of a batch.
_SAMPLE = 32


@dataclass(frozen=True)
class _Speed:
    """Seconds for one row: of a forward pass, and of a training step."""

    forward: float
    training: float


@dataclass(frozen=True)
class _Line:
    """The estimate for a task. None: not known until models and rows are on this machine."""

    task: str
    jobs: Counter[str]
    done: int
    rows: int | None
    bytes: int | None
    seconds: float | None


def print_estimate(grid: Grid, jobs: Sequence[Job], output: Path, machine: Machine, console: Console) -> None:
    """Print the plan: a row for each task, the sums, and where the numbers come from.

    Args:
        grid: what to compare.
        jobs: the plan of the grid.
        output: the bench's folder; its finished jobs are not counted as time left.
        machine: jobs at a time and threads of each.
        console: where the table goes.
    """
    slots, threads = machine.processes or 1, machine.threads or 1
    records = {job.folder: record for job in jobs if (record := read_record(job, str(output))) is not None}
    done = {folder: record for folder, record in records.items() if record.state == "finished"}
    with hardware.limited_threads(threads):
        lines = [_line(task, [job for job in jobs if job.task == task], done, slots) for task in _tasks(jobs)]
    counts = Counter(job.kind for job in jobs)
    head = [counted(len(part), name) for part, name in _parts(grid)]
    totals = [counted(counts[kind], name) for kind, name in _KINDS.items() if counts[kind] or kind != "evaluate"]
    console.print(Text(visible(f"{grid.name}: {' x '.join(head)} = {', '.join(totals)}")))
    console.print(Text(visible(f"arms: {', '.join(arm.name for arm in grid.arms)}")), "", _table(lines), "", sep="\n")
    disk = _or_unknown(_sum(line.bytes for line in lines), size)
    left = _or_unknown(_sum(line.seconds for line in lines), duration)
    where = "on the machines that Ray chooses" if machine.executor == "ray" else "on this machine"
    pace = f"{slots} at a time, {counted(threads, 'thread')} each, {where}"
    console.print(Text(f"in all: {len(done)} of {len(jobs)} jobs done; caches {disk}; time left {left}, {pace}"))
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
    "time: the mean of finished jobs that differ only in their seed; if there are none, measured on this machine with "
    "a few batches and random weights, without evaluation. not known: the model or the rows are not on this machine yet"
)
_KINDS = {"distill": "run", "finetune": "teacher", "evaluate": "given teacher", "cache": "teacher pass"}


def _parts(grid: Grid) -> list[tuple[Sequence[Any], str]]:
    return [(grid.tasks, "task"), (grid.students, "student"), (grid.arms, "arm"), (grid.seeds, "seed")]


def _tasks(jobs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(job.task for job in jobs))


def _line(task: str, jobs: Sequence[Job], done: dict[str, Any], slots: int) -> _Line:
    left = [job for job in jobs if job.folder not in done]
    rows = _rows(str(jobs[-1].request.options.train))
    seconds = _sum(_mean_seconds(job, done, jobs) or _expected_seconds(job, jobs, rows) for job in left)
    return _Line(
        task=task,
        jobs=Counter(job.kind for job in jobs),
        done=len(jobs) - len(left),
        rows=rows,
        bytes=_sum(_cache_bytes(job, jobs, rows) for job in jobs if job.kind == "cache"),
        seconds=None if seconds is None else seconds / slots,
    )


def _sum(values: Iterable[Any]) -> Any:
    """Return the sum, or None if one of the values is not known."""
    found = list(values)
    return None if None in found else sum(found)


def _or_unknown(value: Any, show: Callable[[Any], str]) -> str:
    return "not known" if value is None else show(value)


def _mean_seconds(job: Job, done: dict[str, Any], jobs: Sequence[Job]) -> float | None:
    """Return the mean over finished jobs that differ only in their seed."""
    alike = [other for other in jobs if (other.kind, other.student, other.arm) == (job.kind, job.student, job.arm)]
    found = [sum(done[other.folder].seconds.values()) for other in alike if other.folder in done]
    return sum(found) / len(found) if found else None


def _expected_seconds(job: Job, jobs: Sequence[Job], rows: int | None) -> float | None:
    """Return the time from the measured speed of a model, or None if the model or the rows are not on this machine."""
    if job.kind == "evaluate":
        return 0.0
    options = job.request.options
    teacher, length = _base_model(job, jobs), options.max_length or DEFAULT_MAX_LENGTH
    if job.kind == "cache":
        speed = _measure_speed(teacher, None, str(options.train[0]), length, options.batch_size or 32)
        return None if speed is None or rows is None else speed.forward * rows
    start = options.student or teacher if job.kind == "distill" else teacher
    layers = options.student_layers if job.kind == "distill" else None
    batch = int(job.request.training.get("per_device_train_batch_size", 32))
    speed = _measure_speed(start, layers, str(options.train), length, batch)
    if speed is None or rows is None:
        return None
    epochs = float(job.request.training.get("num_train_epochs", 3))
    steps = job.request.training.get("max_steps") or 0
    total = steps * batch if steps > 0 else epochs * rows * (1 - (options.eval_share or 0))
    return speed.training * total


def _base_model(job: Job, jobs: Sequence[Job]) -> str:
    """Return the checkpoint of a job's teacher; of a teacher that is not trained yet, what it is fine-tuned from."""
    if job.kind == "finetune":
        return str(job.request.options.model)
    finetunings = {other.folder: other for other in jobs if other.kind == "finetune"}
    bases = (str(finetunings[need].request.options.model) for need in job.needs if need in finetunings)
    return next(bases, str(job.request.options.teacher))


def _cache_bytes(job: Job, jobs: Sequence[Job], rows: int | None) -> int | None:
    checkpoint = _checkpoint(_base_model(job, jobs))
    if checkpoint is None or rows is None:
        return None
    poolings = len(checked_poolings(job.request.options.pooling))
    half = findings.cache_bytes(rows, *checkpoint.shape, checkpoint.config.num_labels, poolings)
    return half * (2 if job.request.options.dtype == "float32" else 1)


@cache
def _rows(source: str) -> int | None:
    """Return the number of rows of a source, or None if it is not on this machine."""
    parsed = Source.parse(source)
    return parsed.rows("train").num_rows if parsed.on_disk else None


@cache
def _checkpoint(model: str) -> Checkpoint | None:
    return Checkpoint.find(model) if Path(model).is_dir() else None


@cache
def _measure_speed(model: str, layers: int | None, source: str, max_length: int, batch_size: int) -> _Speed | None:
    """Return the speed of a model with random weights on batches of the task's mean length."""
    checkpoint = _checkpoint(model)
    if checkpoint is None or not Source.parse(source).on_disk:
        return None
    config = checkpoint.new_config(**({"num_hidden_layers": layers} if layers else {}))
    with quiet_transformers():
        network = task_of_config(config).auto_model().from_config(config).to(hardware.device())
    length = _mean_length(checkpoint, source, max_length)
    inputs = torch.full((batch_size, length), 5, device=hardware.device())
    mask = torch.ones_like(inputs)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0)

    def forward() -> Any:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=hardware.fast_bf16()):
            return network(input_ids=inputs, attention_mask=mask).logits

    def infer() -> None:
        with torch.no_grad():
            forward()

    def train() -> None:
        forward().float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    network.train()
    return _Speed(_seconds(infer) / batch_size, _seconds(train) / batch_size)


def _seconds(step: Any, times: int = 3) -> float:
    """Return the shortest of a few runs, after one run to warm up."""
    best = math.inf
    for number in range(times + 1):
        start = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start) if number else best
    return best


def _mean_length(checkpoint: Checkpoint, source: str, max_length: int) -> int:
    """Return the mean length in tokens of some rows, at most ``max_length``."""
    rows = Source.parse(source).rows("train")
    texts = [
        " ".join(str(cell) for cell in row.values() if isinstance(cell, str))
        for row in rows.select(range(min(_SAMPLE, len(rows))))
    ]
    lengths = [len(ids) for ids in checkpoint.tokenizer(texts, verbose=False)["input_ids"]]
    return max(2, min(max_length, round(sum(lengths) / len(lengths))))
