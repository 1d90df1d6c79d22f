"""What executors do before any job runs; what they do with jobs is in test_bench.py."""

from __future__ import annotations

import socket
import time

import pytest

from railkd.bench.local import environment
from railkd.bench.ray import check_address
from railkd.errors import RailkdError


@pytest.mark.parametrize("address", ["head", "ray://head:10001", ":6379", "head:", "head:99999999", "head:x"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(RailkdError, match="wanted HOST:PORT"):
        check_address(address)


def test_a_cluster_that_does_not_answer_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_address(f"127.0.0.1:{port}")
    start = time.perf_counter()
    with pytest.raises(RailkdError, match="nobody answers"):
        check_address(f"127.0.0.1:{port}")
    assert time.perf_counter() - start < 5


def test_workers_share_out_threads_and_devices() -> None:
    assert environment(0, 3, 0.0, {}) == dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "3"
    )
    devices = [environment(number, 1, 1.0, {})["CUDA_VISIBLE_DEVICES"] for number in range(3)]
    assert devices == ["0", "1", "2"]
    assert [environment(n, 1, 0.5, {})["CUDA_VISIBLE_DEVICES"] for n in range(4)] == ["0", "0", "1", "1"]
    assert environment(1, 1, 2.0, {"CUDA_VISIBLE_DEVICES": "4,5,6,7"})["CUDA_VISIBLE_DEVICES"] == "6,7"
