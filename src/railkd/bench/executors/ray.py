"""Jobs on a Ray cluster, or on this machine through Ray. An extra: pip install "railkd[ray]".

Every machine of the cluster must have railkd installed and see the working directory under the same path (a shared file
system). The loop retries crashed jobs, as it does for every executor, so Ray's own retries are off.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import socket
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from railkd.bench.executors.protocol import Outcome
from railkd.bench.plan import Job
from railkd.errors import RailkdError


class RayExecutor:
    """Runs jobs as Ray tasks.

    Args:
        output: the bench's folder.
        threads: of each job, and the CPUs that Ray reserves for it.
        gpus: GPUs that Ray reserves for each job, also a fraction.
        address: HOST:PORT of a cluster. None: start Ray on this machine, and stop it with the bench.
        cpus: CPUs of the Ray that is started here. None: Ray counts them.

    Raises:
        RailkdError: Ray is not installed, does not start, does not answer, or has too few CPUs or GPUs for one job.
    """

    def __init__(
        self, output: str, *, threads: int, gpus: float = 0.0, address: str | None = None, cpus: int | None = None
    ) -> None:
        keep_statistics_off(os.environ)
        try:
            import ray
        except ImportError as error:
            raise RailkdError(
                "--executor ray needs Ray, which is not installed. Fix: pip install 'railkd[ray]'"
            ) from error
        if address is not None:
            check_address(address)
        self._ray: Any = ray
        _start_ray(ray, address, cpus)
        have = ray.cluster_resources()
        fits = [have.get("CPU", 0.0) / threads] + ([have.get("GPU", 0.0) / gpus] if gpus else [])
        self.slots = int(min(fits))
        if self.slots < 1:
            self.close()
            raise RailkdError(
                f"a job needs {threads} CPUs and {gpus:g} GPUs, but Ray has {have.get('CPU', 0):g} CPUs and "
                f"{have.get('GPU', 0):g} GPUs. Fix: give fewer --threads, or lower the resources in the grid"
            )
        self._task = ray.remote(_run_task).options(num_cpus=threads, num_gpus=gpus, max_retries=0)
        self._arguments = (str(Path.cwd()), output, threads)
        self._running: dict[Any, Job] = {}
        self._done: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def submit(self, job: Job) -> None:
        """Send a job to the cluster.

        Args:
            job: what to run.
        """
        reference = self._task.remote(json.dumps(job.plain()), *self._arguments)
        self._running[reference] = job
        # `next` waits on a queue and not in ray.wait, whose compiled code would lose Ctrl-C and SIGTERM.
        reference.future().add_done_callback(lambda future: self._done.put((reference, future)))

    def next(self, seconds: float) -> Outcome | None:
        """Return the next job that ended, or whose worker or machine crashed.

        Args:
            seconds: how long to wait for one.

        Returns:
            The outcome, or None if no job ended in time.
        """
        try:
            reference, future = self._done.get(timeout=seconds)
        except queue.Empty:
            return None
        job, errors = self._running.pop(reference), self._ray.exceptions
        error = future.exception()
        if isinstance(error, (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError)):
            return Outcome(job, f"its process ended ({type(error).__name__})", crashed=True)
        return Outcome(job, future.result())

    def close(self) -> None:
        """Stop the running jobs, and stop Ray if this executor started it."""
        for reference in getattr(self, "_running", {}):
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()


def keep_statistics_off(environment: MutableMapping[str, str]) -> None:
    """Turn Ray's usage statistics off, unless the user turned them on. Ray sends them by default.

    Args:
        environment: of the process. A user decides in it, or in Ray's file of settings (``ray enable-usage-stats``).
    """
    path = environment.get("RAY_USAGE_STATS_CONFIG_PATH") or Path(environment.get("HOME", "~"), ".ray", "config.json")
    try:
        asked = json.loads(Path(path).read_bytes()).get("usage_stats") is True
    except (OSError, ValueError, AttributeError):
        asked = False
    if not asked:
        environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def check_address(address: str) -> None:
    """Check that an address is HOST:PORT and that the host answers. Ray itself would try for minutes.

    Args:
        address: of a cluster's head node. "auto" is not checked.

    Raises:
        RailkdError: it is no HOST:PORT, or the host does not answer within 5 seconds.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise RailkdError(f"--address: expected HOST:PORT of the cluster's head node, or auto, got '{address}'")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise RailkdError(
            f"--address {address}: no answer ({error.strerror or error}). Fix: start a cluster with 'ray start "
            "--head', or leave --address out"
        ) from None


def _start_ray(ray: Any, address: str | None, cpus: int | None) -> None:
    # Connects to a cluster, or starts Ray on this machine.
    handler = signal.getsignal(signal.SIGTERM)
    local: dict[str, Any] = {}
    if address is None:
        local = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 80 * 1024 * 1024}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RailkdError(f"Ray did not start{f' at {address}' if address else ''}: {lines[0]}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray replaces it by a handler that exits without cleaning up.


def _run_task(job: str, folder: str, output: str, threads: int) -> str:
    """Return the error of a job that is run inside a Ray worker, in words. Ray limits the threads of its workers."""
    os.chdir(folder)
    from railkd.bench import attempt

    attempt.set_threads(threads)
    work = Job.from_plain(json.loads(job))
    with attempt.logged(work, output):
        return attempt.run(work, output)
