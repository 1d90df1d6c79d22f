"""The length at which texts are cut, and the rows and the metric that choose the epoch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import tiny
from jobs.commands import argv, railkd
from railkd.cli import main
from railkd.data.keys import held_out
from railkd.errors import RailkdError
from railkd.records import RunRecord

Capture = pytest.CaptureFixture[str]


def test_every_job_says_how_much_is_truncated(base: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "rows.tsv"
    rows = [("good " * (20 if i < 4 else 2), i % 2) for i in range(16)]
    file.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    line = "truncated at 10 tokens: 25.0% of rows (the longest has 22); a larger --max-length reads more of them"
    teacher = tmp_path / "teacher" / "model"
    jobs: dict[str, list[Any]] = {
        "finetune": ["--model", base, "--train", file, "--output", tmp_path / "teacher", "--epochs", 1],
        "cache": ["--teacher", teacher, "--train", file, "--cache", tmp_path / "cache"],
        "distill": ["--teacher", teacher, "--student-layers", 2, "--train", file, "--output", tmp_path / "out"],
        "evaluate": ["--model", teacher, "--test", file],
    }
    jobs["distill"] += ["--epochs", 1, "--method", "kd"]
    for verb, words in jobs.items():
        railkd(verb, *words, "--max-length", 10)
        assert line in capsys.readouterr().err, verb


def test_every_verb_cuts_texts_at_the_length_of_the_training(base: Path, tmp_path: Path, capsys: Capture) -> None:
    rows = tmp_path / "rows.tsv"
    rows.write_text("text\tlabel\n" + "good the not who what\tyes\nnot a what\tno\n" * 12)
    railkd(*argv("finetune --model", base, "--train", rows, "--max-length 7 --max-steps 1 --output", tmp_path / "t"))
    model, out = tmp_path / "t" / "model", tmp_path / "out"
    student = argv("distill --teacher", model, "--student-layers 2 --method kd --max-steps 1 --train", rows)
    verbs = [
        argv("predict --model", model, "--test", rows, "--output", tmp_path / "answers.tsv"),
        argv("evaluate --model", model, "--test", rows),
        argv("check --teacher", model, "--student-layers 2 --train", rows),
        argv("cache --teacher", model, "--train", rows, "--cache", tmp_path / "cache"),
        [*student, "--output", out],
        argv("finetune --model", out / "student", "--train", rows, "--max-steps 1 --output", tmp_path / "again"),
    ]
    for words in verbs:
        capsys.readouterr()
        railkd(*words)
        said = "".join(capsys.readouterr())
        assert "at 7 tokens" in said and "was trained with" not in said, argv
    railkd(*student, "--max-length", 5, "--output", tmp_path / "shorter")
    said = "".join(capsys.readouterr())
    assert "texts are cut at 5 tokens, but the model was trained with 7" in said
    config = json.loads((tmp_path / "shorter" / "student" / "config.json").read_text())
    assert config["railkd"]["max_length"] == 5


def test_a_share_of_the_training_rows_chooses_the_epoch(base: Path, tmp_path: Path) -> None:
    """No dev file: rows held out choose, are not trained on, and the record says so; other runs hold out the same."""
    lines = [f"the good who {i % 20}\t{'yes' if i % 3 else 'no'}" for i in range(60)]
    (tmp_path / "train.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    train = ["finetune", "--model", base, "--train", tmp_path / "train.tsv", "--eval-share", 0.25, "--epochs", 1]
    records = []
    for name, seed in (("one", 0), ("two", 1)):
        railkd(*train, "--output", tmp_path / name, "--seed", seed, "--no-bf16", "--quiet")
        records.append(RunRecord.read(tmp_path / name / "metrics.json"))
    for record in records:
        held = int(re.search(r"(\d+) training rows held out", record.selection)[1])  # type: ignore[index]
        assert held == 15 and record.metrics["eval"]  # 20 texts, each three times: a quarter of them
    again = ["--model", tmp_path / "one" / "model", "--train", tmp_path / "train.tsv", "--eval-share", 0.25]
    assert (
        main(["finetune", *map(str, again), "--eval", str(tmp_path / "train.tsv"), "--output", str(tmp_path / "3")])
        == 2
    )


def test_rows_held_out_are_a_function_of_their_content() -> None:
    rows = tiny.text_rows(40)
    rest, held = held_out(rows, 0.2, 0)
    other, again = held_out(rows.select(range(39, -1, -1)), 0.2, 0)
    assert sorted(held["text"]) == sorted(again["text"]) and not set(held["text"]) & set(rest["text"])
    assert len(rest) + len(held) == 40 == len(other) + len(again)
    assert sorted(held_out(rows, 0.2, 1)[1]["text"]) != sorted(held["text"])
    with pytest.raises(RailkdError, match="leaves one part empty"):
        held_out(rows, 0.001, 0)


@pytest.mark.parametrize("metric", ["loss", "eval_matthews", "f1"])
def test_the_best_epoch_is_the_one_of_the_metric_that_the_user_names(base: Path, tmp_path: Path, metric: str) -> None:
    """The loss is best where it is lowest. A metric that the task does not compute by default is computed too."""
    lines = [f"good the {'is' if i % 2 else 'not'} {'a' * (i % 3)}\t{i % 2}" for i in range(24)]
    (tmp_path / "train.tsv").write_text("\n".join(["text\tlabel", *lines, ""]))
    (tmp_path / "dev.tsv").write_text("\n".join(["text\tlabel", *lines[:6], "good the is\t0", ""]))
    railkd(
        *("finetune", "--model", base, "--train", tmp_path / "train.tsv", "--eval", tmp_path / "dev.tsv", "--no-bf16"),
        *("--metric-for-best-model", metric, "--epochs", 5, "--learning-rate", 0.01, "--batch-size", 8, "--quiet"),
        *("--output", tmp_path / "out"),
    )
    record = RunRecord.read(tmp_path / "out" / "metrics.json")
    name = metric.removeprefix("eval_")
    values = {entry["step"]: entry[f"eval_{name}"] for entry in record.curve if f"eval_{name}" in entry}
    best = min(values.values()) if name == "loss" else max(values.values())
    assert len(set(values.values())) > 1  # otherwise every epoch would be the best
    step = next(step for step, value in values.items() if value == best)
    assert record.selection == f"best {name} on --eval, at step {step}"
    assert name == "loss" or record.metrics["eval"][name] == pytest.approx(best)
