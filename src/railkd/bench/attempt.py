"""One job of the plan, done: the same function in every executor. What came of it is on disk, in the job's folder."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from railkd.bench.plan import Job
from railkd.errors import RailkdError
from railkd.jobs import cache, distill, evaluate, finetune, settings
from railkd.records import RunRecord
from railkd.runtime import hardware

#: A job's folder holds its record when it is finished, or else what it failed of; and what it said.
RECORD, FAILURE, LOG = "metrics.json", "failure.json", "log.txt"

#: Variables that hold the libraries of a process to a number of threads; read when those are imported.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def logged(task: Job, output: str) -> str:
    """`attempt`, with all that the process prints in the job's log."""
    log = Path(output) / task.folder / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(1), os.dup(2)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"# {time.strftime('%Y-%m-%d %H:%M:%S')}, process {os.getpid()}\n")
        file.flush()
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            return attempt(task, output)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, kept in zip((1, 2), before, strict=True):
                os.dup2(kept, number)
                os.close(kept)


def attempt(task: Job, output: str) -> str:
    """Run a job; an error becomes a record of state "failed" and is returned in words. Interruptions are raised."""
    folder = Path(output) / task.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE).unlink(missing_ok=True)
    hardware.forget_peak_memory()
    try:
        run(task, folder)
        return ""
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        said = " ".join(lines) if isinstance(error, RailkdError) else f"{type(error).__name__}: {lines[0]}"
        fail(task, output, said)
        return said
    finally:
        gc.collect()  # the trainer and its model refer to each other


def run(task: Job, folder: Path) -> None:
    """Run a job in its folder, where a run that was cut goes on from its own checkpoint."""

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if task.kind == "cache":
        _teacher_pass(task, folder, say)
        return
    if task.kind == "evaluate":
        evaluate.evaluate(task.options, say, keep=folder).write(folder / RECORD)
        return
    options: Any = task.options
    options.resume = goes_on(task, folder)
    options.overwrite = not options.resume
    if options.resume:
        say("goes on from the newest checkpoint here")
    train: Any = {"finetune": finetune.finetune, "distill": distill.distill}[task.kind]
    train(options, dict(task.training), say)


def goes_on(task: Job, folder: Path) -> bool:
    """Whether a folder holds a checkpoint of this very job."""
    if not any(folder.glob("checkpoint-*")) or not (folder / "config.yaml").is_file():
        return False
    return settings.load(folder / "config.yaml") == task.config


def fail(task: Job, output: str, error: str) -> None:
    """Leave a record of a job that came to nothing."""
    folder = Path(output) / task.folder
    folder.mkdir(parents=True, exist_ok=True)
    record = RunRecord(task.kind, task.training.get("method"), task.seed, config=task.config)
    record.state, record.error = "failed", error
    record.write(folder / FAILURE)


def result(task: Job, output: str) -> RunRecord | None:
    """The record of a job, named as the plan names it; None: it has not come to an end."""
    folder = Path(output) / task.folder
    for name in (RECORD, FAILURE):
        if (folder / name).is_file():
            record = RunRecord.read(folder / name)
            record.task, record.student, record.arm, record.folder = task.task, task.student, task.arm, task.folder
            return record
    return None


def changed(task: Job, record: RunRecord) -> list[str]:
    """In what a finished job was run with other settings than the plan has now, in words."""
    then, now = record.config, json.loads(json.dumps(task.config))
    return [
        f"{name} was {then.get(name, 'not given')}, is {now.get(name, 'not given')}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def _teacher_pass(task: Job, folder: Path, say: distill.Say) -> None:
    record = RunRecord("cache", None, task.seed, config=task.config)
    start = time.perf_counter()
    with record.phase("teacher pass"):
        built = cache.build_cache(task.options, say)
    record.sizes = {"rows": built.rows, "bytes": built.bytes}
    record.labels = list(built.info.labels)
    record.examples_per_second = built.rows / max(time.perf_counter() - start, 1e-9)
    record.peak_memory, record.machine = hardware.peak_memory(), hardware.machine()
    record.write(folder / RECORD)


def prepare(threads: int) -> None:
    """Before the first job of a process: as many threads as it was given."""
    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
