"""Scores of classes: counted by hand, and shown by evaluate's table, the card and the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from railkd.data.labels import LabelSpace
from railkd.export.card import model_card
from railkd.records import ClassScore, RunRecord, write_lines
from railkd.report.by_class import MOST_CLASSES
from railkd.report.content import content
from railkd.report.html import html
from railkd.report.study import read
from railkd.report.text import markdown
from railkd.tasks import task_of
from railkd.tasks.by_class import class_lines, confusion, scores_by_class
from railkd.tasks.scored import Scored, scored_rows
from tiny import bert_config

NAMES = ("common", "rare", "never")


def three_classes() -> Scored:
    """Rows of three classes: 4 of the first, 2 of the second, none of the third, which is answered once."""
    labels, answers = np.array([0, 0, 0, 0, 1, 1, -100]), [0, 0, 0, 1, 1, 2, 0]
    task = task_of("single_label_classification")
    return scored_rows(task, np.eye(3)[answers], labels, LabelSpace(NAMES))


def test_classes_are_counted_by_hand() -> None:
    """What no row defines is None, not 0. A row without a label does not count."""
    assert scores_by_class(three_classes()) == [
        ClassScore("common", precision=1.0, recall=3 / 4, f1=6 / 7, support=4, answered=3),
        ClassScore("rare", precision=1 / 2, recall=1 / 2, f1=1 / 2, support=2, answered=2),
        ClassScore("never", precision=0.0, recall=None, f1=0.0, support=0, answered=1),
    ]
    assert confusion(three_classes()) == [[0, 0, 3], [0, 1, 1], [1, 1, 1], [1, 2, 1]]


def test_each_of_several_labels_is_counted_and_numbers_have_no_classes() -> None:
    labels = np.array([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]])
    outputs = np.array([[2.0, 1, -1], [-1, 1, -1], [-1, -1, -1]])
    rows = scored_rows(task_of("multi_label_classification"), outputs, labels, LabelSpace(("a", "b", "c")))
    assert scores_by_class(rows) == [
        ClassScore("a", precision=1.0, recall=1 / 2, f1=2 / 3, support=2, answered=1),
        ClassScore("b", precision=1 / 2, recall=1.0, f1=2 / 3, support=1, answered=2),
        ClassScore("c", precision=None, recall=None, f1=None, support=0, answered=0),
    ]
    numbers = scored_rows(task_of("regression"), np.ones((2, 1)), np.array([1.0, 2.0]))
    assert confusion(rows) == confusion(numbers) == scores_by_class(numbers) == []


def test_a_terminal_shows_few_classes_in_order_and_the_worst_of_many() -> None:
    lines = class_lines("dev", scores_by_class(three_classes()))
    assert lines[0] == "dev, by class:" and [line.split()[0] for line in lines[2:]] == list(NAMES)
    assert lines[1].split() == ["class", "precision", "recall", "F1", "rows"]
    assert lines[4].split() == ["never", "0.0000", "-", "0.0000", "0"] and class_lines("dev", []) == []
    many = [ClassScore(f"c{n}", 0.5, 0.5, n / 100, 1, 1) for n in reversed(range(77))]
    lines = class_lines("dev", [*many, ClassScore("never", None, None, None, 0, 0)])
    assert lines[0] == "dev, by class (the 20 of 78 classes with the lowest F1):"
    assert [line.split()[0] for line in lines[2:]] == [f"c{n}" for n in range(20)]


def run_of(arm: str, seed: int, f1: float, job: str = "distill") -> RunRecord:
    record = RunRecord(job, arm if job == "distill" else None, seed, task="T", student="s", arm=arm)
    record.metrics = {"dev": {"accuracy": 0.9}, "eval": {"accuracy": 0.9}}
    rare = ClassScore("ra|re <b>", 0.25, None if seed == 2 else 0.5, f1, 3, 6)
    record.classes = {"dev": [ClassScore("common", 1.0, 1.0, 1.0, 97, 94), rare], "eval": [rare]}
    return record


def test_the_report_has_a_table_of_classes_for_each_test_set(tmp_path: Path) -> None:
    """Scores are means over the seeds that define them. Records without classes have no table."""
    runs = [run_of("kd", 1, 0.25), run_of("kd", 2, 0.75), run_of("teacher", 0, 0.5, "finetune")]
    write_lines(tmp_path / "records.jsonl", runs)
    report = content(read([tmp_path]))
    (table,) = report["classes"]
    assert (table["set"], table["arms"], table["total"]) == ("dev", ["teacher of s", "kd"], 2)
    rare = table["classes"][1]
    assert rare["rows"] == 3 and rare["cells"][1] == {"precision": 0.25, "recall": 0.5, "f1": 0.5}
    page, text = html(report), markdown(report)
    assert "<summary>T, dev <small>2 classes</small>" in page and "ra|re &lt;b&gt;" in page and "<b>re" not in page
    assert "50.0 (25.0 / 50.0)" in page and "| ra\\|re &lt;b> | 3 | 50.0 (25.0 / 50.0) |" in text
    write_lines(tmp_path / "records.jsonl", [replace(run, classes={}) for run in runs])
    report = content(read([tmp_path]))
    assert report["classes"] == [] and 'id="classes"' not in html(report)


def test_a_page_of_many_classes_shows_the_worst(tmp_path: Path) -> None:
    record = run_of("kd", 1, 0.5)
    record.classes = {"dev": [ClassScore(f"c{n}", 0.5, 0.5, n / 200, 1, 1) for n in range(150)]}
    write_lines(tmp_path / "records.jsonl", [record])
    report = content(read([tmp_path]))
    (table,) = report["classes"]
    assert [row["name"] for row in table["classes"]] == [f"c{n}" for n in range(MOST_CLASSES)]
    assert f"the {MOST_CLASSES} of 150 classes with the lowest F1" in html(report)


@pytest.mark.parametrize("shipped", [None, {"vocabulary": {"after": 5, "before": 9}}])
def test_the_card_shows_test_sets_by_class(shipped: dict[str, Any] | None) -> None:
    """The selection set stands in it only without a test set. A smaller vocabulary was not scored."""
    record = run_of("kd", 1, 0.25)
    record.gaps = {"dev": {"auroc": "there are no rows"}}
    text = model_card(record, bert_config(2), shipped)
    if shipped:
        assert "Scores by class" not in text
        return
    assert (
        text.count("| ra\\|re <b> | 0.2500 | 0.5000 | 0.2500 | 3 |") == 1 and "dev, auroc: there are no rows." in text
    )
    record.classes.pop("dev")
    assert model_card(record, bert_config(2)).count("| 0.2500 | 0.5000 | 0.2500 | 3 |") == 1


def test_a_record_keeps_classes_and_one_of_an_earlier_release_has_none(tmp_path: Path) -> None:
    record = run_of("kd", 2, 0.5)
    record.confusion = {"dev": [[0, 0, 94]]}
    record.write(tmp_path / "metrics.json")
    assert RunRecord.read(tmp_path / "metrics.json") == record
    old = '{"job": "distill", "method": "kd", "seed": 1, "schema": 2, "metrics": {"dev": {"accuracy": 0.5}}}'
    assert RunRecord.from_text(old, "old").classes == {}
