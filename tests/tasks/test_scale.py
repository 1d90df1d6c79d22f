"""A regression teacher on another scale than the labels is named with the line between both, and can be put on it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertForSequenceClassification

import tiny
from railkd.cli import main
from railkd.errors import RailkdError
from railkd.records import RunRecord
from railkd.tasks import task_of
from railkd.tasks.scale import compare_scales, fit_line

NUMBERS = task_of("regression")
Capture = pytest.CaptureFixture[str]
MADE = np.random.default_rng(0)
LABELS, NOISE = MADE.uniform(0, 5, 300), MADE.normal(size=300)


@given(slope=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_the_line_is_found_whatever_the_scale(slope: float, offset: float) -> None:
    line = fit_line((LABELS[:, None] - offset) / slope, LABELS)
    assert line.slope == pytest.approx(slope, rel=1e-6) and line.offset == pytest.approx(offset, rel=1e-6, abs=1e-6)
    assert line.explained == pytest.approx(1)


@pytest.mark.parametrize(
    ("outputs", "level"),
    [
        (LABELS, None),
        (LABELS + NOISE, None),  # noise of the teacher widens its outputs
        (2.5 + (LABELS + NOISE - 2.5) * 0.6, None),  # the best guess from noisy words is narrower than the labels
        (LABELS + 0.2, None),
        (LABELS / 5, "error"),  # trained on 0 to 1
        (LABELS / 5 + NOISE / 10, "error"),
        (LABELS + 3, "error"),
        ((LABELS - 2.5) * 6.4, "error"),  # logits of a cross-encoder
        (LABELS * 0.6 + 1, "warning"),
        (NOISE + 0.3 * LABELS + 9, "warning"),  # far away, but a line explains little
    ],
)
def test_a_scale_is_told_from_noise(outputs: np.ndarray, level: str | None) -> None:
    found = compare_scales(outputs, LABELS, "so far")
    assert (found.level if found else None) == level
    judged = NUMBERS.judge(outputs[:, None], LABELS, ("value",))
    assert judged.level == (level or "note")
    if found is not None:
        line = fit_line(outputs, LABELS)
        assert str(line) in found.detail and "--rescale-teacher" in found.fix
        assert NUMBERS.judge(outputs[:, None], LABELS, ("value",), allowed=True).level == "warning"
        assert compare_scales(outputs * line.slope + line.offset, LABELS, "") is None


def test_labels_of_0_and_1_beside_logits_are_named() -> None:
    labels = (LABELS > 2.5).astype(float)
    found = NUMBERS.judge((16 * labels - 8 + NOISE)[:, None], labels, ("value",))
    assert found.level == "error" and "on another scale than the labels (mean 0.5" in found.detail


@pytest.mark.parametrize("outputs", [-LABELS, np.ones(300), LABELS[:1]])
def test_no_line_is_fitted_where_there_is_none(outputs: np.ndarray) -> None:
    with pytest.raises(RailkdError, match="outputs of the teacher that rise with the labels"):
        fit_line(outputs, LABELS[: len(outputs)])


# ---- by the command line -----------------------------------------------------------------------


def scored(count: int, seed: int, scale: float) -> list[tuple[str, float]]:
    chance, rows = random.Random(seed), []
    for _ in range(count):
        words = chance.choices(["good", "bad", "film", "plot", "scene", "music"], k=8)
        rows.append((" ".join(words), scale * (words.count("good") - words.count("bad") + 4) / 8))
    return rows


def write(path: Path, rows: list[tuple[str, float]]) -> Path:
    path.write_text("text\tscore\n" + "".join(f"{text}\t{value}\n" for text, value in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher of scores from 0 to 1, and rows with scores from 0 to 5."""
    folder = tmp_path_factory.mktemp("scale")
    torch.manual_seed(0)
    one = {"id2label": {0: "value"}, "label2id": {"value": 0}, "problem_type": "regression"}
    model, tokenizer = BertForSequenceClassification(tiny.bert_config(2, dropout=0.0, **one)), tiny.make_tokenizer()
    rows, optimizer = scored(200, 5, 1.0), torch.optim.Adam(model.parameters(), lr=3e-3)
    batch = tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
    labels = torch.tensor([value for _, value in rows])
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(**batch).logits[:, 0], labels).backward()
        optimizer.step()
    tiny.save(folder / "teacher", model.eval(), tokenizer)
    write(folder / "train.tsv", scored(120, 1, 5.0))
    write(folder / "dev.tsv", scored(60, 2, 5.0))
    return folder


