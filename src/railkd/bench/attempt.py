"""Runs one job of the plan. Every executor calls this code, so a job does the same everywhere."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from railkd.bench import method_files
from railkd.bench.plan import Job
from railkd.bench.results import FAILURE, LOG, write_failure
from railkd.errors import RailkdError, RunFailed
from railkd.jobs import cache, distill, evaluate, finetune, tracking
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.train import TrainingJob
from railkd.records import RunRecord
from railkd.runtime import hardware
from railkd.runtime.addresses import copies
from railkd.runtime.words import visible


def set_threads(threads: int) -> None:
    """Limit the threads of this process; call it before the first job.

    Args:
        threads: of torch. Tokenizers run in parallel only if it is more than 1.
    """
    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"


@contextmanager
def logged(job: Job, output: str) -> Iterator[None]:
    """Append everything that the process prints to the job's log, including the output of compiled code.

    Args:
        job: what is run.
        output: the bench's folder.

    Yields:
        Nothing.
    """
    log = Path(output) / job.folder / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    saved = os.dup(1), os.dup(2)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"# {time.strftime('%Y-%m-%d %H:%M:%S')}, process {os.getpid()}\n")
        file.flush()
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)


def run(job: Job, output: str) -> str:
    """Run a job. An error is written as a record with the state "failed"; an interruption is raised.

    Args:
        job: what to run.
        output: the bench's folder.

    Returns:
        The error in words, or an empty text.
    """
    folder = Path(output) / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE).unlink(missing_ok=True)
    hardware.reset_peak_memory()
    try:
        tags = {"task": job.task, "arm": job.arm, "seed": job.seed}
        described = tracking.described(f"{Path(output).absolute().name} {job.task}", tags)
        with described, copies(Path(output) / method_files.FOLDER):
            _do(job, folder)
        return ""
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        message = (
            " ".join(lines) if isinstance(error, (RailkdError, RunFailed)) else f"{type(error).__name__}: {lines[0]}"
        )
        write_failure(job, output, message)
        return message
    finally:
        gc.collect()  # The trainer and its model refer to each other, so counting references does not free them.


def _do(job: Job, folder: Path) -> None:
    if job.kind == "cache":
        _build_cache(job, folder)
    elif job.kind == "evaluate":
        _write(evaluate.evaluate(job.request.options, _print, keep=folder), folder)
    else:
        _train(job, folder)


def _train(job: Job, folder: Path) -> None:
    """Fine-tune or distill; resume from the newest checkpoint if an interrupted run left one."""
    resume = RunFolder(folder).can_go_on(job.config)
    if resume:
        _print("resuming from the newest checkpoint in this folder")
    jobs: dict[str, TrainingJob] = {"finetune": finetune.finetune, "distill": distill.distill}
    jobs[job.kind](job.request.with_options(resume=resume, overwrite=not resume), _print)


def _build_cache(job: Job, folder: Path) -> None:
    record = RunRecord("cache", None, job.seed, config=job.config)
    start = time.perf_counter()
    with record.phase("teacher pass"):
        built = cache.build_cache(job.request.options, _print)
    record.sizes = {"rows": built.rows, "bytes": built.bytes, "row_bytes": built.row_bytes}
    record.labels, record.contents = list(built.info.labels), {"teacher": built.identity.content()}
    record.examples_per_second = built.rows / max(time.perf_counter() - start, 1e-9)
    record.peak_memory, record.machine = hardware.peak_memory(), hardware.machine()
    _write(record, folder)


def _write(record: RunRecord, folder: Path) -> None:
    run = RunFolder(folder)
    run.own(run.record)
    record.write(run.record)


def _print(line: str) -> None:
    print(visible(line), file=sys.stderr, flush=True)
