"""What a grid will take, before it runs: jobs, bytes of the caches, and time.

Time is that of finished jobs of the same folder where there are any, and of a short measurement where not: the teacher
and each student, with random weights, go over a few batches of the task's own rows on this machine. What is on a hub
and not here is not measured, and that is said.
"""

from __future__ import annotations

import copy
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

from railkd.bench import attempt
from railkd.bench.grid import Grid, Machine
from railkd.bench.plan import Job
from railkd.data.sources import Source
from railkd.jobs import findings
from railkd.jobs.options import DEFAULT_MAX_LENGTH
from railkd.models import checkpoints
from railkd.runtime import hardware
from railkd.runtime.words import counted, duration, size

_ROWS = 32


@dataclass(frozen=True)
class _Speed:
    """Seconds a row: read once, and trained on once."""

    reading: float
    training: float


@dataclass(frozen=True)
class _Line:
    """What a task will take. None: not known before models and rows are on this machine."""

    task: str
    jobs: Counter[str]
    done: int
    rows: int | None
    bytes: int | None
    seconds: float | None


def describe(grid: Grid, jobs: Sequence[Job], output: Path, machine: Machine, console: Console) -> None:
    """Print the plan: a row for each task, the sums, and where the numbers come from."""
    slots, threads = machine.processes or 1, machine.threads or 1
    torch.set_num_threads(threads)
    records = {job.folder: record for job in jobs if (record := attempt.result(job, str(output))) is not None}
    done = {folder: record for folder, record in records.items() if record.state == "finished"}
    lines = [_line(task, [job for job in jobs if job.task == task], done, slots) for task in _tasks(jobs)]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for name in ("task", "teachers", "teacher passes", "runs", "done", "training rows", "caches", "time left"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for line in lines:
        kinds = [str(line.jobs[kind]) for kind in ("finetune", "cache", "distill")]
        known = [_or(line.rows or None, "{:,}".format), _or(line.bytes, size), _or(line.seconds, duration)]
        table.add_row(Text(line.task), *kinds, str(line.done), *known)
    counts = Counter(job.kind for job in jobs)
    head = [counted(len(part), name) for part, name in _parts(grid)]
    totals = [counted(counts[kind], name) for kind, name in _KINDS.items() if counts[kind] or kind != "evaluate"]
    where = "as Ray shares them out" if machine.executor == "ray" else "on this machine"
    console.print(Text(f"{grid.name}: {' x '.join(head)} = {', '.join(totals)}"))
    console.print(Text(f"arms: {', '.join(arm.name for arm in grid.arms)}"), "", table, "", sep="\n")
    disk = _or(_sum(line.bytes for line in lines), size)
    left = _or(_sum(line.seconds for line in lines), duration)
    pace = f"{slots} at a time, {counted(threads, 'thread')} each, {where}"
    console.print(Text(f"in all: {len(done)} of {len(jobs)} jobs done; caches {disk}; time left {left}, {pace}"))
    console.print(Text(_HOW))


_HOW = (
    "time: from finished jobs where there are like ones, else from a few batches of each model, with random weights, "
    "on this machine; evaluation is left out. not known: models or rows that are not on this machine yet"
)
_KINDS = {"distill": "run", "finetune": "teacher", "evaluate": "given teacher", "cache": "teacher pass"}


def _parts(grid: Grid) -> list[tuple[Sequence[Any], str]]:
    return [(grid.tasks, "task"), (grid.students, "student"), (grid.arms, "arm"), (grid.seeds, "seed")]


def _tasks(jobs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(job.task for job in jobs))


def _line(task: str, jobs: Sequence[Job], done: dict[str, Any], slots: int) -> _Line:
    left = [job for job in jobs if job.folder not in done]
    rows = _rows(str(jobs[-1].options.train))
    seconds = _sum(_measured(job, done, jobs) or _expected(job, jobs, rows) for job in left)
    return _Line(
        task=task,
        jobs=Counter(job.kind for job in jobs),
        done=len(jobs) - len(left),
        rows=rows,
        bytes=_sum(_cache_bytes(job, jobs, rows) for job in jobs if job.kind == "cache"),
        seconds=None if seconds is None else seconds / slots,
    )


def _sum(values: Iterable[Any]) -> Any:
    """None as soon as one is not known."""
    found = list(values)
    return None if None in found else sum(found)


def _or(value: Any, said: Callable[[Any], str]) -> str:
    return "not known" if value is None else said(value)


def _measured(job: Job, done: dict[str, Any], jobs: Sequence[Job]) -> float | None:
    """The mean seconds of finished jobs alike but for their seed."""
    alike = [other for other in jobs if (other.kind, other.student, other.arm) == (job.kind, job.student, job.arm)]
    found = [sum(done[other.folder].seconds.values()) for other in alike if other.folder in done]
    return sum(found) / len(found) if found else None


def _expected(job: Job, jobs: Sequence[Job], rows: int | None) -> float | None:
    """From the speed of its model over the rows; None: the model or the rows are not here."""
    if job.kind == "evaluate":
        return 0.0
    options = job.options
    teacher, length = _origin(job, jobs), options.max_length or DEFAULT_MAX_LENGTH
    if job.kind == "cache":
        found = _speed(
            teacher, None, str(options.train[0]), options.max_length or DEFAULT_MAX_LENGTH, options.batch_size
        )
        return None if found is None or rows is None else found.reading * rows
    start = options.student or teacher if job.kind == "distill" else teacher
    layers = options.student_layers if job.kind == "distill" else None
    batch = int(job.training.get("per_device_train_batch_size", 32))
    found = _speed(start, layers, str(options.train), length, batch)
    if found is None or rows is None:
        return None
    epochs = float(job.training.get("num_train_epochs", 3))
    steps = job.training.get("max_steps") or 0
    seen = steps * batch if steps > 0 else epochs * rows * (1 - (options.eval_share or 0))
    return found.training * seen


def _origin(job: Job, jobs: Sequence[Job]) -> str:
    """The checkpoint of a job's teacher, or what that will be fine-tuned from."""
    if job.kind == "finetune":
        return str(job.options.model)
    made = {other.folder: other for other in jobs if other.kind == "finetune"}
    return next((str(made[need].options.model) for need in job.needs if need in made), str(job.options.teacher))


def _cache_bytes(job: Job, jobs: Sequence[Job], rows: int | None) -> int | None:
    config = _config(_origin(job, jobs))
    if config is None or rows is None:
        return None
    poolings = len(job.options.pooling)
    half = findings.cache_bytes(rows, config.num_hidden_layers, config.hidden_size, config.num_labels, poolings)
    return half * (2 if job.options.dtype == "float32" else 1)


@cache
def _rows(source: str) -> int | None:
    """Rows of a source on this machine; None: it is not here."""
    found = Source.parse(source)
    return found.rows("train").num_rows if found.on_disk else None


@cache
def _config(model: str) -> Any:
    return checkpoints.load_config(model) if Path(model).is_dir() else None


@cache
def _speed(model: str, layers: int | None, source: str, max_length: int, batch_size: int) -> _Speed | None:
    """Of a model with random weights, over batches like the task's."""
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(_config(model))
    if config is None or not Source.parse(source).on_disk:
        return None
    if layers:
        config.num_hidden_layers = layers
    with checkpoints.quiet_transformers():
        network = AutoModelForSequenceClassification.from_config(config).to(hardware.device())
    length = _length(model, source, max_length)
    inputs = torch.full((batch_size, length), 5, device=hardware.device())
    mask = torch.ones_like(inputs)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0)

    def read() -> Any:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=hardware.fast_bf16()):
            return network(input_ids=inputs, attention_mask=mask).logits

    def look() -> None:
        with torch.no_grad():
            read()

    def train() -> None:
        read().float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    network.train()
    return _Speed(_seconds(look) / batch_size, _seconds(train) / batch_size)


def _seconds(step: Any, times: int = 3) -> float:
    """The least of a few; the first one warms up."""
    best = math.inf
    for number in range(times + 1):
        start = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start) if number else best
    return best


def _length(model: str, source: str, max_length: int) -> int:
    """The mean length in tokens of some rows, cut where the runs cut them."""
    rows = Source.parse(source).rows("train")
    texts = [
        " ".join(str(cell) for cell in row.values() if isinstance(cell, str))
        for row in rows.select(range(min(_ROWS, len(rows))))
    ]
    lengths = [len(ids) for ids in checkpoints.load_tokenizer(model)(texts, verbose=False)["input_ids"]]
    return max(2, min(max_length, round(sum(lengths) / len(lengths))))
