"""A file of predictions is certified as the model that wrote it, whatever the names of the labels beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from jobs.commands import railkd
from railkd.data.keys import example_key
from railkd.data.predictions import write_answers, write_predictions
from railkd.data.reader import read
from railkd.data.reading import Reading
from railkd.data.sources import Source, load_rows
from railkd.errors import RailkdError
from railkd.jobs.answer_file import AnswerFile
from railkd.jobs.certify import certify
from railkd.jobs.scorer import Scorer
from railkd.jobs.shipping_options import CertifyOptions
from railkd.jobs.thresholds import FittedOn, Thresholds
from railkd.tasks import TASKS, task_named
from railkd.teacher import TeacherLabels
from tiny import bert_config, make_tokenizer, save, text_rows

NAMES = ("neg", "pos", "calm")
KINDS = {
    "classification": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}
ROWS = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of each kind, and rows of each kind with their labels in ``label`` and in ``labels``."""
    place = tmp_path_factory.mktemp("kinds")
    chance, texts = np.random.default_rng(0), text_rows(ROWS)["text"]
    for kind, problem in KINDS.items():
        names = ["value"] if kind == "regression" else list(NAMES)
        heads = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        for seed in (1, 2):
            torch.manual_seed(seed)
            model = BertForSequenceClassification(bert_config(1, problem_type=problem, **heads)).eval()
            save(place / f"{kind}-{seed}", model, make_tokenizer())
        flags = chance.random((ROWS, 3)) > 0.4
        gold: dict[str, list[Any]] = {
            "classification": chance.choice(NAMES, ROWS).tolist(),
            "multi-label": [[name for name, there in zip(NAMES, row, strict=True) if there] for row in flags],
            "regression": chance.normal(size=ROWS).tolist(),
        }
        for column in ("label", "labels"):
            rows = [{"text": text, column: cell} for text, cell in zip(texts, gold[kind], strict=True)]
            write_predictions(str(place / f"{kind}-{column}.jsonl"), rows)
    return place


def evidence(place: Path, test: Path, model: object, against: object, **changes: Any) -> tuple[list[Any], list[Any]]:
    """The lines of a certificate, and the answers that differ."""
    options = CertifyOptions(model=str(model), against=str(against), test=[str(test)], **changes)
    options.output = str(place / "evidence.json")
    certify(options, lambda line: None)
    (found,) = json.loads(Path(options.output).read_text())["sets"]
    lines = [(line["name"], line["drop"]) for line in found["lines"] if not line["name"].startswith("length")]
    return lines, sorted((flip["index"], flip["reference"], flip["candidate"]) for flip in found["flips"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("column", "form"), [("label", "tsv"), ("labels", "jsonl")])
def test_predictions_are_judged_as_their_model_and_never_by_the_labels_of_the_rows(
    place: Path, kind: str, column: str, form: str
) -> None:
    test, models = place / f"{kind}-{column}.jsonl", [place / f"{kind}-{seed}" for seed in (1, 2)]
    files = [place / f"{kind}-{column}-{seed}.{form}" for seed in (1, 2)]
    for model, file in zip(models, files, strict=True):
        railkd("predict", "--quiet", "--model", model, "--test", test, "--output", file)
        assert f"input_{column}" in load_rows(str(file)).column_names
    if kind == "regression":  # a certificate of numbers takes seconds: what it compares is enough
        table = read(Source.parse(str(test)), Reading(), split="train")
        for model, file in zip(models, files, strict=True):
            wanted_outputs = Scorer.find(str(model)).load().logits(table.rows, max_length=64, batch_size=32)
            np.testing.assert_allclose(AnswerFile.read(str(file)).match(table)[0], wanted_outputs, atol=1e-5)
        return
    wanted = evidence(place, test, *models)
    assert wanted[0][0][1]["rows"] == ROWS and wanted[1]
    for model, against in ((files[0], models[1]), (models[0], files[1]), files):
        assert evidence(place, test, model, against) == wanted


@pytest.mark.parametrize("column", ["label", "labels", "gold_label"])
def test_an_older_file_of_numbers_does_not_pass_for_the_labels_beside_it(
    place: Path, tmp_path: Path, column: str
) -> None:
    texts = text_rows(ROWS)["text"]
    rows = [{"index": i, "score": -i / 7, column: float(i), "text": text} for i, text in enumerate(texts)]
    write_predictions(str(tmp_path / "old.tsv"), rows)
    scores = np.array([row["score"] for row in rows])
    found_file = AnswerFile.read(str(tmp_path / "old.tsv"))
    assert found_file.task.name == "regression"
    np.testing.assert_allclose(found_file.outputs[:, 0], scores)
    with pytest.raises(RailkdError, match=f"column '{column}' or 'score'"):
        TeacherLabels.read(str(tmp_path / "old.tsv"))
    teacher = TeacherLabels.read(str(tmp_path / "old.tsv"), problem_type="regression")
    found = teacher.gather(np.array([example_key(text) for text in texts]), None)[0]
    np.testing.assert_allclose(np.asarray(found)[:, 0], scores, rtol=1e-6)


@pytest.mark.parametrize("kind", ["classification", "multi-label"])
def test_answers_that_follow_thresholds_are_those_that_are_judged(place: Path, tmp_path: Path, kind: str) -> None:
    model, test, out = place / f"{kind}-1", place / f"{kind}-label.jsonl", tmp_path / "cut.jsonl"
    limits = dict(zip(NAMES, (0.9, 0.2, 0.7), strict=True))
    content = Scorer.find(str(model)).content()
    file = tmp_path / "thresholds.json"
    Thresholds(1, KINDS[kind], content, 1.0, "best-f1", limits, [], FittedOn("rows", 1, "-")).write(file)
    railkd("predict", "--quiet", "--model", model, "--test", test, "--output", out, "--thresholds", file)
    said = [json.loads(line) for line in out.read_text().splitlines()]
    flipped = tmp_path / "flipped.jsonl"
    _, flips = evidence(tmp_path, test, out, model, flipped=str(flipped))
    key = "label" if kind == "classification" else "labels"
    assert len(flips) > 5 and all(candidate == said[index][key] for index, _, candidate in flips)
    for row in map(json.loads, flipped.read_text().splitlines()):
        logits = np.array([said[row["index"]][f"logit_{name}"] for name in NAMES])
        if kind == "classification":
            sure = (np.exp(logits) / np.exp(logits).sum())[NAMES.index(row["candidate"])]
        else:
            given = np.array([name in row["candidate"] for name in NAMES])
            sure = np.where(given, 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits))).min()
        assert row["candidate_confidence"] == pytest.approx(sure, abs=1e-5)


