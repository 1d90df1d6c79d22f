"""From real files to scored students through the command line: the models are tiny, the path is whole."""

from __future__ import annotations

import csv
import json
import math
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import tiny
from railkd.cli import main
from railkd.data.keys import held_out
from railkd.errors import RailkdError
from railkd.records import RunRecord

Shared = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def some_lines(source: Path, target: Path, rows: int, *, header: bool = True) -> Path:
    """Every so-many-th row of a real file, under the name of its folder: that is how a task is known."""
    lines = source.read_text(encoding="utf-8").rstrip("\n").split("\n")
    head, body = (lines[:1], lines[1:]) if header else ([], lines)
    chosen = body[:: max(1, len(body) // rows)][:rows]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join([*head, *chosen]) + "\n", encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint of four blocks, and a tokenizer that knows a few common words."""
    return base_of(tmp_path_factory.mktemp("base"), ["the", "a", "of", "to", "is", "not", "who", "what", "how", "good"])


def base_of(folder: Path, words: Sequence[str]) -> Path:
    torch.manual_seed(0)
    config = tiny.bert_config(dropout=0.0)
    config.vocab_size, config.max_position_embeddings, config.id2label = (
        len(words) + 4,
        160,
        {0: "LABEL_0", 1: "LABEL_1"},
    )
    return tiny.save(folder, BertForSequenceClassification(config), tiny.make_tokenizer(list(words)))


def railkd(*words: object) -> None:
    """Run one command; it must succeed."""
    assert main([str(word) for word in words]) == 0


def run(
    base: Path, folder: Path, train: Path, dev: Path, *tests: str, method: str = "rail-kd-l", data: Sequence[str] = ()
) -> tuple[RunRecord, RunRecord]:
    """Teacher and student on the same files, as a user would make them."""
    files = ["--train", train, "--eval", dev, "--test", *tests, "--max-length", 48, "--no-bf16", "--quiet", *data]
    railkd("finetune", "--model", base, *files, "--output", folder / "teacher", "--epochs", 1, "--learning-rate", 1e-3)
    railkd(
        *("distill", "--teacher", folder / "teacher" / "model", "--student-layers", 2, *files, "--epochs", 1),
        *("--method", method, "--output", folder / "student", "--allow-weak-teacher"),
        *(("--shared-size", 8) if method.startswith("rail") else ()),
    )
    return tuple(RunRecord.read(folder / name / "metrics.json") for name in ("teacher", "student"))  # type: ignore[return-value]


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
        assert captured.out == f"hans (out of domain): accuracy {accuracy:.4f}\n"
        assert "answers are folded by name: " in captured.err and "-> non-entailment" in captured.err


def test_a_set_is_out_of_domain_when_the_user_says_so(tmp_path: Path, capsys: Capture) -> None:
    model = answering(tmp_path / "model", ("neg", "pos"), ["bad", "good"])
    for name in ("a", "b"):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\ngood\tpos\nbad\tneg\n")
    railkd("evaluate", "--model", model, "--test", tmp_path / "a.tsv", "--ood", tmp_path / "b.tsv", "--quiet")
    assert capsys.readouterr().out.splitlines() == [
        "a: accuracy 1.0000, f1 1.0000",
        "b (out of domain): accuracy 1.0000, f1 1.0000",
    ]


# ---- several labels a row ----------------------------------------------------------------------

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
    [
        ("|", ["--problem-type", "multi-label"], "rail-kd-l"),
        (",", ["--problem-type", "multi-label"], "kd"),
        ("list", [], "rail-kd-c"),
        ("columns", ["--label-column", *MOODS], "pkd-skip"),
    ],
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


# ---- what is said, and what is refused ---------------------------------------------------------


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


def test_answers_that_are_kept_give_the_metrics_of_the_record(base: Path, shared_data: Shared, tmp_path: Path) -> None:
    """Of a set with coarser classes too: its answers are kept as they are scored."""
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


@pytest.mark.parametrize(
    ("metric", "chosen", "message"),
    [
        (
            "acuracy",
            ["--eval-share", 0.5],
            "expected one of accuracy, f1, matthews, loss for classification, got 'acuracy'",
        ),
        (
            "pearson",
            ["--eval-share", 0.5],
            "expected one of accuracy, f1, matthews, loss for classification, got 'pearson'",
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


def test_every_verb_cuts_texts_at_the_length_of_the_training(base: Path, tmp_path: Path, capsys: Capture) -> None:
    rows = tmp_path / "rows.tsv"
    rows.write_text("text\tlabel\n" + "good the not who what\tyes\nnot a what\tno\n" * 12)
    railkd(*_words("finetune --model", base, "--train", rows, "--max-length 7 --max-steps 1 --output", tmp_path / "t"))
    model, out = tmp_path / "t" / "model", tmp_path / "out"
    student = _words("distill --teacher", model, "--student-layers 2 --method kd --max-steps 1 --train", rows)
    verbs = [
        _words("predict --model", model, "--test", rows, "--output", tmp_path / "answers.tsv"),
        _words("evaluate --model", model, "--test", rows),
        _words("check --teacher", model, "--student-layers 2 --train", rows),
        _words("cache --teacher", model, "--train", rows, "--cache", tmp_path / "cache"),
        [*student, "--output", out],
        _words("finetune --model", out / "student", "--train", rows, "--max-steps 1 --output", tmp_path / "again"),
    ]
    for words in verbs:
        capsys.readouterr()
        railkd(*words)
        said = "".join(capsys.readouterr())
        assert "at 7 tokens" in said and "was trained with" not in said, words
    railkd(*student, "--max-length", 5, "--output", tmp_path / "shorter")
    said = "".join(capsys.readouterr())
    assert "texts are cut at 5 tokens, but the model was trained with 7" in said
    config = json.loads((tmp_path / "shorter" / "student" / "config.json").read_text())
    assert config["railkd"]["max_length"] == 5


def _words(*parts: object) -> list[str]:
    """The words of a command line: texts are split at spaces, paths are not."""
    return [word for part in parts for word in (part.split() if isinstance(part, str) else [str(part)])]
