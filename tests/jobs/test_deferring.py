"""``railkd predict --defer``: the student answers what it is sure of, and a larger model the rest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from railkd.cli import main
from railkd.data.reader import Reading, read
from railkd.data.sources import Source
from railkd.jobs.splits import digests
from railkd.models.inference import predict_logits
from railkd.records import RunRecord
from railkd.runtime.ownership import Ledger

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student with other weights in its head that differs near the boundary, and two files of texts."""
    base, tokenizer = tmp_path_factory.mktemp("deferred"), tiny.make_tokenizer()
    model, rows = tiny.make_model(1, seed=3), tiny.text_rows(500, seed=5, labels=None)
    with torch.no_grad():
        model.classifier.weight *= 6
        found = predict_logits(model, tokenizer, rows, max_length=128)
        model.classifier.bias[1] -= float(np.median(found[:, 1] - found[:, 0]))
        tiny.save(base / "teacher", model, tokenizer)
        model.classifier.bias[1] += 0.5
        tiny.save(base / "student", model, tokenizer)
        model.classifier.weight.zero_()
        tiny.save(base / "ignorant", model, tokenizer)
    for name, part in (("held", range(300)), ("new", range(300, 500))):
        lines = [rows["text"][i] for i in part]
        (base / f"{name}.tsv").write_text("text\n" + "\n".join(lines) + "\n", encoding="utf-8")
    (base / "other.tsv").write_text("text\tlabel\na film\tpos\nthe plot\tneg\n", encoding="utf-8")
    return base


def predict(room: Path, out: Path, *words: str, code: int = 0, student: str = "student") -> list[dict[str, Any]]:
    command = ["predict", "--model", str(room / student), "--test", str(room / "new.tsv"), "--output", str(out)]
    assert main([*command, *words]) == code
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []


def test_sure_rows_are_those_of_the_student_and_the_others_those_of_the_teacher(
    room: Path, tmp_path: Path, capsys: Capture
) -> None:
    held = ("--held-out", str(room / "held.tsv"), "--defer", "0.95")
    marked = predict(room, tmp_path / "marked.jsonl", *held, "--against", str(room / "teacher"))
    said = capsys.readouterr().err
    answered = predict(room, tmp_path / "answered.jsonl", *held, "--defer-to", str(room / "teacher"))
    student = predict(room, tmp_path / "student.jsonl")
    teacher = predict(room, tmp_path / "teacher.jsonl", student="teacher")
    deferred = [row["deferred"] for row in marked]
    assert 0 < sum(deferred) < len(deferred) == 200 and [row["deferred"] for row in answered] == deferred
    for flag, mark, mixed, small, large in zip(deferred, marked, answered, student, teacher, strict=True):
        assert {name: mark[name] for name in small} == small
        wanted = large if flag else small
        assert (mixed["index"], mixed["label"]) == (wanted["index"], wanted["label"])
        assert mixed["logit_pos"] == pytest.approx(wanted["logit_pos"], abs=1e-5)  # another batch, another last digit
    limit = float(re.search(r"its confidence is at least (0\.\d+)", said)[1])  # type: ignore[index]
    assert all((row["score"] < limit) == bool(row["deferred"]) for row in marked if abs(row["score"] - limit) > 1e-4)
    assert f"the student answers {200 - sum(deferred)} of 200 rows" in said and "cost: " in said
    kept = [a["label"] == b["label"] for a, b, flag in zip(student, teacher, deferred, strict=True) if not flag]
    assert np.mean(kept) > 0.93


