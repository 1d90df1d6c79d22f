"""From real files to scored students through the command line: the models are tiny, the path is whole."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification

import tiny
from jobs.commands import railkd, run, some_lines
from railkd.records import RunRecord

Shared = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


# task, header line, test sets outside of its domain, metrics of the task, metrics of each of these sets
TASKS = [
    ("glue/RTE", True, ["HANS", "ADV_RTE", "SNLI_CAD_REVISED"], ["accuracy"], ["accuracy"]),
    ("glue/MRPC", True, [], ["f1", "accuracy"], []),
    ("glue/STS-B", True, [], ["pearson", "spearman"], []),
    ("glue/CoLA", False, ["CoLA_OOD"], ["matthews", "accuracy"], ["matthews", "accuracy"]),
    ("glue/QNLI", True, [], ["accuracy"], []),
    ("glue/SST-2", True, ["IMDB_CONTRAST", "ADV_SST-2"], ["accuracy"], ["accuracy"]),
    ("glue/QQP", True, ["ADV_QQP"], ["f1", "accuracy"], ["f1", "accuracy"]),
    ("other/TREC", True, [], ["accuracy", "f1"], []),
    ("other/SNLI_CAD", True, ["SNLI_CAD_REVISED", "HANS"], ["accuracy", "f1"], ["accuracy"]),
]


@pytest.mark.parametrize(("task", "header", "outside", "metrics", "metrics_outside"), TASKS, ids=[t[0] for t in TASKS])
def test_a_task_from_file_to_scored_student(
    task: str,
    header: bool,
    outside: list[str],
    metrics: list[str],
    metrics_outside: list[str],
    base: Path,
    shared_data: Shared,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    source, here = shared_data(*task.split("/")), tmp_path / task.split("/")[1]
    train = some_lines(source / "train.tsv", here / "train.tsv", 64, header=header)
    dev = some_lines(source / "dev.tsv", here / "dev.tsv", 32, header=header)
    tests = [f"again={dev}"]
    for name in outside:
        file = shared_data("ood", name, "test.tsv")
        tests.append(f"{name}={some_lines(file, tmp_path / name / 'test.tsv', 40, header=name != 'CoLA_OOD')}")
    for record in run(base, tmp_path, train, dev, *tests):
        assert list(record.metrics) == ["again", *outside, "eval"]
        assert list(record.metrics["eval"]) == metrics and record.metrics["again"] == record.metrics["eval"]
        assert all(list(record.metrics[name]) == metrics_outside for name in outside)
        assert record.domains == {"again": "in", "eval": "in"} | dict.fromkeys(outside, "out")
        assert all(math.isfinite(value) for scores in record.metrics.values() for value in scores.values())
        assert ("(out of domain): " in record.summary()) == bool(outside)
    # evaluate gives the saved student the same scores, in one process more.
    capsys.readouterr()
    scores = tmp_path / "scores.json"
    model = tmp_path / "student" / "student"
    railkd("evaluate", "--model", model, "--test", *tests, "--output", scores, "--quiet")
    assert capsys.readouterr().out.count("(out of domain)") == len(outside)
    for name, scored in json.loads(scores.read_text()).items():
        assert scored.pop("domain") == record.domains[name]
        classes = scored.pop("classes", [])
        assert [one["name"] for one in classes] == [one.name for one in record.classes.get(name, [])]
        assert scored.pop("confusion", []) == record.confusion.get(name, [])
        assert scored == pytest.approx(record.metrics[name], abs=1e-6)


def answering(folder: Path, names: Sequence[str], words: Sequence[str]) -> Path:
    """A model that answers by the last of ``words`` it reads: word i -> class i."""
    config = tiny.bert_config(1, width=16, dropout=0.0)
    config.vocab_size = len(words) + 4
    config.num_labels = len(names)
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    ids = torch.tensor([[2, 4 + i, 3] for i in range(len(names))])
    for _ in range(80):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits, torch.arange(len(names)))
        loss.backward()
        optimizer.step()
    return tiny.save(folder, model.eval(), tiny.make_tokenizer(list(words)))


@pytest.mark.parametrize(
    ("names", "right"),
    [
        (
            ("neutral", "entailment", "contradiction"),
            {"yes": "entailment", "no": "non-entailment", "so": "non-entailment"},
        ),
        (("not_entailment", "entailment"), {"yes": "entailment", "no": "non-entailment"}),
    ],
    ids=["three-way", "two-way"],
)
def test_hans_is_scored_on_folded_answers(
    names: tuple[str, ...], right: dict[str, str], tmp_path: Path, capsys: Capture
) -> None:
    """A model that answers every row rightly, by name, scores 1; a fourth row that it gets wrong costs its share."""
    words = ["no", "yes", "so"][: len(names)]
    model = answering(tmp_path / "model", names, words)
    rows = [f"{word}\t\t{label}" for word, label in right.items()]
    wrong = "yes\t\tnon-entailment"
    for rest, accuracy in (([], 1.0), ([wrong], len(rows) / (len(rows) + 1))):
        file = tmp_path / "HANS" / "test.tsv"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(["sentence1\tsentence2\tlabel", *rows, *rest]) + "\n")
        railkd("evaluate", "--model", model, "--test", f"hans={file}")
        captured = capsys.readouterr()
        assert captured.out.startswith(f"hans (out of domain): accuracy {accuracy:.4f} (always 'non-entailment': ")
        assert "answers are folded by name: " in captured.err and "-> non-entailment" in captured.err


def test_a_set_is_out_of_domain_when_the_user_says_so(tmp_path: Path, capsys: Capture) -> None:
    model = answering(tmp_path / "model", ("neg", "pos"), ["bad", "good"])
    for name in ("a", "b"):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\ngood\tpos\nbad\tneg\n")
    railkd("evaluate", "--model", model, "--test", tmp_path / "a.tsv", "--ood", tmp_path / "b.tsv", "--quiet")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "accuracy" in line] == [
        "a: accuracy 1.0000, f1 of 'pos' 1.0000 (always 'neg': accuracy 0.5000, f1 0.0000)",
        "b (out of domain): accuracy 1.0000, f1 of 'pos' 1.0000 (always 'neg': accuracy 0.5000, f1 0.0000)",
    ]
    assert [line for line in lines if line.endswith("by class:")] == ["a, by class:", "b, by class:"]


def test_answers_that_are_kept_give_the_metrics_of_the_record(base: Path, shared_data: Shared, tmp_path: Path) -> None:
    """This holds for a set with coarser classes too: its answers are kept as they are scored."""
    train = some_lines(shared_data("other", "SNLI_CAD", "train.tsv"), tmp_path / "SNLI_CAD" / "train.tsv", 40)
    hans = some_lines(shared_data("ood", "HANS", "test.tsv"), tmp_path / "HANS" / "test.tsv", 40)
    railkd(
        *("finetune", "--model", base, "--train", train, "--eval-share", 0.2, "--ood", f"hans={hans}", "--quiet"),
        *("--output", tmp_path / "out", "--epochs", 1, "--max-length", 48, "--no-bf16", "--keep-predictions", "texts"),
    )
    record = RunRecord.read(tmp_path / "out" / "metrics.json")
    assert set(record.predictions) == {"hans", "eval"} and record.labels == ["contradiction", "entailment", "neutral"]
    gold = {}
    for name, file in record.predictions.items():
        with (tmp_path / "out" / file).open(encoding="utf-8", newline="") as handle:
            kept = list(csv.DictReader(handle, delimiter="\t"))
        right = sum(row["gold"] == row["label"] for row in kept) / len(kept)
        assert right == pytest.approx(record.metrics[name]["accuracy"]) and all(row["text"] for row in kept)
        gold[name] = {row["gold"] for row in kept}
    assert gold["hans"] == {"entailment", "non-entailment"}
