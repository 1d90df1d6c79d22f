"""A job refuses bad rows, teachers and metrics before it writes anything."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from transformers import BertForSequenceClassification

import tiny
from jobs.commands import argv, base_of, railkd
from railkd.cli import main

Capture = pytest.CaptureFixture[str]


def test_a_distillation_refuses_a_chance_teacher_before_it_writes_anything(tmp_path: Path, capsys: Capture) -> None:
    base = base_of(tmp_path / "base", ["good", "bad"])
    chance = random.Random(0)
    file = tmp_path / "rows.tsv"
    file.write_text("text\tlabel\n" + "".join(f"{chance.choice(['good', 'bad'])} {i}\t0\n{i}\t1\n" for i in range(20)))
    model = BertForSequenceClassification.from_pretrained(base)
    model.classifier.bias.data += 100  # both classes alike: the answer is that of the weights, the same for all rows
    model.classifier.bias.data[1] += 100
    tiny.save(base, model)
    words = ["distill", "--teacher", base, "--student-layers", 2, "--train", file, "--eval", file, "--method", "kd"]
    words += ["--label-map", "0=LABEL_0", "1=LABEL_1", "--epochs", 1, "--output", tmp_path / "out"]
    assert main([str(word) for word in words]) == 2
    message = capsys.readouterr().err
    assert "weak teacher: accuracy 0.500 on 40 rows, 0.500 by always answering" in message
    assert "--allow-weak-teacher" in message and not (tmp_path / "out").exists()
    railkd(*words, "--allow-weak-teacher")
    assert "warning: weak teacher" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--live --states-on-device yes --shared-size 8", "--states-on-device yes has no effect with --live"),
        ("--states-dim 16 --shared-size 8", "Expected states_dim from 1 to 15, fewer than a state's 16 numbers"),
        ("--states-dim 4 --method pkd-skip", "Expected whole states for pkd-skip"),
    ],
)
def test_states_that_cannot_be_kept_are_refused_before_anything_is_written(
    flags: str, said: str, base: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "train.tsv").write_text("text\tlabel\ngood film\tLABEL_0\nbad film\tLABEL_1\n")
    files = ("--train", tmp_path / "train.tsv", "--output", tmp_path / "out")
    assert main(argv("distill --student-layers 2 --teacher", base, flags, *files)) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
    if "16" in flags:
        assert main(argv("check --student-layers 2 --states-dim 16 --teacher", base, *files[:2])) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["finetune", "distill", "other student", "cache"])
def test_rows_longer_than_a_model_takes_are_refused_before_anything_is_written(
    verb: str, base: Path, tmp_path: Path, capsys: Capture
) -> None:
    """The models take 160 tokens, the other student 64: that is a matter of rows, not of --max-length alone."""
    files = {"fine": tmp_path / "fine.tsv", "long": tmp_path / "long.tsv"}
    for name, file in files.items():
        words = {"fine": 20, "long": 100 if verb == "other student" else 200}[name]
        file.write_text("text\tlabel\n" + "".join(f"{'good ' * (words + i)}\t{i % 2}\n" for i in range(4)))
    label = ["--label-map", "0=LABEL_0", "1=LABEL_1"]
    small = tiny.save(tmp_path / "small", tiny.make_model(2), tiny.make_tokenizer())
    jobs: dict[str, list[Any]] = {
        "finetune": ["finetune", "--model", base, "--epochs", 1],
        "distill": ["distill", "--teacher", base, "--student-layers", 2, "--method", "kd", "--epochs", 1, *label],
        "other student": ["distill", "--teacher", base, "--student", small, "--method", "kd", "--epochs", 1, *label],
        "cache": ["cache", "--teacher", base],
    }
    out = tmp_path / "out"
    where = ["--cache" if verb == "cache" else "--output", out, "--max-length", 512]
    assert main([str(word) for word in (*jobs[verb], "--train", files["long"], *where)]) == 2
    message, limit = capsys.readouterr().err, 64 if verb == "other student" else 160
    assert (
        "got 4 of 4 rows longer than the " in message
        and f"wanted at most {limit}; give --max-length {limit}" in message
    )
    assert not out.exists()
    railkd(*jobs[verb], "--train", files["fine"], *where)


@pytest.mark.parametrize("more", ["pair", "single"])
def test_unlabelled_rows_have_as_many_texts_as_the_training_rows(
    more: str, base: Path, tmp_path: Path, capsys: Capture
) -> None:
    single, pair = tmp_path / "single.tsv", tmp_path / "pair.tsv"
    single.write_text("text\tlabel\n" + "good\t0\nbad\t1\n" * 4)
    pair.write_text("sentence1\tsentence2\tlabel\n" + "good\tthe\t0\nbad\ta\t1\n" * 4)
    train, unlabelled = (single, pair) if more == "pair" else (pair, single)
    words = ["distill", "--teacher", base, "--student-layers", 2, "--train", train, "--unlabelled", unlabelled]
    words += ["--method", "kd", "--label-map", "0=LABEL_0", "1=LABEL_1", "--output", tmp_path / "out"]
    assert main([str(word) for word in words]) == 2
    message = capsys.readouterr().err
    got, wanted = ("pairs of texts", "one text a row") if more == "pair" else ("one text a row", "pairs of texts")
    assert f"--unlabelled: expected {wanted} as in --train '{train}', got {got} in '{unlabelled}'. Fix: name" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("metric", "chosen", "message"),
    [
        (
            "acuracy",
            ["--eval-share", 0.5],
            "--metric-for-best-model: no metric 'acuracy' for classification. Expected one of accuracy, f1, matthews, ",
        ),
        (
            "pearson",
            ["--eval-share", 0.5],
            "no metric 'pearson' for classification. Expected one of accuracy, f1, matthews, ",
        ),
        ("f1", [], "Expected rows to compute --metric-for-best-model f1 on, got none. Fix: give --eval FILE"),
    ],
)
def test_a_metric_that_cannot_choose_is_refused(
    base: Path, tmp_path: Path, capsys: Capture, metric: str, chosen: list[object], message: str
) -> None:
    (tmp_path / "train.tsv").write_text("text\tlabel\n" + "good\tyes\nnot\tno\nwho\tyes\nwhat\tno\n" * 4)
    words = ["finetune", "--model", base, "--train", tmp_path / "train.tsv", *chosen, "--metric-for-best-model", metric]
    assert main([*map(str, words), "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
