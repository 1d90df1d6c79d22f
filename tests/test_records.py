"""Records of jobs: reading returns what was written, and unknown schemas are refused."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from railkd.errors import RailkdError
from railkd.records import RunRecord, read_lines, write_lines
from record_schema import SCHEMA_FILE, schema_of_records


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
        ("[1]", "is not a run record"),
        ("{", "is not a run record"),
        ("null", "is not a run record"),
        ("[" * 100_000, "is not a run record"),
        (json.dumps({**asdict(record()), "config": 0}).replace(" 0,", "[" * 999, 1), "is not a run record"),
        (json.dumps({**asdict(record()), "seed": "3"}), "seed: input should be a valid integer, got '3'"),
        (json.dumps({**asdict(record()), "seed": True}), "seed: .*, got True"),
        (json.dumps({**asdict(record()), "metrics": {"dev": {"f1": "high"}}}), "metrics.dev.f1: .*, got 'high'"),
        (json.dumps({**asdict(record()), "coverage": {"first": [1]}}), "coverage.first"),
        (json.dumps({**asdict(record()), "draws": [[1], 2], "labels": 3}), "draws.1: .* .and 1 more"),
        (json.dumps({**asdict(record()), "schema": "2"}), "schema: .*, got '2'"),
        (json.dumps({"schema": 1, "job": "distill"}), "method: field required"),
    ],
)
def test_a_text_that_is_no_record_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(RailkdError, match=f"^runs/records.jsonl, line 3: .*{said}"):
        RunRecord.from_text(text, "runs/records.jsonl, line 3")


def test_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    record(metrics={"dev": {"loss": math.inf}}, curve=[{"loss": -math.inf}]).write(tmp_path / "metrics.json")
    read = RunRecord.read(tmp_path / "metrics.json")
    assert read.metrics == {"dev": {"loss": math.inf}} and read.curve == [{"loss": -math.inf}]


def test_the_published_schema_is_that_of_the_code() -> None:
    """After a change of `RunRecord`, ``make schema`` writes the file again."""
    published = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert published == schema_of_records()
    assert set(published["properties"]) == {field.name for field in fields(RunRecord)}


def test_comparable_leaves_out_times() -> None:
    one = record(seconds={"training": 1.0}, peak_memory=5, curve=[{"loss": 1.0, "train_runtime": 2.0}])
    two = record(seconds={"training": 9.0}, peak_memory=6, curve=[{"loss": 1.0, "train_runtime": 3.0}], started="later")
    assert one != two and one.comparable() == two.comparable()
    assert one.comparable() != record(curve=[{"loss": 1.1}]).comparable()
