"""``predict`` answers each row in the order of the file and keeps its columns, whatever the model and the format."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from jobs.commands import argv, railkd
from railkd.cli import main
from railkd.data.sources import load_rows
from railkd.jobs.predict import BUFFER, predict
from railkd.jobs.shipping_options import PredictOptions
from railkd.models.inference import predict_logits
from railkd.tasks import TASKS
from tiny import bert_config, make_tokenizer, save, text_rows

Capture = pytest.CaptureFixture[str]
MOODS = {0: "glad", 1: 'a "sad" one', 2: "calm"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind of task, of one block."""
    torch.manual_seed(1)
    kinds: dict[str, dict[str, Any]] = {
        "classes": {},
        "several": {
            "problem_type": "multi_label_classification",
            "id2label": MOODS,
            "label2id": {name: number for number, name in MOODS.items()},
        },
        "number": {"problem_type": "regression", "id2label": {0: "value"}, "label2id": {"value": 0}},
    }
    place = tmp_path_factory.mktemp("models")
    return {
        name: save(place / name, BertForSequenceClassification(bert_config(1, **config)).eval(), make_tokenizer())
        for name, config in kinds.items()
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 rows with columns that railkd does not know, one of which has the name of a column of the answers."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    with file.open("w") as lines:
        for number, text in enumerate(text_rows(300)["text"]):
            row = {"id": f"r{number}", "text": text, "score": number / 7, "tags": ["a", "b"], "by": {"rater": 1}}
            lines.write(json.dumps(row if number % 3 else row | {"extra": True}) + "\n")
    return file


def read(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()]
    table = load_rows(str(file))
    return [dict(row) for row in table]


@pytest.mark.parametrize("kind", ["classes", "several", "number"])
def test_answers_stand_beside_the_columns_of_the_file_in_its_order(
    models: dict[str, Path], rows: Path, tmp_path: Path, kind: str
) -> None:
    asked = [] if kind == "number" else ["--probabilities"]
    for form in ("jsonl", "tsv", "csv"):
        out = tmp_path / f"said.{form}"
        railkd("predict", "--model", models[kind], "--test", rows, "--output", out, "--quiet", *asked)
    given, (plain, tsv, table) = read(rows), (read(tmp_path / f"said.{form}") for form in ("jsonl", "tsv", "csv"))
    assert tsv == table and len(tsv) == len(plain) == 300
    model = BertForSequenceClassification.from_pretrained(models[kind])
    logits = predict_logits(model, make_tokenizer(), load_rows(str(rows)), max_length=128).astype(float)
    names = list(model.config.id2label.values())
    shares = TASKS[model.config.problem_type or "single_label_classification"].probabilities(logits)
    for number, (source, row, cells) in enumerate(zip(given, plain, tsv, strict=True)):
        assert row["index"] == number == int(cells["index"]) and row["id"] == cells["id"] == f"r{number}"
        assert row["input_score"] == source["score"] and row["by"] == {"rater": 1} and row["tags"] == ["a", "b"]
        assert cells["tags"] == "a|b" and json.loads(cells["by"]) == {"rater": 1}
        assert row["extra"] is source.get("extra") and row["text"] == source["text"] == cells["text"]
        if shares is None:
            assert row["score"] == pytest.approx(logits[number, 0], abs=1e-5)
            continue
        assert row["probabilities"] == {name: float(cells[f"prob_{name}"]) for name in names}
        np.testing.assert_allclose(list(row["probabilities"].values()), shares[number], rtol=1e-4)
        if kind == "classes":
            assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            assert row["label"] == names[int(logits[number].argmax())]


def test_more_rows_than_the_buffer_holds_keep_their_order(models: dict[str, Path], tmp_path: Path) -> None:
    texts = [f"{'good ' * (number % 5)}film {number}" for number in range(BUFFER + 300)]
    (tmp_path / "many.csv").write_text("id,sentence\n" + "".join(f"{n},{text}\n" for n, text in enumerate(texts)))
    options = PredictOptions(model=str(models["classes"]), test=[str(tmp_path / "many.csv")])
    options.output, said = str(tmp_path / "said.csv"), []
    predict(options, said.append)
    with (tmp_path / "said.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["sentence"] for row in found] == texts and found[-1]["index"] == found[-1]["id"]
    same = {}
    for row in found:  # a text without its number: the words that the tokenizer knows
        same.setdefault(row["sentence"].count("good"), set()).add((row["label"], f"{float(row['logit_pos']):.4f}"))
    assert len(same) == 5 and all(len(answers) == 1 for answers in same.values())
    assert any("truncated at 128 tokens: 0.0% of 587 sampled rows" in line for line in said), said


def test_no_progress_is_shown_where_nobody_looks(models: dict[str, Path], rows: Path, capsys: Capture) -> None:
    railkd("predict", "--model", models["classes"], "--test", rows)
    err = capsys.readouterr().err
    assert "300 rows; text: text; no labels read" in err and "predicting" not in err


def test_what_a_model_or_a_file_cannot_give_is_refused(
    models: dict[str, Path], rows: Path, tmp_path: Path, capsys: Capture
) -> None:
    said = tmp_path / "said.tsv"
    assert main(argv("predict --probabilities --model", models["number"], "--test", rows, "--output", said)) == 2
    assert "--probabilities: the model gives a number" in capsys.readouterr().err
    (tmp_path / "bad.tsv").write_text("text\tn\n" + "good\t1\n" * 30 + "good\n")
    assert main(argv("predict --model", models["classes"], "--test", tmp_path / "bad.tsv", "--output", said)) == 2
    assert "line 32 has 1 fields" in capsys.readouterr().err and not said.exists()
    assert main(argv("predict --device mps --model", models["classes"], "--test", rows, "--output", said)) == 2
    assert "got mps" in capsys.readouterr().err and not said.exists()


def test_an_evaluation_runs_on_the_device_that_is_asked_for(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("text\tlabel\n" + "good film\tpos\nbad\tneg\n" * 4)
    railkd("evaluate", "--model", models["classes"], "--test", tmp_path / "dev.tsv", "--device", "cpu", "--quiet")