def test_a_student_that_knows_nothing_defers_everything(room: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ("--held-out", str(room / "held.tsv"), "--defer", "0.95", "--defer-to", str(room / "teacher"))
    found = predict(room, tmp_path / "out.jsonl", *words, student="ignorant")
    assert "so all rows are deferred" in capsys.readouterr().err
    assert all(row["deferred"] == 1 for row in found)
    assert {row["label"] for row in found} == {"neg", "pos"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--defer 0.99 --defer-to TEACHER --held-out HELD", "expected at least 299 rows"),
        ("--defer 0.95 --held-out HELD", "--defer: expected --defer-to MODEL or --against MODEL"),
        ("--defer 0.95 --against TEACHER --defer-to TEACHER --held-out HELD", "exclude each other"),
        ("--defer 0.95 --defer-to TEACHER", "--held-out is missing"),
        (
            "--defer 98 --defer-to TEACHER --held-out HELD",
            "--defer: expected a share between 0 and 1, such as 0.98, got 98",
        ),
        ("--defer-to TEACHER --held-out HELD", "has no effect without --defer"),
        ("--defer 0.95 --defer-to TEACHER --held-out HELD --output HELD", "is read by --held-out"),
        ("--defer 0.95 --defer-to OTHER --held-out HELD", "Expected two models with the same classes"),
    ],
)
def test_what_cannot_be_promised_is_refused(
    room: Path, tmp_path: Path, words: str, message: str, capsys: Capture
) -> None:
    short = tmp_path / "held.tsv"
    lines = (room / "held.tsv").read_text(encoding="utf-8").splitlines()
    short.write_text("\n".join(lines[:299]) + "\n", encoding="utf-8")  # 298 rows
    if "OTHER" in words:
        other = tiny.make_model(1, id2label={0: "pos", 1: "neg"}, label2id={"pos": 0, "neg": 1})
        tiny.save(tmp_path / "other", other, tiny.make_tokenizer())
    for name, path in (("TEACHER", room / "teacher"), ("OTHER", tmp_path / "other"), ("HELD", short)):
        words = words.replace(name, str(path))
    output = [] if "--output" in words else ["--output", str(tmp_path / "out.jsonl")]
    command = ["predict", "--model", str(room / "student"), "--test", str(room / "new.tsv"), *output, *words.split()]
    assert main(command) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("labels", "place", "known", "code", "message"),
    [
        (True, "model", "rows", 2, "holds the rows that trained the model (--train of"),
        (False, "model", "texts", 2, "holds the rows that trained the model (--train of"),
        (False, "checkpoint-3", "texts", 2, "holds the rows that trained the model (--train of"),
        (False, "model", "begun", 2, "holds the rows that trained the model (--train of"),
        (False, "model", "rows", 0, "cannot be compared with those that trained the model"),
        (False, "model", "other", 0, "used other sets for training and for choosing its epoch"),
    ],
)
def test_rows_that_trained_one_of_the_models_are_refused_with_labels_and_without(
    room: Path, tmp_path: Path, labels: bool, place: str, known: str, code: int, message: str, capsys: Capture
) -> None:
    texts = (room / "held.tsv").read_text(encoding="utf-8").splitlines()[1:]
    seen, run = tmp_path / "seen.tsv", tmp_path / "run"
    seen.write_text("text\tlabel\n" + "".join(f"{text}\tpos\n" for text in texts), encoding="utf-8")
    table = read(Source.parse(str(seen if known != "other" else room / "other.tsv")), Reading(), split="train")
    contents = {"train": table.digest} if known == "rows" else digests({"train": table}, {})
    tiny.save(run / place, tiny.make_model(1, seed=3), tiny.make_tokenizer())
    if known == "begun":
        Ledger(run).note({"threads": 1, "contents": contents})
    else:
        Ledger(run).add("metrics.json")
        RunRecord("finetune", None, 0, contents=contents).write(run / "metrics.json")
    rows = seen if labels else room / "held.tsv"
    words = ("--defer", "0.9", "--held-out", str(rows), "--against", str(run / place))
    predict(room, tmp_path / "out.jsonl", *words, code=code)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("labels", [True, False])
def test_rows_that_chose_the_thresholds_of_the_student_are_refused(
    room: Path, tmp_path: Path, labels: bool, capsys: Capture
) -> None:
    texts, rows = (room / "held.tsv").read_text(encoding="utf-8").splitlines()[1:], tmp_path / "rows.tsv"
    lines = [f"{text}\t{('neg', 'pos')[n % 3 == 0]}\n" for n, text in enumerate(texts)]
    rows.write_text("text\tlabel\n" + "".join(lines), encoding="utf-8")
    cut = tmp_path / "thresholds.json"
    fit = ["calibrate", "--model", str(room / "student"), "--eval", str(rows), "--output", str(cut), "--quiet"]
    assert main(fit) == 0
    held = rows if labels else room / "held.tsv"
    words = ("--defer", "0.9", "--held-out", str(held), "--against", str(room / "teacher"), "--thresholds", str(cut))
    predict(room, tmp_path / "out.jsonl", *words, code=2)
    assert f"holds the rows that --thresholds '{cut}' were fitted on" in capsys.readouterr().err
