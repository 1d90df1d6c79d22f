"""Records of jobs: reading returns what was written, and unknown schemas are refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from railkd.errors import RailkdError
from railkd.records import RunRecord, read_lines, write_lines


def record(**changes: object) -> RunRecord:
    made = RunRecord(
        "distill", "rail-kd-l", 3, task="RTE", arm="rail-kd-l redraw=step", coverage={1: [2, 0], 2: [0, 2]}
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_reading_returns_what_was_written(tmp_path: Path) -> None:
    made = [record(), record(seed=4, error="a line\u2028separator is text", state="failed")]
    write_lines(tmp_path / "records.jsonl", made)
    assert read_lines(tmp_path / "records.jsonl") == made
    made[0].write(tmp_path / "metrics.json")
    assert RunRecord.read(tmp_path / "metrics.json") == made[0]


def test_a_record_of_the_first_schema_is_read(tmp_path: Path) -> None:
    old = {
        "job": "distill",
        "method": "kd",
        "seed": 1,
        "coverage": {},
        "metrics": {"dev": {"accuracy": 0.5}},
        "schema": 1,
    }
    (tmp_path / "old.json").write_text(json.dumps(old))
    read = RunRecord.read(tmp_path / "old.json")
    assert (read.method, read.metrics, read.started, read.commit, read.arm) == ("kd", old["metrics"], "", None, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps({**asdict(record()), "schema": 99}), "schema 99, this railkd reads up to"),
        (json.dumps({**asdict(record()), "colour": "red"}), "colour"),
        ("[1]", "is no run record"),
        ("{", "is no run record"),
        ("null", "is no run record"),
    ],
)
def test_a_text_that_is_no_record_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(RailkdError, match=said):
        RunRecord.from_text(text, "runs/records.jsonl, line 3")


def test_comparable_leaves_out_times() -> None:
    one = record(seconds={"training": 1.0}, peak_memory=5, curve=[{"loss": 1.0, "train_runtime": 2.0}])
    two = record(seconds={"training": 9.0}, peak_memory=6, curve=[{"loss": 1.0, "train_runtime": 3.0}], started="later")
    assert one != two and one.comparable() == two.comparable()
    assert one.comparable() != record(curve=[{"loss": 1.1}]).comparable()
