"""The section of docs/performance.md about a CUDA card leaves out nothing that a record says went wrong."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from railkd import DistillationTrainingArguments

GPU = Path(__file__).resolve().parents[1] / "performance" / "gpu"
RECORDS = sorted((GPU / "records").glob("*.json"))


def program(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", GPU / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section(record: dict[str, Any]) -> str:
    text: str = program("table").section(record, "some.json")
    return text


def test_what_stands_in_for_a_log_writer_is_gone_when_transformers_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    sides = program("sides")
    with sides._log_writer():
        importlib.import_module("tensorboardX")
    assert DistillationTrainingArguments(str(tmp_path), report_to="none", use_cpu=True).report_to == []


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_missed_goal_and_every_ratio_stands_in_the_section(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    text = section(record)
    missed = {what: row for what, row in record["bars"].items() if not row["met"]}
    said = [line for line in text.splitlines() if line.startswith("- ") and ". The goal is " in line]
    assert len(said) == len(missed)
    for line, (what, row) in zip(said, missed.items(), strict=True):
        assert f": {row['value']:g}. " in line and what.rpartition(", ")[2] in line
    ratios = [ratio for row in record["parts"]["steps"].values() for ratio in row.get("ratios", {}).values()]
    assert ratios and all(f"{ratio['ratio']:.3f} (" in text for ratio in ratios)
    assert record["machine"]["gpu"] in text


def test_failures_and_skipped_parts_stand_in_the_section() -> None:
    record = json.loads(RECORDS[0].read_text(encoding="utf-8"))
    record["parts"] |= {"memory": {"skipped": "no time was left"}, "passes": {"MiniLM": {"error": "OSError: full"}}}
    record["parts"]["steps"]["MiniLM 6->3, batch 32"]["not measured"] = {"TextBrewer": {"error": "ImportError: none"}}
    text = section(record)
    for reason in ("no time was left", "OSError: full", "TextBrewer: ImportError: none"):
        assert reason in text


def test_a_goal_that_is_met_is_not_called_missed() -> None:
    record = json.loads(RECORDS[0].read_text(encoding="utf-8"))
    for row in record["bars"].values():
        row["met"] = True
    assert f"All {len(record['bars'])} goals are met." in section(record)
