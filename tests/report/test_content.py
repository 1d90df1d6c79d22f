"""The report of records: a stored file as a whole, and laws of its parts."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from railkd.records import RunRecord, read_lines
from railkd.report import format, headline, predictions
from railkd.report.content import content
from railkd.report.html import html
from railkd.report.study import read
from railkd.report.terminal import terminal
from railkd.report.text import csv_text, markdown
from railkd.tasks import task_of
from report.made_grid import Shape, write
from report.made_runs import report_of, run_of
from report.make_records import FIXED, HERE

SUMMARY = HERE / "summary.json"


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of every number and text in nested lists and dicts."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None or not value:
        yield path, value
    else:
        for key, item in items:
            yield from leaves(item, f"{path}/{key}")


def test_the_generator_reproduces_the_fixed_records(grid: Path) -> None:
    assert read_lines(FIXED) == read_lines(grid / "records.jsonl")
    assert FIXED.stat().st_size < 200_000


def test_the_report_of_the_fixed_records_equals_the_stored_summary(report: dict[str, Any]) -> None:
    wanted = dict(leaves(json.loads(SUMMARY.read_text(encoding="utf-8"))))
    got = dict(leaves(json.loads(json.dumps(report))))
    assert got.keys() == wanted.keys()
    for path, value in wanted.items():
        assert got[path] == (pytest.approx(value, rel=1e-6, abs=1e-9) if isinstance(value, float) else value), path


def test_a_contrast_between_unlike_numbers_of_steps_is_said_and_no_other(tmp_path: Path) -> None:
    steps = {"finetune": 40, "kd": 300, "rail-kd-l": 300}
    records = [
        run_of(arm, seed, 0.8 + seed / 100, seen={"steps": count, "rows": 8 * count})
        for arm, count in steps.items()
        for seed in (1, 2)
    ]
    report = report_of(tmp_path, *records, baseline="kd")
    notes = [note for note in report["notes"] if "unlike numbers of steps" in note]
    assert len(notes) == 1 and notes[0].startswith("finetune against kd: 2 of 2 pairs of runs")
    assert "such as 40 and 300" in notes[0] and notes[0] in "".join(map(str, terminal(report, None)))
    older = [run_of(arm, seed, 0.8, seen={}) for arm in steps for seed in (1, 2)]
    (tmp_path / "older").mkdir()
    assert not any("unlike numbers" in note for note in report_of(tmp_path / "older", *older)["notes"])


def test_markdown_and_csv_hold_the_numbers_of_the_page(report: dict[str, Any]) -> None:
    text, rows = markdown(report), list(csv.DictReader(io.StringIO(csv_text(report))))
    for line in report["headline"]:
        assert line["text"] in text
    for domain, table in report["scores"].items():
        for group in table["groups"]:
            for row in group["rows"]:
                for column, cell in zip(table["columns"], row["cells"], strict=True):
                    (found,) = (
                        r for r in rows
                        if (r["domain"], r["student"], r["arm"], r["task"], r["set"])
                        == (domain, group["student"], row["arm"], column["task"], column["set"])
                    )  # fmt: skip
                    assert float(found["mean"]) == cell["mean"] and int(found["seeds"]) == cell["n"]
                    assert format.spread(cell["mean"], cell["sd"]) in text
    for row in report["contrasts"]["rows"]:
        assert f"| {format.signed(row['mean'])} | {format.interval(row['low'], row['high'])} |" in text
    for row in report["commands"]:
        assert row["command"] in text


def test_the_answer_that_needs_no_model_stands_in_every_table(report: dict[str, Any], grid: Path) -> None:
    """Sets whose records lack it show a dash, and a report of old records has no such row."""
    for domain, table in report["scores"].items():
        if domain == "out":
            assert table["constant"] is None
            continue
        for column, cell in zip(table["columns"], table["constant"]["cells"], strict=True):
            (value,) = {
                record.baselines[column["set"]].metrics[column["metric"]]
                for record in read_lines(grid / "records.jsonl")
                if record.task == column["task"] and record.metrics
            }
            assert cell["mean"] == (100 * value if column["points"] else value) and cell["sd"] is None
    shown = [format.number(cell["mean"]) for cell in report["scores"]["in"]["constant"]["cells"]]
    views = [markdown(report), *("\n".join(line.plain for line in terminal(report, width)) for width in (60, None))]
    for text in [*views, re.sub(r"<[^>]+>", " ", html(report))]:
        row = text[text.index("no model") :]
        assert all(number in row[:2000] for number in shown)
    rows = [row for row in csv.DictReader(io.StringIO(csv_text(report))) if row["arm"] == "no model" and row["set"]]
    assert [float(row["mean"]) for row in rows] == [c["mean"] for c in report["scores"]["in"]["constant"]["cells"]]


HOSTILE = ["=1+1", "+a", "-b", "@c", " =d", "e\n# f", "a](http://x)", "a|b", "<i>"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_to_a_spreadsheet_and_to_markdown(name: str, tmp_path: Path) -> None:
    records = [
        RunRecord("distill", arm, 1, task=name, student=name, arm=arm, metrics={name: {"accuracy": 0.5}})
        for arm in ("kd", name)
    ]
    found = report_of(tmp_path, *records) | {"name": name, "headline": [{"text": name, "verdict": ""}], "notes": [name]}
    plain, safe = (list(csv.reader(io.StringIO(csv_text(found, spreadsheet_safe=safe)))) for safe in (False, True))
    formula = name.lstrip()[0] in "=+-@"
    assert [cell for row in safe for cell in row if cell.lstrip()[:1] in ("=", "+", "@") or cell == name] == (
        [] if formula else [cell for row in plain for cell in row if cell == name]
    )
    assert [[cell.removeprefix("'") for cell in row] for row in safe] == plain
    lines = markdown(found).split("\n")
    shown = [line for line in lines if line.startswith(("# ", "- ", "> ", "| "))]
    assert lines[0].startswith("# ") and "# f" not in lines and not any("](" in line or "<i" in line for line in shown)


def test_failed_runs_are_listed_but_do_not_count(report: dict[str, Any]) -> None:
    (failed,) = report["failed"]
    assert failed["error"].startswith("RuntimeError") and (failed["arm"], failed["seed"]) == ("rail-kd-w", 3)
    place = [column["task"] for column in report["scores"]["in"]["columns"]].index("RTE")
    (row,) = (row for row in report["scores"]["in"]["groups"][1]["rows"] if row["arm"] == "rail-kd-w")
    assert row["cells"][place]["n"] == 2
    assert "1 run failed and is left out." in report["notes"]


def test_differences_by_hand(tmp_path: Path) -> None:
    # x is 2 and 4 points above kd on A, mean 3, and 1 point on B (one pair). Over tasks: (3 + 1) / 2 = 2.
    records = [run_of("kd", 1, 0.50), run_of("kd", 2, 0.60), run_of("x", 1, 0.52), run_of("x", 2, 0.64)]
    records += [run_of("kd", 1, 0.70, "B"), run_of("x", 1, 0.71, "B"), run_of("x", 2, 0.99, "B")]
    report = report_of(tmp_path, *records)
    rows = {(row["task"], row["over"]): row for row in report["differences"]}
    assert rows["A", "seeds"]["mean"] == pytest.approx(3) and rows["B", "seeds"]["mean"] == pytest.approx(1)
    assert rows["B", "seeds"]["low"] is None
    assert rows["", "tasks"]["mean"] == pytest.approx(2) and rows["", "tasks"]["n"] == 2
    assert not report["contrasts"]["named"] and headline.EXPLORATORY in markdown(report)


def test_the_selection_set_is_not_a_test_set(tmp_path: Path) -> None:
    report = report_of(tmp_path, run_of("kd", 1, 0.5), run_of("kd", 2, 0.5))
    assert [column["set"] for column in report["scores"]["in"]["columns"]] == ["test"]
    assert "99" not in format.number(report["scores"]["in"]["groups"][0]["rows"][0]["cells"][0]["mean"])


def test_one_seed_has_no_interval_and_the_report_says_why(tmp_path: Path) -> None:
    grid = "contrasts: [{name: q, arm: x, baseline: kd}]"
    report = report_of(tmp_path, run_of("kd", 1, 0.5), run_of("x", 1, 0.9), grid=grid)
    line = report["headline"][0]
    assert line["verdict"] == headline.NOT_SHOWN and "one seed, so there is no interval" in line["text"]
    assert "Every arm has one seed" in headline.scores_note(report)
    assert not any(row["cells"][0]["best"] for row in report["scores"]["in"]["groups"][0]["rows"])


def test_arms_that_tie_share_the_highest_score_and_have_no_interval(tmp_path: Path) -> None:
    records = [run_of(arm, seed, 0.5) for arm in ("kd", "x") for seed in (1, 2)]
    first, second = report_of(tmp_path, *records, grid="contrasts: [{name: q, arm: x}]")["headline"]
    assert "x is level with kd over 2 seeds of one task (the 2 seeds agree exactly" in first["text"]
    assert first["verdict"] == headline.NOT_SHOWN and "2 of 2 arms share the highest score, 50.0" in second["text"]


def test_a_clear_difference_is_shown_and_the_best_is_marked(tmp_path: Path) -> None:
    wobble = {1: 0.0, 2: 0.004, 3: -0.003}
    records = [run_of("kd", s, 0.5 + w, t) for s, w in wobble.items() for t in ("A", "B", "C")]
    records += [run_of("x", s, 0.6 + 0.9 * w, t) for s, w in wobble.items() for t in ("A", "B")]
    records += [run_of("x", s, 0.61 + 0.9 * w, "C") for s, w in wobble.items()]
    grid = "baseline: kd\ncontrasts: [{name: q, arm: x}, {name: absent, arm: y}, {name: far, arm: x, domain: out}]"
    report = report_of(tmp_path, *records, grid=grid)
    first, absent, far, *_ = report["headline"]
    assert first["verdict"] == headline.SHOWN and "x is 10.3 points above kd on average over 3 tasks" in first["text"]
    assert (absent["verdict"], far["verdict"]) == ("nothing to compare", "nothing to compare")
    assert report["contrasts"]["family"] == 1  # contrasts without a test do not count in the adjustment
    rows = {row["arm"]: row for row in report["scores"]["in"]["groups"][0]["rows"]}
    assert [cell["best"] for cell in rows["x"]["cells"]] == [True] * 3 and rows["x"]["average"]["best"]
    assert not any(cell["best"] for cell in rows["kd"]["cells"])
    assert (rows["x"]["rank"], rows["kd"]["rank"]) == (1.0, 2.0)
    assert "**60.0 ± 0.3**" in markdown(report)


def test_the_lowest_squared_error_is_best_and_enters_no_average(tmp_path: Path) -> None:
    records = [run_of(arm, s, 0.5) for arm in ("kd", "x") for s in (1, 2, 3)]
    for record in records:
        record.metrics = {
            "test": {"mse": (0.2 if record.arm == "x" else 0.4) + 0.001 * record.seed**2 * (record.arm == "x")}
        }
    rows = {row["arm"]: row for row in report_of(tmp_path, *records)["scores"]["in"]["groups"][0]["rows"]}
    assert rows["x"]["cells"][0]["best"] and not rows["kd"]["cells"][0]["best"] and rows["x"]["average"] is None


def test_ratios_with_a_shared_and_a_whole_teacher_pass(tmp_path: Path) -> None:
    seconds = {"training": 10.0, "evaluation": 1.0}
    records = [run_of("finetune", 1, 0.5, seconds=seconds), run_of("kd", 1, 0.5, seconds=seconds | {"training": 11.0})]
    records += [
        run_of("x", 1, 0.5, seconds=seconds),
        run_of("live", 1, 0.5, seconds=seconds | {"training": 20.0}, config={"live": True}),
    ]
    records += [RunRecord("cache", None, 0, task="A", seconds={"teacher pass": 4.0})]
    rows = {row["arm"]: row for row in report_of(tmp_path, *records)["times"]["rows"]}
    ratios = {arm: [round(row[name], 6) for name in ("ratio", "shared", "charged")] for arm, row in rows.items()}
    assert ratios == {"finetune": [1, 1, 1], "kd": [1.1, 1.3, 1.5], "x": [1, 1.2, 1.4], "live": [2, 2, 2]}
    assert {arm: row["teacher"] for arm, row in rows.items()} == {
        "finetune": "none",
        "kd": "cached",
        "x": "cached",
        "live": "live",
    }


def test_each_of_several_teachers_is_compared_with_its_own_students(tmp_path: Path) -> None:
    """Two students of one task, each with a teacher and a pass of its own."""
    records = []
    for name, right, seconds in (("one", "pnpn", 4.0), ("two", "pppp", 8.0)):
        teacher = RunRecord(
            "evaluate", None, 0, task="A", student=name, labels=["n", "p"], arm="teacher", folder=f"t-{name}"
        )
        teacher.metrics = {"test": {"accuracy": right.count("p") / 4}}
        student = run_of("kd", 1, 0.5, student=name, labels=["n", "p"], folder=f"s-{name}", seconds={"training": 2.0})
        teacher_pass = RunRecord("cache", None, 0, task="A", student=name, seconds={"teacher pass": seconds})
        for record, predicted in ((teacher, right), (student, "pnpn")):
            record.predictions = {"test": "test.tsv"}
            rows = [f"{i}\tp\t{label}\t{int(label == 'n')}\t{int(label == 'p')}" for i, label in enumerate(predicted)]
            folder = tmp_path / record.folder
            folder.mkdir()
            (folder / "test.tsv").write_text("\n".join(["index\tgold\tlabel\tlogit_n\tlogit_p", *rows]) + "\n")
        records += [teacher, teacher_pass, student]
    report = report_of(tmp_path, *records)
    teachers = {row["arm"]: row["cells"][0]["mean"] for row in report["scores"]["in"]["groups"][0]["rows"]}
    assert teachers == {"teacher of one": 50, "teacher of two": 100}
    assert {row["student"]: row["agree"] for row in report["agreement"]} == {"one": 1.0, "two": 0.5}
    assert {row["student"]: row["pass"] for row in report["times"]["rows"]} == {"one": 4.0, "two": 8.0}
    assert [(row["task"], row["runs"]) for row in report["times"]["passes"]] == [("A (one)", 1), ("A (two)", 1)]


def test_the_notes_name_differences_in_versions_machines_and_commits(tmp_path: Path) -> None:
    one = run_of("kd", 1, 0.5, versions={"torch": "2.6"}, machine={"cores": 2}, commit="abc")
    two = run_of("kd", 2, 0.5, versions={"torch": "2.7"}, machine={"cores": 8}, commit="abd+")
    notes = " ".join(report_of(tmp_path, one, two)["notes"])
    for part in ("2 versions of torch (2.6, 2.7)", "2 kinds of machine", "2 commits", "marked +"):
        assert part in notes


def answers(gold: str, predicted: str, sure: float = 2.0, texts: tuple[str, ...] = ()) -> predictions.Answers:
    """Return answers of the classes "n" and "p", one letter per row."""
    logits = np.array([[sure * (letter == name) for name in "np"] for letter in predicted])
    return predictions.Answers(
        list(gold),
        list(predicted),
        logits,
        list(texts) or [""] * len(gold),
        ["n", "p"],
        task_of("single_label_classification"),
    )


def test_disagreement_by_hand() -> None:
    teacher = answers("nnpp", "npnp", texts=("a", "b", "c", "d" * 500))
    student = answers("nnpp", "nnpn", sure=1.0)
    # Rows 1 to 4: equal answers on 1; both correct on 1; only the teacher on 4; only the student on 2 and 3.
    assert list(predictions._shares(teacher, student).values()) == [0.25, 0.25, 0.25, 0.5, 0.0]
    detail = predictions._detail(teacher, student)
    assert detail["matrix"] == [[1, 1], [2, 0]] and detail["differ"] == 3
    assert detail["triples"][0] == {"gold": "n", "teacher": "p", "student": "n", "rows": 1}
    assert [row["row"] for row in detail["examples"]] == [1, 2, 3] and len(
        detail["examples"][2]["text"]
    ) == predictions.MAX_TEXT
    assert detail["by_class"][0] == {"gold": "n", "rows": 2, "agree": 0.5, "teacher": 0.5, "student": 1.0}


def test_the_true_effects_of_a_made_benchmark_are_found(tmp_path: Path) -> None:
    effects = {"finetune": 0.0, "kd": 1.5, "x": -2.0}
    shape = Shape(("A", "B", "C"), ("one", "two"), effects, seeds=4, noise=0.05, missing=(("A", "one", "x"),))
    write(tmp_path, shape)
    report = content(read([tmp_path], "finetune"))
    assert len(report["failed"]) == 4
    pooled = [row for row in report["differences"] if row["over"] == "tasks"]
    assert {(row["student"], row["arm"]) for row in pooled} == {(s, a) for s in shape.students for a in ("kd", "x")}
    assert all(row["mean"] == pytest.approx(effects[row["arm"]], abs=0.2) for row in pooled)
    averages = [row for row in report["scores"]["in"]["groups"][1]["rows"] if row["average"]]
    assert [row["arm"] for row in averages] == ["finetune", "kd"]  # x lacks a task for this student
