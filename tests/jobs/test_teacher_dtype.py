"""``--teacher-dtype`` and ``--teacher-device-map``: what reaches the teacher, the cache and the student."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from jobs.commands import argv, base_of, railkd
from railkd.cli import main
from railkd.teacher import TeacherCache
from tiny import make_tokenizer, save, text_rows


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rows = text_rows(24)
    words = sorted({word for text in rows["text"] for word in text.split()})
    lines = [f"{text}\t{label}" for text, label in zip(rows["text"], rows["label"], strict=True)]
    (tmp_path / "train.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    names = {"id2label": {0: "neg", 1: "pos"}, "label2id": {"neg": 0, "pos": 1}}
    model = AutoModelForSequenceClassification.from_pretrained(base_of(tmp_path / "base", words), **names)
    save(tmp_path / "single", model, make_tokenizer(words))
    save(tmp_path / "half", model.bfloat16(), make_tokenizer(words))
    return tmp_path


def test_the_precision_of_a_teacher_goes_from_its_files_to_the_cache_and_not_to_the_student(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["--train", files / "train.tsv", "--no-bf16", "--max-length", "16"]
    railkd("cache", "--teacher", files / "half", *train, "--cache", files / "cache", "--teacher-device-map", "auto")
    cache = TeacherCache.open(files / "cache")
    assert cache.identity.precision == "bfloat16 weights"
    job = ["distill", "--teacher", files / "half", "--cache", files / "cache", *train, "--epochs", 1]
    job += ["--student-layers", 2, "--shared-size", 8, "--allow-weak-teacher"]
    railkd(*job, "--output", files / "run")
    weights = load_file(files / "run" / "student" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float32"}
    capsys.readouterr()
    again = argv(*[str(word) for word in job], "--output", files / "other", "--teacher-dtype float32")
    assert main(again) == 2
    assert "precision is bfloat16 weights in the cache, float32 here" in capsys.readouterr().err


def test_options_of_a_teacher_that_does_not_run_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    railkd("cache", "--teacher", files / "half", "--train", files / "train.tsv", "--cache", files / "cache")
    cache, train = ["--cache", files / "cache"], ["--train", files / "train.tsv"]
    for words in (
        ["cache", "--verify", *cache],
        ["distill", *cache, "--student", files / "single", *train, "--output", files / "run"],
    ):
        assert main([*map(str, words), "--teacher-dtype", "float16"]) == 2
        assert "--teacher-dtype has no effect with" in capsys.readouterr().err
