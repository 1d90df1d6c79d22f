"""``--device``: chosen in one place, for every model of a job, and a field of the record."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.commands import base_of, railkd
from railkd.cli import main
from railkd.errors import RailkdError
from railkd.records import RunRecord
from railkd.runtime import hardware
from tiny import text_rows

HERE = hardware.device().type
ABSENT = next(kind for kind in ("mps", "xpu", "cuda") if kind != HERE)


def test_a_choice_holds_inside_its_block_alone() -> None:
    with hardware.chosen("cpu"):
        assert hardware.device().type == hardware.machine()["device"] == "cpu"
        with hardware.chosen(None):
            assert hardware.device().type == HERE
        assert hardware.device().type == "cpu"
    with pytest.raises(KeyError), hardware.chosen("cpu"):
        raise KeyError
    with hardware.chosen(HERE):
        assert hardware.device().type == HERE
    assert hardware.device().type == HERE


def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(RailkdError, match=f"Expected --device cpu.* got {ABSENT}. Fix"), hardware.chosen(ABSENT):
        pass


def test_a_job_runs_on_the_device_that_is_asked_for_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = text_rows(16)
    lines = [f"{text}\t{label}" for text, label in zip(rows["text"], rows["label"], strict=True)]
    (tmp_path / "train.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    base = base_of(tmp_path / "base", sorted({word for text in rows["text"] for word in text.split()}))
    job = ["finetune", "--model", base, "--train", tmp_path / "train.tsv", "--epochs", 1, "--output", tmp_path / "run"]
    assert main([*map(str, job), "--device", ABSENT]) == 2
    assert f"got {ABSENT}" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main([*map(str, job), "--device", "cuda", "--use-cpu"]) == 2
    assert "--use-cpu and --device cuda exclude each other" in capsys.readouterr().err
    railkd(*job, "--device", "cpu", "--no-bf16")
    assert RunRecord.read(tmp_path / "run" / "metrics.json").machine["device"] == "cpu"
    assert "device: cpu" in (tmp_path / "run" / "config.yaml").read_text()