def distill(here: Path, out: Path, *words: object) -> int:
    files: list[Any] = ["--teacher", here / "teacher", "--train", here / "train.tsv", "--eval", here / "dev.tsv"]
    ways = ["--student-layers", 2, "--method", "kd", "--weights", 0, 1, 0, "--learning-rate", 5e-3, "--epochs", 12]
    files += [*ways, "--no-bf16", "--quiet", "--output", out]
    return main(["distill", *map(str, [*files, *words])])


def test_check_and_distill_refuse_a_teacher_on_another_scale(here: Path, tmp_path: Path, capsys: Capture) -> None:
    files = ["--teacher", here / "teacher", "--train", here / "train.tsv", "--eval", here / "dev.tsv", "--json"]
    for words, level in (([], "error"), (["--allow-weak-teacher"], "warning")):
        assert main(["check", *map(str, [*files, *words])]) == (2 if level == "error" else 0)
        found = {row["title"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
        assert found["scale of the teacher"]["level"] == level
    assert main(["check", *map(str, files), "--rescale-teacher"]) == 0
    found = {row["title"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    assert "scale of the teacher" not in found and found["teacher"]["level"] == "note"
    assert distill(here, tmp_path / "out") == 2
    assert "on another scale than the labels" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_student_of_a_rescaled_teacher_answers_on_the_scale_of_the_labels(here: Path, tmp_path: Path) -> None:
    """It learns from the teacher alone, live and from a cache, whose stored outputs stay as they are."""
    records: dict[str, RunRecord] = {}
    ways: dict[str, list[Any]] = {"cached": ["--cache", tmp_path / "cache"], "live": ["--live"]}
    for name, words in ways.items():
        assert distill(here, tmp_path / name, "--rescale-teacher", *words) == 0
        records[name] = RunRecord.read(tmp_path / name / "metrics.json")
        slope, offset = records[name].teacher_line
        assert 4 < slope < 6 and abs(offset) < 1
        assert records[name].metrics["eval"]["mse"] < 0.3 * records[name].baselines["eval"].metrics["mse"]
    assert records["cached"].teacher_line == pytest.approx(records["live"].teacher_line, rel=1e-3, abs=1e-3)
    assert distill(here, tmp_path / "plain", "--allow-weak-teacher", "--cache", tmp_path / "cache") == 0
    plain = RunRecord.read(tmp_path / "plain" / "metrics.json")
    assert plain.teacher_line == [] and plain.metrics["eval"]["mse"] > plain.baselines["eval"].metrics["mse"]


def test_the_flag_is_refused_where_it_has_no_effect(here: Path, tmp_path: Path, capsys: Capture) -> None:
    assert distill(here, tmp_path / "out", "--rescale-teacher", "--method", "finetune", "--weights", "1", "0", "0") == 2
    assert "--rescale-teacher: the method has no teacher" in capsys.readouterr().err
    tiny.save(tmp_path / "classes", tiny.make_model(1), tiny.make_tokenizer())
    (tmp_path / "rows.tsv").write_text("text\tlabel\ngood film\tpos\nbad film\tneg\n")
    words = ["--teacher", tmp_path / "classes", "--train", tmp_path / "rows.tsv", "--rescale-teacher"]
    assert main(["check", *map(str, words)]) == 2
    assert "expected a regression teacher, got classification" in capsys.readouterr().err
