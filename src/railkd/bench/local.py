"""Worker processes on this machine, which stay alive between jobs: starting Python with transformers takes seconds."""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from railkd.bench import attempt
from railkd.bench.executor import Outcome
from railkd.bench.plan import Job

#: Seconds that an interrupted worker has to save a checkpoint.
_GRACE = 10.0


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    job: Job | None = None

    @property
    def answers(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for what is done in here: nobody ends a worker that is started but not yet in the list.

    Blocking the signals would not do: another thread of this process takes them then, and Python raises here all the
    same.
    """
    if threading.current_thread() is not threading.main_thread():  # nothing is ever raised there
        yield
        return
    heard: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: had for number in signals if callable(had := signal.getsignal(number))}  # ignored stays ignored
    try:
        for number in before:
            signal.signal(number, lambda number, frame: heard.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])


class LocalExecutor:
    """Jobs in processes of our own.

    Args:
        output: the bench's folder. processes: jobs at a time. threads: of each.
        gpus: of each job; 0.5: two share one. Worker i sees its own devices only.
    """

    def __init__(self, output: str, *, processes: int, threads: int, gpus: float = 0.0) -> None:
        self.slots = processes
        self._output, self._threads, self._gpus = output, threads, gpus
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()

    def submit(self, job: Job) -> None:
        """Hand a job to a worker that is free, or to a new one."""
        free = [number for number, worker in self._workers.items() if worker.job is None]
        number = free[0] if free else next(n for n in range(self.slots) if n not in self._workers)
        worker = self._workers.get(number) or self._start(number)
        worker.job = job
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # it died while it was idle: `next` tells
            worker.process.stdin.write(json.dumps(job.plain()) + "\n")
            worker.process.stdin.flush()

    def next(self, seconds: float) -> Outcome | None:
        """An answer, or the end of a worker."""
        deadline = time.monotonic() + seconds
        while True:
            for key, _ in self._selector.select(max(0.0, deadline - time.monotonic())):
                worker = self._workers[key.data]
                line, job = worker.answers.readline(), worker.job
                if line and job is not None:
                    worker.job = None
                    return Outcome(job, json.loads(line)["error"])
                code = self._bury(key.data)
                if job is not None:
                    return Outcome(job, f"its process ended {_how(code)}", died=True)
            if time.monotonic() >= deadline:
                return None

    def close(self) -> None:
        """A running job is told to save a checkpoint; what does not end in time is killed."""
        for worker in self._workers.values():
            worker.process.terminate() if worker.job else worker.process.kill()
        deadline = time.monotonic() + _GRACE
        for worker in self._workers.values():
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))
        for number in list(self._workers):
            self._bury(number)

    @_undisturbed()
    def _start(self, number: int) -> _Worker:
        process = subprocess.Popen(
            [sys.executable, "-m", "railkd.bench.local_worker", self._output, str(self._threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment(number, self._threads, self._gpus, os.environ),
            start_new_session=True,  # Ctrl-C is for the bench, which then ends its workers in order
        )
        worker = self._workers[number] = _Worker(process)
        self._selector.register(worker.answers, selectors.EVENT_READ, number)
        return worker

    @_undisturbed()
    def _bury(self, number: int) -> int:
        worker = self._workers.pop(number)
        self._selector.unregister(worker.answers)
        worker.process.kill()
        code = worker.process.wait()
        for pipe in (worker.process.stdin, worker.process.stdout):
            with suppress(BrokenPipeError):
                pipe.close() if pipe else None
        return code


def environment(number: int, threads: int, gpus: float, given: Mapping[str, Any]) -> dict[str, str]:
    """Variables of worker ``number``: threads that do not fight, and its share of the visible GPUs.

    >>> environment(3, 2, 0.5, {"CUDA_VISIBLE_DEVICES": "4,7"})["CUDA_VISIBLE_DEVICES"]
    '7'
    """
    found = dict.fromkeys(attempt.THREADS, str(threads))
    if gpus > 0:
        visible = [name for name in str(given.get("CUDA_VISIBLE_DEVICES", "")).split(",") if name]
        first = int(number * gpus)
        devices = range(first, first + math.ceil(gpus))
        found["CUDA_VISIBLE_DEVICES"] = ",".join(visible[n % len(visible)] if visible else str(n) for n in devices)
    return found


def _how(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
