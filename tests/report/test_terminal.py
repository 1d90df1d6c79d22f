"""The report in a terminal: every name and number is whole at every width, also in scripts with wide letters."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from railkd.cli import main
from railkd.report.content import content
from railkd.report.study import read
from railkd.report.terminal import MOST_ARMS, terminal
from report.made_grid import PAPER_ARMS, PAPER_OOD, PAPER_TASKS, Shape, write

LONG = "rail-kd-l " + " ".join(f"option{i}=0.{i}" for i in range(9))
#: name of a shape -> names of tasks, students, arms
SHAPES = {
    "paper": Shape(
        PAPER_TASKS,
        ("DistilBERT", "DistilRoBERTa"),
        {arm: 0.3 * place for place, arm in enumerate(PAPER_ARMS)},
        seeds=2,
        ood=PAPER_OOD,
        contrasts=(("rail-kd-l", "kd"), ("codir", "ckd")),
    ),
    "wide letters": Shape(("情感分析", "蕴含", "语言可接受性"), ("小型学生",), {"kd": 0, "轨道蒸馏": 1, LONG: 2}),
    "one task": Shape(("A",), ("small",), {"kd": 0.0, "ckd": 9.0}),
}
WIDTHS = (60, 80, 120, 200, None)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folders = {name: tmp_path_factory.mktemp("shape") for name in SHAPES}
    for name, folder in folders.items():
        write(folder, SHAPES[name])
    return {name: content(read([folder])) for name, folder in folders.items()}


def lines_of(report: dict[str, Any], width: int | None, **options: Any) -> list[str]:
    return [line.plain for line in terminal(report, width, **options)]


@pytest.mark.parametrize(("name", "width"), list(itertools.product(SHAPES, WIDTHS)))
def test_no_name_and_no_number_is_cut(reports: dict[str, dict[str, Any]], name: str, width: int | None) -> None:
    report = reports[name]
    lines = lines_of(report, width, every_arm=True)
    text = "\n".join(lines)
    assert "…" not in text
    for table in report["scores"].values():
        for column in table["columns"]:
            assert any(column["task"] in re.split(r"\s{2,}", line) for line in lines)
        for group in table["groups"]:
            for row in group["rows"]:
                assert any(line.startswith(row["arm"]) for line in lines)
                numbers = [f"{cell['mean']:.1f} ± {cell['sd']:.1f}" for cell in row["cells"] if cell and cell["sd"]]
                assert numbers or not group["student"]
                assert all(number in text for number in numbers)
    tables = lines[: lines.index("", max(i for i, line in enumerate(lines) if line.startswith("arm")))]
    if width is not None:
        assert [line for line in tables if cell_len(line) > width and line not in {LONG}] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_cell_stands_in_the_row_of_its_arm_under_its_task(
    reports: dict[str, dict[str, Any]], width: int | None
) -> None:
    report = reports["paper"]
    lines = lines_of(report, width, every_arm=True)
    table = report["scores"]["in"]
    start, end = lines.index("a made benchmark: DistilBERT"), lines.index("a made benchmark: DistilRoBERTa")
    (group,) = (group for group in table["groups"] if group["student"] == "DistilBERT")
    seen: dict[tuple[str, str], str] = {}
    heads: list[tuple[str, int]] = []
    for line in lines[start + 1 : end]:
        if line.startswith("arm"):
            heads = [(found[0], found.end()) for found in re.finditer(r"\S+", line)][1:]
        elif line and heads and not line.startswith(" "):
            arm = line.split("  ")[0].strip()
            seen |= {(arm, head): line[:at].rstrip() for head, at in heads}
    for row in group["rows"]:
        for column, cell in zip(table["columns"], row["cells"], strict=True):
            assert seen[row["arm"], column["task"]].rstrip("*").endswith(f"{cell['mean']:.1f} ± {cell['sd']:.1f}")
        assert seen[row["arm"], "rank"].endswith(f"{row['rank']:.1f}")


def test_average_and_rank_come_first(reports: dict[str, dict[str, Any]]) -> None:
    for line in lines_of(reports["paper"], 80):
        if line.startswith("arm") and "average" in line:
            assert line.split()[1:3] == ["average", "rank"]
            break
    else:
        pytest.fail("no average")


def test_a_table_of_many_arms_shows_those_that_matter_and_names_the_others(reports: dict[str, dict[str, Any]]) -> None:
    assert len(PAPER_ARMS) > MOST_ARMS
    lines = lines_of(reports["paper"], 80)
    first = [line.split()[0] for line in lines[: lines.index("a made benchmark: DistilRoBERTa")] if line]
    best, worst = PAPER_ARMS[-1], PAPER_ARMS[0]
    wanted = {best, worst, "kd", "rail-kd-l", "codir", "ckd"}
    assert set(first) & set(PAPER_ARMS) == wanted
    (note,) = (line for line in lines if "--all shows every arm" in line)
    assert all(arm in note for arm in set(PAPER_ARMS) - wanted)
    assert not any("--all" in line for line in lines_of(reports["paper"], 80, every_arm=True))


def test_a_pipe_gets_one_line_for_each_arm_of_a_student(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    write(tmp_path, SHAPES["paper"])
    assert main(["report", str(tmp_path), "--all"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rail-stratified ")]
    assert len(rows) == 2 * 2  # students, domains
    assert all(line.count("±") in (len(PAPER_TASKS) + 1, sum(map(len, PAPER_OOD.values())) + 1) for line in rows)


def test_a_terminal_of_60_columns_shows_whole_rows(reports: dict[str, dict[str, Any]]) -> None:
    """Rich gets the lines as the command prints them, in a terminal that is too narrow for a name."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, color_system=None, highlight=False)
    for line in terminal(reports["wide letters"], 60):
        console.print(line, soft_wrap=line.cell_len <= 60)
    shown = out.getvalue().splitlines()
    assert all(cell_len(line) <= 60 for line in shown)
    assert "轨道蒸馏" in "".join(shown) and all(word in " ".join(shown).split() for word in LONG.split())
