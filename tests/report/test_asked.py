"""The report shows the metrics that were asked for, and needs no function to know which values are better."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from railkd.records import Baseline, write_lines
from railkd.report.content import content
from railkd.report.html import html
from railkd.report.study import read
from railkd.report.terminal import terminal
from railkd.report.text import csv_text, markdown
from report.made_grid import Shape, write

#: arm -> cost and catch of each seed; the lowest cost is the best one.
COSTS = {"finetune": (30.0, 31.0, 29.0), "kd": (3.0, 3.1, 2.9), "rail-kd-l": (20.0, 20.3, 19.7), "teacher": (1.0,)}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a bench of one task whose grid named two metrics and a function that exists nowhere."""
    folder = tmp_path_factory.mktemp("asked")
    records = write(folder, Shape(tasks=("A",), ood={"A": ("far",)}))
    for record in (record for record in records if record.metrics):
        record.config["metrics"] = ["log-loss", "gone.py:cost", "metric-of-later", 3]
        record.higher_is_better = {"cost": False, "caught": True}
        for name in record.metrics:
            cost = COSTS[record.arm][record.seed - 1]
            record.metrics[name] |= {"f1": 0.9, "log_loss": 0.25, "cost": cost, "caught": 1 / cost}
            record.baselines[name] = Baseline("'x'", {"accuracy": 0.5, "log_loss": 0.7})  # the function failed on it
    write_lines(folder / "records.jsonl", records)
    return content(read([folder]))


def test_what_was_asked_for_has_a_table_of_its_own_unscaled_and_the_lowest_cost_is_best(asked: dict[str, Any]) -> None:
    table = asked["asked"]["in"]
    assert [column["metric"] for column in table["columns"]] == ["caught", "cost", "log_loss"]
    assert not any(column["points"] or column["show_set"] for column in table["columns"])
    assert [column["set"] for column in asked["asked"]["out"]["columns"]] == ["far"] * 3
    (group,) = (group for group in table["groups"] if group["student"])
    rows = {row["arm"]: row for row in group["rows"]}
    assert {arm: row["cells"][1]["mean"] for arm, row in rows.items()} == pytest.approx(
        {arm: sum(costs) / 3 for arm, costs in COSTS.items() if arm != "teacher"}
    )
    assert [(arm, cell["best"]) for arm, row in rows.items() for cell in row["cells"][:2] if cell["best"]] == [
        ("kd", True)
    ] * 2
    assert all(row["average"] is None and row["rank"] is None for row in rows.values())
    assert table["constant"]["cells"][1] is None and table["constant"]["cells"][2]["mean"] == 0.7


def test_every_view_shows_them(asked: dict[str, Any]) -> None:
    lines = [line.plain for line in terminal(asked, 80)]
    start = lines.index("other metrics: small")
    assert any(line.split()[:1] == ["kd"] and "3.000 ± 0.100*" in line for line in lines[start:])
    assert "## Other metrics" in markdown(asked) and "**3.000 ± 0.100**" in markdown(asked)
    found = {(row["domain"], row["arm"], row["metric"]): row for row in csv.DictReader(io.StringIO(csv_text(asked)))}
    assert float(found["in", "kd", "cost"]["mean"]) == pytest.approx(3) and found["out", "kd", "cost"]["best"] == "True"
    assert found["in", "kd", "cost"]["difference"] == "" != found["in", "rail-kd-l", "accuracy"]["difference"]
    page = html(asked)
    assert 'href="#asked"' in page and "<strong>3.000</strong>" in page


def test_a_report_without_such_metrics_has_no_such_section(tmp_path: Path) -> None:
    write(tmp_path, Shape(tasks=("A",)))
    report = content(read([tmp_path]))
    assert [table["columns"] for table in report["asked"].values()] == [[], []]
    assert "Other metrics" not in html(report) + markdown(report)
    assert not any("other metrics" in line.plain for line in terminal(report, None))
