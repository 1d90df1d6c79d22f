"""Worker processes on this machine. They stay alive between jobs, because importing transformers takes seconds."""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from railkd.bench.executors.protocol import Outcome
from railkd.bench.plan import Job

#: Variables that limit the threads of the libraries in a process. The libraries read them when they are imported.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")

#: Seconds until the pipe of an ended worker is closed; a process that the worker started may hold it open for longer.
_DRAIN = 1.0
#: Seconds that an interrupted worker has to save a checkpoint.
_GRACE = 10.0


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    reader: threading.Thread
    job: Job | None = None


@contextmanager
def _delay_signals() -> Iterator[None]:
    """Delay Ctrl-C, SIGTERM and SIGHUP until the block ends.

    Between the start of a worker and its entry in the list of workers, an exception would leave the worker orphaned.
    Blocking the signals (``pthread_sigmask``) does not help: another thread of this process then receives them, and
    Python still raises in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():  # Python raises signals in the main thread only.
        yield
        return
    received: list[int] = []
    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # A signal that is ignored has no callable handler and stays ignored.
    handlers = {number: handler for number in signals if callable(handler := signal.getsignal(number))}
    try:
        for number in handlers:
            signal.signal(number, lambda number, frame: received.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


class LocalExecutor:
    """Runs jobs in worker processes on this machine.

    Args:
        output: the bench's folder.
        processes: the number of workers, and so of jobs at a time.
        threads: of each worker.
        gpus: GPUs of each worker. With 0.5, two workers share one. A worker sees its own devices only.
    """

    def __init__(self, output: str, *, processes: int, threads: int, gpus: float = 0.0) -> None:
        self.slots = processes
        self._output, self._threads, self._gpus = output, threads, gpus
        self._workers: dict[int, _Worker] = {}
        # A thread for each worker reads its answers, because Windows cannot wait for several pipes at once.
        self._answers: queue.Queue[tuple[subprocess.Popen[str], str]] = queue.Queue()

    def submit(self, job: Job) -> None:
        """Send a job to an idle worker, or start a worker for it.

        Args:
            job: what to run.
        """
        idle = [number for number, worker in self._workers.items() if worker.job is None]
        number = idle[0] if idle else next(n for n in range(self.slots) if n not in self._workers)
        worker = self._workers.get(number) or self._start(number)
        worker.job = job
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # The worker crashed while it was idle: `next` reports that.
            worker.process.stdin.write(json.dumps(job.plain()) + "\n")
            worker.process.stdin.flush()

    def next(self, seconds: float) -> Outcome | None:
        """Return the next job whose worker answered or crashed.

        Args:
            seconds: how long to wait for one.

        Returns:
            The outcome, or None if no job ended in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                process, line = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            number = next((n for n, worker in self._workers.items() if worker.process is process), None)
            if number is None:  # a worker that was removed before its pipe closed
                continue
            worker, job = self._workers[number], self._workers[number].job
            if line and job is not None:
                worker.job = None
                return Outcome(job, json.loads(line)["error"])
            code = self._remove(number)
            if job is not None:
                return Outcome(job, f"its process ended {_describe_exit(code)}", crashed=True)

    def close(self) -> None:
        """Interrupt the busy workers, so that they save checkpoints; kill those that take longer than 10 seconds."""
        for worker in self._workers.values():
            if worker.job:
                worker.process.terminate()
            elif worker.process.stdin is not None:
                with suppress(BrokenPipeError):
                    worker.process.stdin.close()  # It deletes its temporary folders and leaves.
        deadline = time.monotonic() + _GRACE
        for worker in self._workers.values():
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))
        for number in list(self._workers):
            self._remove(number)

    @_delay_signals()
    def _start(self, number: int) -> _Worker:
        process = subprocess.Popen(
            [sys.executable, "-m", "railkd.bench.executors.local_worker", self._output, str(self._threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | worker_environment(number, self._threads, self._gpus, os.environ),
            start_new_session=True,  # Ctrl-C reaches the bench alone, which then stops its workers itself.
        )
        reader = threading.Thread(target=_read_answers, args=(process, self._answers), daemon=True)
        worker = self._workers[number] = _Worker(process, reader)
        reader.start()
        return worker

    @_delay_signals()
    def _remove(self, number: int) -> int:
        """Return the exit code of a worker, which is killed if it still runs."""
        worker = self._workers.pop(number)
        worker.process.kill()
        code = worker.process.wait()
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):
            worker.process.stdin.close()
        worker.reader.join(_DRAIN)
        return code


def _read_answers(process: subprocess.Popen[str], answers: queue.Queue[tuple[subprocess.Popen[str], str]]) -> None:
    """Queue the lines that a worker answers, and an empty text when its pipe closes."""
    assert process.stdout is not None
    with process.stdout as pipe:
        for line in pipe:
            answers.put((process, line))
    answers.put((process, ""))


def worker_environment(number: int, threads: int, gpus: float, given: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables that give a worker its threads and its share of the GPUs.

    Args:
        number: of the worker, from 0.
        threads: of the worker.
        gpus: GPUs of each worker, also a fraction. 0: the variable for GPUs is not set.
        given: the environment of the bench. Workers share out the GPUs of its ``CUDA_VISIBLE_DEVICES``.

    Example:
        >>> worker_environment(3, 2, 0.5, {"CUDA_VISIBLE_DEVICES": "4,7"})["CUDA_VISIBLE_DEVICES"]
        '7'
    """
    variables = dict.fromkeys(THREADS, str(threads))
    if gpus > 0:
        visible = [name for name in str(given.get("CUDA_VISIBLE_DEVICES", "")).split(",") if name]
        first = int(number * gpus)
        devices = range(first, first + math.ceil(gpus))
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(visible[n % len(visible)] if visible else str(n) for n in devices)
    return variables


def _describe_exit(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
