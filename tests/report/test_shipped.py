"""Exports and certificates in the report: every view shows them, and none does where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from railkd.errors import RailkdError
from railkd.report.content import content
from railkd.report.html import html
from railkd.report.study import read
from railkd.report.terminal import terminal
from railkd.report.text import markdown
from report.make_records import HOSTILE, make_shipped


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shipped(tmp_path_factory.mktemp("ships") / "shipped")


def test_every_view_shows_what_ships(grid: Path, shipped: Path) -> None:
    report = json.loads(json.dumps(content(read([grid, shipped]))))
    (export,), (certificate,) = report["exports"], report["certificates"]
    assert [side["name"] for side in export["sides"]][-1] == "model, int8" and export["sets"] == ["movie", HOSTILE]
    assert export["sides"][3]["score"] == pytest.approx((0.894 + 0.824) / 2)
    assert certificate["passes"] and certificate["smallest_margin"] == 0.0087 and certificate["flips"] == 18
    lines = [str(line) for line in terminal(report, 80)]
    table = next(lines[place:] for place, line in enumerate(lines) if line == "what ships: shipped")
    assert table[1].split()[:2] == ["model", "movie"] and max(map(len, table[:10])) <= 80
    assert any(line.startswith("teacher, PyTorch") and "91.2" in line for line in table)
    assert "evidence.json: shipped/onnx/model_quantized.onnx is no worse than teacher/model" in lines
    text = markdown(report)
    assert "## What ships: shipped" in text and "| model, int8 | 89.4 | 82.4 | 94.1 | 17.5 MB | 0.52 |" in text
    assert "| evidence.json | shipped/onnx/model_quantized.onnx | teacher/model | yes | 0.87 |" in text


def test_there_is_no_section_without_an_export(report: dict[str, Any]) -> None:
    assert report["exports"] == report["certificates"] == []
    sections = ("differences", "cost", "curves", "coverage", "similarity", "calibration")
    assert "What ships" not in html(report | {name: [] for name in sections})  # without their plots, which take long
    assert "What ships" not in markdown(report)
    assert not any("what ships" in str(line) for line in terminal(report, 80))


def test_an_export_alone_makes_a_report(shipped: Path) -> None:
    report = content(read([shipped]))
    assert len(report["exports"]) == 1
    page = html(report)
    assert page.count('id="shipped') >= 4 and "is no worse</b> than teacher/model" in page
    assert "268 rows needed" in page and HOSTILE not in page


@pytest.mark.parametrize("broken", ['"', '"latency": {}}', '"latency": {"sides": [{}]}, "config": {}}'])
def test_a_broken_record_of_an_export_is_named(tmp_path: Path, broken: str) -> None:
    (tmp_path / "export.json").write_text(f'{{"kind": "railkd export 1", {broken}')
    with pytest.raises(RailkdError, match=r"export\.json: expected"):
        content(read([tmp_path]))


@pytest.mark.parametrize("other", ["{", "[]", '{"latency": {}}', "\x00"])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, other: str) -> None:
    (tmp_path / "export.json").write_text(other)
    (tmp_path / "below" / "export.json").mkdir(parents=True)
    make_shipped(tmp_path / "shipped")
    assert len(content(read([tmp_path]))["exports"]) == 1
