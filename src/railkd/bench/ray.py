"""The same jobs on a Ray cluster, or on this machine by way of Ray. An extra: pip install "railkd[ray]".

Every machine of the cluster must see the working directory under the same path (a shared file system) and have railkd
installed. Retries are the loop's, so that they mean the same everywhere; Ray's own are off.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import socket
from pathlib import Path
from typing import Any

from railkd.bench.executor import Outcome
from railkd.bench.plan import Job
from railkd.errors import RailkdError


class RayExecutor:
    """Jobs as Ray tasks.

    Args:
        output: the bench's folder. threads: of each job, and the CPUs that Ray sets aside for it. gpus: of each job.
        address: of a cluster; None: a new one on this machine, ended with the bench.
        cpus: that a new one is told it has; None: Ray counts them.
    """

    def __init__(
        self, output: str, *, threads: int, gpus: float = 0.0, address: str | None = None, cpus: int | None = None
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise RailkdError(
                "--executor ray needs Ray, which is not installed; install it with: pip install 'railkd[ray]'"
            ) from error
        if address is not None:
            check_address(address)
        self._ray: Any = ray
        before = signal.getsignal(signal.SIGTERM)
        new: dict[str, Any] = {}
        if address is None:
            new = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 80 * 1024 * 1024}
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **new)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise RailkdError(f"Ray did not start{f' at {address}' if address else ''}: {lines[0]}") from error
        finally:
            signal.signal(signal.SIGTERM, before)  # Ray's own would exit in the middle of a line
        have = ray.cluster_resources()
        fits = [have.get("CPU", 0.0) / threads] + ([have.get("GPU", 0.0) / gpus] if gpus else [])
        self.slots = int(min(fits))
        if self.slots < 1:
            self.close()
            raise RailkdError(
                f"a run needs {threads} CPUs and {gpus:g} GPUs, Ray has {have.get('CPU', 0):g} and "
                f"{have.get('GPU', 0):g}; give fewer --threads, or resources that are there"
            )
        self._task = ray.remote(_attempt).options(num_cpus=threads, num_gpus=gpus, max_retries=0)
        self._arguments = (str(Path.cwd()), output, threads)
        self._running: dict[Any, Job] = {}
        self._done: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def submit(self, job: Job) -> None:
        """Hand a job to the cluster."""
        reference = self._task.remote(json.dumps(job.plain()), *self._arguments)
        self._running[reference] = job
        # Waiting is done here and not in ray.wait, in whose compiled code Ctrl-C and SIGTERM would be lost.
        reference.future().add_done_callback(lambda future: self._done.put((reference, future)))

    def next(self, seconds: float) -> Outcome | None:
        """The result of a task, or that its worker or machine is gone."""
        try:
            reference, future = self._done.get(timeout=seconds)
        except queue.Empty:
            return None
        job, errors = self._running.pop(reference), self._ray.exceptions
        error = future.exception()
        if isinstance(error, (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError)):
            return Outcome(job, f"its process ended ({type(error).__name__})", died=True)
        return Outcome(job, future.result())

    def close(self) -> None:
        """Stop what runs, and the cluster where it is our own."""
        for reference in getattr(self, "_running", {}):
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()


def check_address(address: str) -> None:
    """Refuse what is no HOST:PORT, and a host that does not answer: Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise RailkdError(f"--address: got '{address}', wanted HOST:PORT of the cluster's head, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise RailkdError(
            f"--address {address}: nobody answers ({error.strerror or error}); start one with 'ray start --head', "
            "or leave --address out"
        ) from None


def _attempt(job: str, folder: str, output: str, threads: int) -> str:
    """In a worker of Ray: run a job; the error in words, or nothing. Ray itself limits the threads of its workers."""
    os.chdir(folder)
    from railkd.bench import attempt

    attempt.prepare(threads)
    return attempt.logged(Job.from_plain(json.loads(job)), output)