def test_the_kind_of_a_file_is_that_of_its_columns_of_the_other_side_or_as_asked(place: Path, tmp_path: Path) -> None:
    test, model = place / "multi-label-label.jsonl", place / "multi-label-1"
    table = load_rows(str(test))
    logits = Scorer.find(str(model)).load().logits(table, max_length=64, batch_size=32)
    task = TASKS[KINDS["multi-label"]]
    given = [row["labels"] for row in task.predictions(logits, NAMES)]
    texts = [(text,) for text in table["text"][:]]
    write_answers(tmp_path / "kept.tsv", table["label"][:], given, logits, NAMES, texts)
    rows = [{"text": text, "label": "|".join(row)} for (text,), row in zip(texts, given, strict=True)]
    write_predictions(str(tmp_path / "bare.tsv"), rows)
    wanted = evidence(tmp_path, test, model, place / "multi-label-2")
    for name in ("kept.tsv", "bare.tsv"):
        assert evidence(tmp_path, test, tmp_path / name, place / "multi-label-2") == wanted
    both = (tmp_path / "bare.tsv", tmp_path / "bare.tsv")
    lines, flips = evidence(tmp_path, test, *both, problem_type="multi-label")
    assert not flips and [name for name, _ in lines] == [name for name, _ in wanted[0]]
    assert AnswerFile.read(str(tmp_path / "kept.tsv")).task.several
    alone = AnswerFile.read(str(tmp_path / "bare.tsv"), task_named("multi-label"))
    assert set(alone.labels) == {name for row in given for name in row}
    one = np.asarray([[0.4]] * 3)
    write_answers(tmp_path / "number.tsv", [1.0, 2.0, 3.0], [0.4] * 3, one, ["value"])
    assert AnswerFile.read(str(tmp_path / "number.tsv")).task.name == "regression"


@pytest.mark.parametrize(
    ("kind", "names", "cells", "wanted"),
    [
        ("classification", ("0", "1"), [1, 0], ["1", "0"]),
        ("classification", ("0", "1"), [1.0, 0.0], ["1", "0"]),
        ("classification", ("true", "false"), [True, False], ["true", "false"]),
        ("classification", ("1.0", "2.0"), ["1.0", "2.0"], ["1.0", "2.0"]),
        ("multi-label", ("0", "1"), ["0|1", "", "1"], ["01", "", "1"]),
        ("multi-label", ("0", "1"), [1, None, 0], ["1", "", "0"]),
        ("multi-label", ("0", "1"), [[0, 1], [], [1]], ["01", "", "1"]),
    ],
)
def test_labels_are_matched_by_name_with_the_columns_of_outputs(
    kind: str, names: tuple[str, ...], cells: list[Any], wanted: list[str], tmp_path: Path
) -> None:
    rows = [{"text": "t", "label": cell} | {f"logit_{name}": 0.5 for name in names} for cell in cells]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = AnswerFile.read(str(file))
    assert found.task is TASKS[KINDS[kind]] and found.given is not None
    assert ["".join(np.array(names)[row]) for row in found.given] == wanted


@pytest.mark.parametrize("column", ["label", "probabilities"])
def test_a_row_without_an_answer_is_named_and_equal_numbers_are_one_class(column: str, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    answers: list[Any] = [1.0, 0.0, 1.0] if column == "label" else [{"0": 0.2, "1": 0.8}, {"0": 0.9, "1": 0.1}] * 2
    for empty in (None, 0, 1):
        rows = [{"text": str(n), column: None if n == empty else cell} for n, cell in enumerate(answers)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if empty is None:
            found = AnswerFile.read(str(file), TASKS["single_label_classification"])
            assert found.labels == ("0", "1") and found.outputs.argmax(axis=1).tolist()[:3] == [1, 0, 1]
            continue
        with pytest.raises(RailkdError, match=f"got none in 1 row, the first of them row {empty + 1}"):
            AnswerFile.read(str(file), TASKS["single_label_classification"])
