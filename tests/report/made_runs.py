"""Records of single runs, made by hand, and the report of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from railkd.records import RunRecord, write_lines
from railkd.report.content import content
from railkd.report.study import read


def run_of(arm: str, seed: int, accuracy: float, task: str = "A", **fields: Any) -> RunRecord:
    metrics = {"test": {"accuracy": accuracy}, "eval": {"accuracy": 0.99}}
    fields = {"student": "small", "commit": None, "versions": {}, "started": f"2026-01-0{seed}"} | fields
    return RunRecord("distill", arm, seed, task=task, arm=arm, metrics=metrics, **fields)


def report_of(folder: Path, *records: RunRecord, grid: str = "", baseline: str | None = None) -> dict[str, Any]:
    write_lines(folder / "records.jsonl", records)
    if grid:
        (folder / "grid.yaml").write_text(grid)
    return content(read([folder], baseline))
