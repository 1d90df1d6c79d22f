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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from railkd import checkpoints, checks, hardware
from railkd.bench import work
from railkd.bench.grid import Grid, Machine
from railkd.bench.plan import Job
from railkd.bench.progress import in_words
from railkd.options import DEFAULT_MAX_LENGTH
from railkd.tasks.files import load_rows

_ROWS = 32


@dataclass(frozen=True)
class _Speed:
    """Seconds a row: read once, and trained on once."""

    reading: float
    training: float


def describe(grid: Grid, jobs: Sequence[Job], output: Path, machine: Machine) -> str:
    """The plan in words, a line for each task, and the sums."""
    slots, threads = machine.processes or 1, machine.threads or 1
    records = {job.folder: record for job in jobs if (record := work.result(job, str(output))) is not None}
    done = {folder: record for folder, record in records.items() if record.state == "finished"}
    torch.set_num_threads(threads)
    kinds = Counter(job.kind for job in jobs)
    lines = [
        f"{grid.name}: {_many(len(grid.tasks), 'task')} x {_many(len(grid.students), 'student')} x "
        f"{_many(len(grid.arms), 'arm')} x {_many(len(grid.seeds), 'seed')} = {_many(kinds['distill'], 'run')}, "
        f"{_many(kinds['finetune'], 'teacher')}, {_many(kinds['cache'], 'teacher pass')}"
        + (f"; {len(done)} of {len(jobs)} jobs are finished" if done else ""),
        f"arms: {', '.join(arm.name for arm in grid.arms)}",
    ]
    total_bytes, total_seconds, unknown = 0, 0.0, False
    for task in dict.fromkeys(job.task for job in jobs):
        mine = [job for job in jobs if job.task == task]
        left = [job for job in mine if job.folder not in done]
        rows = _rows(str(mine[-1].options.train))
        bytes_ = [_cache_bytes(job, mine, rows) for job in mine if job.kind == "cache"]
        times = [_measured(job, done, mine) or _expected(job, mine, rows) for job in left]
        known_bytes, known_times = [b for b in bytes_ if b is not None], [t for t in times if t is not None]
        size = _size(sum(known_bytes)) if len(known_bytes) == len(bytes_) else "not known"
        takes = in_words(sum(known_times) / slots) if len(known_times) == len(times) else "not known"
        count = f"{rows:,}" if rows is not None else "not known"
        lines.append(f"{task}: {_many(len(left), 'job')} to run; training rows {count}; caches {size}; time {takes}")
        total_bytes, total_seconds = total_bytes + sum(known_bytes), total_seconds + sum(known_times)
        unknown = unknown or len(known_bytes) < len(bytes_) or len(known_times) < len(times)
    some = " for what is known" if unknown else ""
    where = "as Ray shares them out" if machine.executor == "ray" else "on this machine"
    lines.append(
        f"in all{some}: caches {_size(total_bytes)}, time about {in_words(total_seconds / slots)} with {slots} "
        f"at a time, {_many(threads, 'thread')} each, {where}"
    )
    lines.append(
        "time: from finished jobs where there are like ones, else from a few batches of each model on this machine, "
        "evaluation left out" + ("; not known: models or rows that are not on this machine yet" if unknown else "")
    )
    return "\n".join(lines)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "es" if what.endswith("s") else "s")


def _size(count: int) -> str:
    """``18.5 MB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"


def _measured(job: Job, done: dict[str, Any], jobs: Sequence[Job]) -> float | None:
    """The mean seconds of finished jobs alike but for their seed."""
    alike = [other for other in jobs if (other.kind, other.student, other.arm) == (job.kind, job.student, job.arm)]
    found = [sum(done[other.folder].seconds.values()) for other in alike if other.folder in done]
    return sum(found) / len(found) if found else None


def _expected(job: Job, jobs: Sequence[Job], rows: int | None) -> float | None:
    """From the speed of its model over the rows; None: the model or the rows are not here."""
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
    half = checks.cache_bytes(rows, config.num_hidden_layers, config.hidden_size, config.num_labels, poolings)
    return half * (2 if job.options.dtype == "float32" else 1)


@cache
def _rows(source: str) -> int | None:
    """Rows of a source on this machine; None: it is not here."""
    return load_rows(source, split="train").num_rows if _here(source) else None


def _here(source: str) -> bool:
    return Path(source).exists() or Path(source.rpartition(":")[0] or source).exists()


@cache
def _config(model: str) -> Any:
    return checkpoints.load_config(model) if Path(model).is_dir() else None


@cache
def _speed(model: str, layers: int | None, source: str, max_length: int, batch_size: int) -> _Speed | None:
    """Of a model with random weights, over batches like the task's."""
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(_config(model))
    if config is None or not _here(source):
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
    rows = load_rows(source, split="train")
    texts = [
        " ".join(str(cell) for cell in row.values() if isinstance(cell, str))
        for row in rows.select(range(min(_ROWS, len(rows))))
    ]
    lengths = [len(ids) for ids in checkpoints.load_tokenizer(model)(texts, verbose=False)["input_ids"]]
    return max(2, min(max_length, round(sum(lengths) / len(lengths))))
