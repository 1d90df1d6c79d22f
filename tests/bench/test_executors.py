"""Executors before any job runs. How they run jobs is tested in test_bench.py."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from railkd.bench.executors.local import LocalExecutor, worker_environment
from railkd.bench.executors.ray import check_address, keep_statistics_off
from railkd.bench.plan import Job
from railkd.errors import RailkdError
from railkd.jobs.options import DistillOptions
from railkd.jobs.request import Request


@pytest.mark.parametrize("address", ["head", "ray://head:10001", ":6379", "head:", "head:99999999", "head:x"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(RailkdError, match="expected HOST:PORT"):
        check_address(address)


def test_a_cluster_that_does_not_answer_is_reported_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_address(f"127.0.0.1:{port}")
    start = time.perf_counter()
    with pytest.raises(RailkdError, match="no answer"):
        check_address(f"127.0.0.1:{port}")
    assert time.perf_counter() - start < 5


def test_workers_share_out_threads_and_devices() -> None:
    assert worker_environment(0, 3, 0.0, {}) == dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "3"
    )
    devices = [worker_environment(number, 1, 1.0, {})["CUDA_VISIBLE_DEVICES"] for number in range(3)]
    assert devices == ["0", "1", "2"]
    assert [worker_environment(n, 1, 0.5, {})["CUDA_VISIBLE_DEVICES"] for n in range(4)] == ["0", "0", "1", "1"]
    assert worker_environment(1, 1, 2.0, {"CUDA_VISIBLE_DEVICES": "4,5,6,7"})["CUDA_VISIBLE_DEVICES"] == "6,7"


class Recorded(subprocess.Popen[str]):
    """A process that raises Ctrl-C during its start and during its end."""

    all: ClassVar[list[Recorded]] = []

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.all.append(self)
        os.kill(os.getpid(), signal.SIGINT)

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        super().kill()


def test_a_worker_that_leaves_deletes_its_temporary_folders(tmp_path: Path) -> None:
    code = (
        "import queue\nfrom railkd.bench.executors import local_worker\nfrom railkd.runtime import temporary\n"
        "(temporary.temporary_folder() / 'rows.csv').write_text('x')\nprint('made', flush=True)\n"
        "local_worker._read_input(queue.Queue())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert (found.returncode, found.stdout) == (0, "made\n"), found.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Handle Ctrl-C as in a terminal; a process in the background of a shell may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_never_orphans_a_worker_that_is_not_yet_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Recorded)
    monkeypatch.setattr(Recorded, "all", [])
    executor = LocalExecutor(str(tmp_path), processes=1, threads=1)
    job = Job("runs/one", "distill", "one", "2-layers", "kd", 1, Request(DistillOptions()))
    with pytest.raises(KeyboardInterrupt):
        executor.submit(job)
    (process,) = Recorded.all
    assert process.poll() is None
    with pytest.raises(KeyboardInterrupt):
        executor._remove(0)
    assert process.poll() == -signal.SIGKILL and process.stdin is not None and process.stdin.closed
    executor.close()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.thorough
def test_workers_are_waited_for_where_pipes_cannot_be_selected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows select takes sockets alone. Two workers answer, and the end of a worker is noticed."""

    def refuse(*_: Any) -> Any:
        raise OSError(10038, "An operation was attempted on something that is not a socket")

    for name in ("select", "poll", "epoll"):
        monkeypatch.setattr(select, name, refuse, raising=False)
    executor = LocalExecutor(str(tmp_path), processes=2, threads=1)
    jobs = [Job(f"runs/{n}", "distill", "one", "2-layers", "kd", n, Request(DistillOptions())) for n in (1, 2)]
    try:
        assert executor.next(0.01) is None
        for job in jobs:
            executor.submit(job)
        found = []
        while len(found) < 2:
            found.append(executor.next(120))
        assert {outcome.job.seed for outcome in found if outcome} == {1, 2}
        assert all(outcome is not None and outcome.error and not outcome.crashed for outcome in found)
        executor.submit(jobs[0])
        next(iter(executor._workers.values())).process.kill()
        outcome = executor.next(120)
        assert outcome is not None and outcome.crashed and "SIGKILL" in outcome.error
    finally:
        executor.close()
    assert not executor._workers


@pytest.mark.parametrize(
    ("variables", "settings", "wanted"),
    [
        ({}, None, "0"),
        ({}, "{}", "0"),
        ({}, '{"usage_stats": false}', "0"),
        ({}, "[", "0"),
        ({}, '{"usage_stats": true}', None),
        ({"RAY_USAGE_STATS_ENABLED": "1"}, None, "1"),
        ({"RAY_USAGE_STATS_ENABLED": "0"}, '{"usage_stats": true}', "0"),
    ],
)
def test_ray_sends_no_statistics_unless_the_user_says_so(
    tmp_path: Path, variables: dict[str, str], settings: str | None, wanted: str | None
) -> None:
    environment = {"HOME": str(tmp_path), **variables}
    if settings is not None:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "config.json").write_text(settings)
    keep_statistics_off(environment)
    assert environment.get("RAY_USAGE_STATS_ENABLED") == wanted
