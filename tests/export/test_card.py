"""A card says how a model came about and what it scored, and nothing of the machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import AutoTokenizer, BertForSequenceClassification

from railkd.cli import main
from railkd.data.sources import load_rows
from railkd.export.card import model_card
from railkd.export.example import write_example
from railkd.export.latency import Side, measure
from railkd.export.layout import Shipped
from railkd.export.session import OnnxModel
from railkd.jobs.thresholds import FittedOn, Thresholds
from railkd.records import RunRecord
from railkd.report.shipped import find_exports
from railkd.runtime.files import write_json
from railkd.tasks import TASKS
from tiny import bert_config, make_model, make_tokenizer, save, text_rows

Capture = pytest.CaptureFixture[str]


def record_of(**changes: object) -> RunRecord:
    record = RunRecord("distill", "rail-kd-l", 7)
    record.config = {"teacher": "/home/me/teacher/model", "train": "data/train.tsv", "output": "/home/me/out"}
    record.config["test"] = ["hans=/home/me/hans.tsv"]
    record.metrics = {"movie": {"accuracy": 0.91, "f1": 0.9}, "hans": {"accuracy": 0.5}, "eval": {"accuracy": 0.99}}
    record.domains = {"movie": "in", "hans": "out", "eval": "in"}
    record.draws, record.sizes = [[1, 3], [2, 4]], {"parameters": 17_400_000}
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def test_the_metadata_is_that_of_the_hub() -> None:
    data = ModelCard(model_card(record_of(), bert_config(2))).data
    assert (data.pipeline_tag, data.library_name) == ("text-classification", "transformers")
    assert "railkd" in data.tags and data.base_model is None  # a folder says nothing to a reader elsewhere
    found = {(one.dataset_name, one.metric_type): one.metric_value for one in data.eval_results}
    assert found == {("movie", "accuracy"): 0.91, ("movie", "f1"): 0.9, ("hans", "accuracy"): 0.5}
    hub = record_of(config={"teacher": "org/teacher@main", "train": "train.tsv"})
    assert ModelCard(model_card(hub, bert_config(2))).data.base_model == ["org/teacher"]


def test_the_text_names_method_scores_draws_and_command_but_no_folder_of_the_machine() -> None:
    text = model_card(record_of(), bert_config(2))
    for wanted in (
        "rail-kd-l (Haidar et al. 2022",
        "1-3, 2-4",
        "| hans | out of domain | 0.5000 |",
        "17.4 M",
        "neg, pos",
    ):
        assert wanted in text
    assert "/home" not in text and "no interval over seeds" in text
    settings = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert settings == {"teacher": "model", "train": "data/train.tsv", "test": ["hans=hans.tsv"]}


def test_a_student_of_answers_names_their_file() -> None:
    for given in ("/home/me/votes.tsv", "runs/mine/votes.tsv"):
        text = model_card(record_of(config={"teacher_labels": given, "train": "train.tsv"}), bert_config(2))
        assert "distilled from the answers in `votes.tsv` by rail-kd-l" in text and "/home" not in text
    assert "distilled from `model` by" in model_card(record_of(), bert_config(2))


def test_a_card_holds_no_secret_of_an_address() -> None:
    given = ["https://SECRET:SECRET@h.org/a.csv?sig=SECRET#SECRET[:5]", "s3://SECRET:SECRET@b/c.tsv?v=SECRET:0.3"]
    given.append("hans=https://h.org/d.csv")
    nested = "zip://e.csv::https://SECRET@h.org/e.zip?sig=SECRET"
    config = {"teacher_labels": "https://h.org/votes.tsv?sig=SECRET", "train": nested, "test": given}
    text = model_card(record_of(config=config), bert_config(2))
    assert "SECRET" not in text and "the answers in `votes.tsv`" in text
    settings = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert settings["test"] == ["https://h.org/a.csv[:5]", "s3://b/c.tsv:0.3", "hans=https://h.org/d.csv"]
    assert settings["train"] == "zip://e.csv::https://h.org/e.zip"


def test_times_and_memory_do_not_change_a_card() -> None:
    plain = model_card(record_of(), bert_config(2))
    assert plain == model_card(record_of(seconds={"training": 9.0}, peak_memory=10**9, started="later"), bert_config(2))
    assert plain != model_card(record_of(seed=8), bert_config(2))


def test_a_model_without_a_record_has_a_card_too() -> None:
    card = ModelCard(model_card(None, bert_config(2)))
    assert card.data.eval_results is None and "## How to use" in card.text and "## Scores" not in card.text


def test_a_run_and_its_export_have_cards_and_the_export_reads_the_rows_of_the_run(
    dev: Path, tmp_path: Path, capsys: Capture
) -> None:
    entry = {"railkd": {"max_length": 100}}  # the teacher reads longer texts than its student
    teacher = save(tmp_path / "teacher", make_model(2, seed=1, **entry), make_tokenizer())
    words = [
        "distill",
        "--teacher",
        teacher,
        "--student-layers",
        1,
        "--train",
        dev,
        "--eval",
        dev,
        "--test",
        f"d={dev}",
    ]
    words += [
        "--method",
        "kd",
        "--epochs",
        1,
        "--max-length",
        64,
        "--output",
        tmp_path / "run",
        "--allow-weak-teacher",
        "--quiet",
    ]
    assert main([str(word) for word in words]) == 0
    card = ModelCard.load(tmp_path / "run" / "student" / "README.md")
    assert "distilled from `teacher` by kd" in card.text and str(tmp_path) not in card.content
    assert {one.dataset_name for one in card.data.eval_results} == {"d"}
    assert main(["export", str(tmp_path / "run"), "--onnx", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "320 rows, of all lengths" in said and re.search(r"teacher, PyTorch  .* 1\.000 ", said)  # --test and --eval
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert find_exports([tmp_path / "out"]) == [(tmp_path / "out" / "export.json", record)]
    assert [side["name"] for side in record["latency"]["sides"]] == [
        "teacher, PyTorch",
        "model, PyTorch",
        "model, ONNX",
    ]
    student, onnx = record["latency"]["sides"][1:]
    assert [side["max_length"] for side in record["latency"]["sides"]] == [100, 64, 64]
    assert record["latency"]["sides"][0]["agreement"] == 1 and onnx["agreement"] == student["agreement"] <= 1
    assert student["scores"].keys() == {"d", "eval"} and onnx["scores"] == student["scores"] and student["rows"] == 320
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| onnx/model.onnx |" in text and "verdicts differ" in text and "| model, ONNX | " in text


def test_the_example_prints_the_outputs_of_the_int8_file(shipped: Path) -> None:
    text = text_rows(1, seed=9)["text"][0]
    done = subprocess.run([sys.executable, shipped / "example.py", text], capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout)
    model = OnnxModel(shipped / "onnx" / "model_quantized.onnx")
    wanted = model.run(AutoTokenizer.from_pretrained(shipped)([text], return_tensors="pt"))[0]
    assert list(printed) == ["neg", "pos"]
    np.testing.assert_allclose(list(printed.values()), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
def test_the_example_answers_by_the_thresholds_that_were_shipped(kind: str, shipped: Path, tmp_path: Path) -> None:
    folder, text = Shipped(tmp_path / "shipped"), text_rows(1, seed=9)["text"][0]
    shutil.copytree(shipped, folder.path)
    logits = OnnxModel(folder.int8).run(AutoTokenizer.from_pretrained(shipped)([text], return_tensors="pt"))
    task = TASKS[kind]
    usual = task.probabilities(logits)[0]
    pick = int(usual.argmin())  # a class that is not answered without thresholds
    limits = {name: 0.01 if place == pick else 0.99 for place, name in enumerate(("neg", "pos"))}
    rule = Thresholds(1, kind, "", 1.5, "best-f1", limits, [], FittedOn("rows.tsv", 1, ""))
    write_json(folder.thresholds, asdict(rule))
    write_example(folder, 64, several=task.several)
    done = subprocess.run([sys.executable, folder.example, text], capture_output=True, text=True, check=True)
    printed, cut = json.loads(done.stdout), rule.apply(task)
    np.testing.assert_allclose(list(printed["probabilities"].values()), cut.probabilities(logits)[0], atol=1e-6)
    name = ("neg", "pos")[pick]
    assert list(printed["probabilities"]) == ["neg", "pos"] and printed["answer"] == ([name] if task.several else name)
    assert cut.decide(logits).reshape(-1).tolist() == ([int(n == name) for n in limits] if task.several else [pick])


def test_every_side_is_timed_on_the_same_rows_and_the_first_is_the_measure() -> None:
    tokenizer, rows = make_tokenizer(), [(text,) for text in text_rows(70, seed=2)["text"][:]]
    seen: dict[str, list[int]] = {"a": [], "b": []}
    sides = [
        Side(
            name, lambda batch, name=name: seen[name].append(batch["input_ids"].numel()), ["input_ids"], tokenizer, size
        )
        for name, size in (("a", 100), ("b", 25))
    ]
    first, second = measure(sides, rows, [64, 32])
    assert seen["a"] == seen["b"] and len(seen["a"]) == 64 + 3 + 2
    assert (first.timed, first.max_length, second.max_length) == (64, 64, 32)
    assert (first.ratio, first.size_ratio, second.size_ratio) == (1.0, 1.0, 0.25)
    assert second.ratio > 0 and second.p95_ms >= second.p50_ms


def test_slow_models_are_timed_on_fewer_rows_which_are_of_all_lengths_too() -> None:
    tokenizer, rows = make_tokenizer(), [("good " * count,) for count in range(1, 101)]
    seen: list[int] = []
    side = Side("slow", lambda batch: seen.append(batch["input_ids"].numel()), ["input_ids"], tokenizer, 1)
    (found,) = measure([side], rows, [200], seconds=(0.0, 0.0))
    single = sorted(seen[1:17])  # the first warms up
    assert found.timed == 16 and len(seen) == 1 + 16 + 1 + 1 and found.rows_per_second > 0
    assert single[0] <= 3 and single[-1] > 90 and max(np.diff(single)) < 10


def test_each_model_is_timed_at_its_own_length(tmp_path: Path) -> None:
    lengths, rows = {"model": 30, "teacher": 100}, tmp_path / "long.tsv"
    for name, length in lengths.items():
        config = bert_config(1, railkd={"max_length": length})
        config.max_position_embeddings = length + 10
        save(tmp_path / name, BertForSequenceClassification(config).eval(), make_tokenizer())
    rows.write_text("text\tlabel\n" + f"{'good ' * 120}\tpos\n{'bad ' * 120}\tneg\n" * 2)
    words = ["evaluate", "--model", str(tmp_path / "model"), "--teacher", str(tmp_path / "teacher")]
    assert main([*words, "--test", str(rows), "--quiet", "--output", str(tmp_path / "scores.json")]) == 0
    found = json.loads((tmp_path / "scores.json").read_text())["side by side"]["sides"]
    assert [side["name"] for side in found] == [str(tmp_path / name) for name in ("teacher", "model")]
    assert [side["max_length"] for side in found] == [100, 30]


def test_models_stand_side_by_side_with_their_scores_and_the_agreement_with_the_teacher(
    shipped: Path, model_folder: Path, dev: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = {"id2label": {0: "pos", 1: "neg"}, "label2id": {"pos": 0, "neg": 1}}  # the classes in another order
    teacher = save(tmp_path / "teacher", make_model(2, seed=1, **other), make_tokenizer())
    files = [str(shipped / "onnx" / name) for name in ("model.onnx", "model_quantized.onnx")]
    words = ["evaluate", "--model", str(model_folder), "--test", f"d={dev}", "--quiet"]
    scores = tmp_path / "scores.json"
    assert main([*words, "--teacher", str(teacher), "--latency", *files, "--output", str(scores)]) == 0
    printed = capsys.readouterr().out.splitlines()
    heads, *lines = printed[next(place for place, line in enumerate(printed) if line.startswith("model ")) :]
    for head in ("accuracy, d", "agreement", "parameters", "size", "ms a row", "of the time"):
        assert head in heads
    found = json.loads(scores.read_text())
    sides = found["side by side"]["sides"]
    assert [side["name"] for side in sides] == [str(teacher), str(model_folder), *files]
    assert [line.split()[0][-20:] for line in lines] == [side["name"][-20:] for side in sides]
    for name, side in zip((str(teacher), str(model_folder), files[1]), (sides[0], sides[1], sides[3]), strict=True):
        assert main(["predict", "--model", name, "--test", str(dev), "--output", str(tmp_path / "p.tsv")]) == 0
        table = load_rows(str(tmp_path / "p.tsv"))
        side["answers"], gold = table["label"][:], table["input_label"][:]
        right = [a == b for a, b in zip(side["answers"], gold, strict=True)]
        assert side["scores"]["d"] == pytest.approx(np.mean(right), abs=1e-6)
        equal = [a == b for a, b in zip(side["answers"], sides[0]["answers"], strict=True)]
        assert side["agreement"] == pytest.approx(np.mean(equal), abs=1e-6)
    assert 0 < sides[1]["agreement"] < 1 and sides[1]["scores"]["d"] == pytest.approx(found["d"]["accuracy"], abs=1e-6)
    assert sides[2]["parameters"] is None and sides[1]["parameters"] < sides[0]["parameters"] and sides[0]["ratio"] == 1
    assert main([*words, "--latency", files[0]]) == 0
    assert "agreement" not in capsys.readouterr().out  # there is no teacher
