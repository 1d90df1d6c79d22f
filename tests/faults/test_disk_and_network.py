"""A disk that fills up (a limit on file size stands in): one clear error, and nothing that a later run would trust."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from faults.driver import Driver
from faults.runs import BY_STEPS, differences, left, room
from thorough import unless

FAULTS = [
    "FULL:1000@open:.shard-",
    "FULL:600@open:.manifest.json",
    "FULL:4000@step:5",  # no model fits
    "FULL:30000@step:5",  # the model fits, and its optimizer does not
    "FULL:4000@step:12",  # the student at the end
    "FULL:500@open:.metrics.json",
]


@pytest.mark.parametrize("fault", unless(lambda fault: fault in FAULTS[::2], FAULTS))
def test_a_full_disk_is_said_once_and_leaves_nothing_to_trust(
    tmp_path: Path, base: Path, railkd: Driver, by_steps: dict[str, Any], fault: str
) -> None:
    folder = room(base, tmp_path / "run")
    code, said = railkd(folder, "distill", *BY_STEPS, "--output", "out", fault=fault)
    lines = [line for line in said.splitlines() if line.startswith("railkd: ")]
    assert code == 1 and len(lines) == 1 and "Traceback" not in said, said
    assert re.search(
        r"Cannot write into '[^']*out[^']*': its disk is full.* needs [\d.,]+ k?B, and [\d.]+ .?B are", lines[0]
    )
    assert "Fix: free space, then repeat the command with --resume to continue" in lines[0]
    assert not list(folder.rglob(".*.tmp"))
    assert not (folder / "out" / "metrics.json").exists()
    code, said = railkd(folder, "distill", *BY_STEPS, "--output", "out", "--resume")
    assert code == 0, said
    assert differences(left(folder), by_steps) == []


def test_the_whole_local_path_opens_no_socket_and_tells_no_secret(tmp_path: Path, base: Path, railkd: Driver) -> None:
    """Every verb but the demo, on local folders, in processes that a socket would end."""
    folder = room(base, tmp_path / "run")
    files = ["--train", "train.tsv", "--max-length", 16, "--quiet"]
    training = ["--epochs", 1, "--no-bf16", "--eval", "dev.tsv"]
    student = ["--student-layers", 2, "--output", "out", "--allow-weak-teacher"]
    secret = ["--hub-token", "hf_SECRET"]
    for words in (
        ["finetune", "--model", "teacher", *files, *training, "--output", "tuned"],
        ["cache", "--teacher", "tuned/model", *files, "--cache", "cache"],
        ["distill", "--teacher", "tuned/model", "--cache", "cache", *files, *training, *student],
        ["evaluate", "--model", "out/student", "--test", "dev.tsv", "--output", "scores.json"],
        ["predict", "--model", "out/student", "--test", "dev.tsv", "--output", "predictions.tsv"],
        ["check", "--teacher", "tuned/model", "--student-layers", 2, *files, "--allow-weak-teacher"],
        ["methods", "rail-kd-l", "--draws", 3, "--student-layers", 2, "--teacher-layers", 3],
        ["tasks"],
        ["env"],
    ):
        if words[0] in ("finetune", "distill"):  # refused as long as nothing is uploaded, and not repeated
            code, said = railkd(folder, *words, *secret, fault="OFFLINE@now")
            assert code == 2 and "--hub-token" in said and "hf_SECRET" not in said, said
        code, said = railkd(folder, *words, fault="OFFLINE@now")
        assert code == 0, said
    written = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(written) > 12
    assert [path for path in written if b"hf_SECRET" in path.read_bytes()] == []
    assert [path for path in written if path.suffix in (".pkl", ".pickle", ".bin", ".pt", ".pth")] == []


def test_a_hub_name_is_what_asks_the_network(tmp_path: Path, railkd: Driver) -> None:
    """That the socket is heard shows that the test above means something."""
    code, said = railkd(tmp_path, "evaluate", "--model", "nobody/nothing", "--test", "stsb", fault="OFFLINE@now")
    assert code == 77 and "socket." in said
