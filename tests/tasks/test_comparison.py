"""Each score stands beside that of the answer that needs no model, and a model that gives one answer is named."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from railkd.cli import main
from railkd.data.reader import Table, read
from railkd.data.reading import Reading
from railkd.data.sources import Source
from railkd.records import Baseline, RunRecord
from railkd.tasks.comparison import compare
from railkd.tasks.target import Target

NAMES = ("bad", "good", "so so")
KINDS = {
    "classification": ("single_label_classification", NAMES, ["good", "good", "bad", "good", "so so", "bad"]),
    "two classes": ("single_label_classification", NAMES[:2], ["good", "good", "bad", "good", "good", "bad"]),
    "multi-label": ("multi_label_classification", NAMES, [["good"], ["good", "so so"], [], ["good"], ["bad"], []]),
    "regression": ("regression", ("value",), [0.5, 2.0, 3.5, 1.0, 2.5, 4.0]),
}
by_kind = pytest.mark.parametrize("kind", KINDS)


def table_of(folder: Path, kind: str) -> tuple[Target, Table, np.ndarray]:
    problem, names, labels = KINDS[kind]
    target = Target.of_model(names, problem, "m")
    rows = (json.dumps({"text": f"text {number}", "label": label}) for number, label in enumerate(labels))
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    table = target.label(read(Source.parse(str(folder / "rows.jsonl")), Reading(), split="test"))
    return target, table, np.asarray(table.rows["label"], dtype=float)


def right(kind: str, labels: np.ndarray) -> np.ndarray:
    """Outputs whose answers are the labels."""
    if kind == "regression":
        return labels[:, None]
    return 2 * labels - 1 if labels.ndim > 1 else np.eye(len(KINDS[kind][1]))[labels.astype(int)]


def compared(target: Target, table: Table, outputs: np.ndarray) -> Baseline:
    return compare(target, table, outputs, target.score(table, outputs))


@by_kind
def test_the_baseline_scores_one_answer_to_every_row(kind: str, tmp_path: Path) -> None:
    target, table, labels = table_of(tmp_path, kind)
    outputs = right(kind, labels)
    found = compared(target, table, outputs)
    assert found.remark == "" and found.metrics.keys() == target.score(table, outputs).keys()
    if kind == "regression":
        assert found.answer == f"{labels.mean():.4g}" and found.metrics["mse"] == pytest.approx(labels.var())
        assert found.metrics["pearson"] == 0
    elif kind != "multi-label":
        ((common, count),) = Counter(KINDS[kind][2]).most_common(1)
        assert found.answer == repr(common) and found.metrics["accuracy"] == count / len(labels)
    assert found.positive == ("good" if kind == "two classes" else "")


@by_kind
def test_one_answer_to_every_row_is_told(kind: str, tmp_path: Path) -> None:
    target, table, labels = table_of(tmp_path, kind)
    outputs = np.repeat(right(kind, labels)[:1], len(labels), axis=0)
    outputs = outputs + 1e-3 * np.arange(len(labels))[:, None] * (kind == "regression")
    told = compared(target, table, outputs).remark
    assert told.startswith("the answers hardly differ" if kind == "regression" else "every answer is 'good'")
    # One answer that every label has is right.
    same = table.rows.select([0, 3]) if kind != "regression" else table.rows.select([0, 0])
    assert "every answer" not in compared(target, replace(table, rows=same), outputs[:2]).remark


@by_kind
def test_answers_that_are_no_better_than_one_answer_are_told(kind: str, tmp_path: Path) -> None:
    target, table, labels = table_of(tmp_path, kind)
    wrong = -right(kind, labels) if kind in ("regression", "multi-label") else np.roll(right(kind, labels), 1, axis=1)
    found = compared(target, table, wrong)
    metric = next(iter(found.metrics))
    assert found.remark == f"{metric} is no better than that of the answer {found.answer} to every row"


def test_finetune_evaluate_and_the_record_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.save(tmp_path / "base", tiny.make_model(2), tiny.make_tokenizer())
    rows = [f"{word} film\t{'pos' if number % 4 else 'neg'}" for number, word in enumerate(tiny.WORDS)]
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *rows, ""]))
    files = ["--train", str(tmp_path / "rows.tsv"), "--test", f"own={tmp_path / 'rows.tsv'}"]
    words = ["--learning-rate", "1", "--epochs", "3", "--no-bf16", "--quiet", "--output", str(tmp_path / "out")]
    assert main(["finetune", "--model", str(tmp_path / "base"), *files, *words]) == 0
    said = capsys.readouterr().out
    record = RunRecord.read(tmp_path / "out" / "metrics.json")
    assert "(always 'pos': accuracy 0.7500, f1 0.8571)" in said
    found = record.baselines["own"]
    assert (found.answer, found.positive, found.metrics["accuracy"]) == ("'pos'", "pos", 0.75)
    assert found.remark in ("every answer is 'pos'", "every answer is 'neg'")  # with this learning rate
    assert f"  warning: own: {found.remark}" in said and "f1 of 'pos'" in said
    assert main(["evaluate", "--model", str(tmp_path / "out" / "model"), "--quiet", *files]) == 0
    assert capsys.readouterr().out.startswith(said)  # and the scores by class
