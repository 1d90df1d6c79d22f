"""From files with several labels a row to scored students, in each form that such files have."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

from jobs.commands import base_of, railkd
from railkd.records import RunRecord
from thorough import unless

Capture = pytest.CaptureFixture[str]


MOODS = ("calm", "glad", "sad")


def mood_rows(count: int, seed: int) -> list[tuple[str, tuple[str, ...]]]:
    """A text says which moods apply: its words are their names, among others."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        moods = tuple(mood for mood in MOODS if chance.random() < 0.4)
        words = [*moods, *chance.choices(["film", "plot", "actor", "scene"], k=3)]
        chance.shuffle(words)
        rows.append((" ".join(words), moods))
    return rows


def write_moods(path: Path, rows: list[tuple[str, tuple[str, ...]]], form: str) -> Path:
    """In one of the forms that users have."""
    path = path.with_suffix(".jsonl" if form == "list" else ".csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        if form == "list":
            file.writelines(json.dumps({"text": text, "labels": list(moods)}) + "\n" for text, moods in rows)
        elif form == "columns":
            table = csv.writer(file)
            table.writerow(["text", *MOODS])
            table.writerows([text, *(int(mood in moods) for mood in MOODS)] for text, moods in rows)
        else:
            table = csv.writer(file)
            table.writerow(["text", "labels"])
            table.writerows([text, form.join(moods)] for text, moods in rows)
    return path


@pytest.mark.parametrize(
    ("form", "flags", "method"),
    unless(
        lambda case: case[0] in ("|", "columns"),
        [
            ("|", ["--problem-type", "multi-label"], "rail-kd-l"),
            (",", ["--problem-type", "multi-label"], "kd"),
            ("list", [], "rail-kd-c"),
            ("columns", ["--label-column", *MOODS], "pkd-skip"),
        ],
    ),
)
def test_several_labels_a_row_from_end_to_end(
    form: str, flags: list[str], method: str, tmp_path: Path, capsys: Capture
) -> None:
    base = base_of(tmp_path / "base", [*MOODS, "film", "plot", "actor", "scene"])
    train = write_moods(tmp_path / "train", mood_rows(160, 1), form)
    dev = write_moods(tmp_path / "dev", mood_rows(40, 2), form)
    files = [
        "--train",
        train,
        "--eval",
        dev,
        *flags,
        "--batch-size",
        8,
        "--learning-rate",
        3e-3,
        "--no-bf16",
        "--quiet",
    ]
    railkd("finetune", "--model", base, *files, "--output", tmp_path / "teacher", "--epochs", 4)
    # No --allow-weak-teacher: a teacher that has learned the moods passes the check.
    teacher = tmp_path / "teacher" / "model"
    rail = ("--shared-size", 8) if method.startswith("rail") else ()
    student = ("--teacher", teacher, "--student-layers", 2, "--method", method, "--output", tmp_path / "out", *rail)
    (tmp_path / "more.tsv").write_text("text\n" + "".join(f"{text}\n" for text, _ in mood_rows(20, 3)))
    more = ["--unlabelled", tmp_path / "more.tsv"] if method != "pkd-skip" else []
    railkd("distill", *files, *student, *more, "--epochs", 5)
    record = RunRecord.read(tmp_path / "out" / "metrics.json")
    assert list(record.metrics["eval"]) == ["micro_f1", "macro_f1", "subset_accuracy"]
    assert record.metrics["eval"]["micro_f1"] > 0.7  # always the commonest labels: 0.57
    assert record.selection.startswith("best micro_f1 on --eval, at step ")
    config = json.loads((tmp_path / "out" / "student" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification" and tuple(config["id2label"].values()) == MOODS

    model = tmp_path / "out" / "student"
    railkd("predict", "--model", model, "--test", dev, "--output", tmp_path / "said.jsonl", "--quiet")
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    exact = sum(set(row["labels"]) == set(moods) for row, (_, moods) in zip(said, mood_rows(40, 2), strict=True))
    assert exact / 40 == pytest.approx(record.metrics["eval"]["subset_accuracy"])
    assert all((row["score_sad"] > 0.5) == ("sad" in row["labels"]) == (row["logit_sad"] > 0) for row in said)
    capsys.readouterr()
    railkd("predict", "--model", model, "--test", dev, "--quiet")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("index\tlabels\tscore_calm") and lines[1].split("\t")[1] == "|".join(said[0]["labels"])
