"""Every finding of the pre-flight: by hand on its numbers, and by ``railkd check`` on files that have the fault."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

import tiny
from railkd.cli import main
from railkd.data.keys import normalised
from railkd.jobs import findings
from railkd.tasks import task_of
from railkd.tasks.judging import Finding, find_label_order
from railkd.teacher import TeacherCache

Capture = pytest.CaptureFixture[str]
SINGLE, MULTI = task_of("single_label_classification"), task_of("multi_label_classification")
NUMBERS = task_of("regression")


def answers(predicted: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[predicted]


# ---- by hand -----------------------------------------------------------------------------------

LABELS = np.array([0] * 60 + [1] * 40)


@pytest.mark.parametrize(
    ("right", "level", "title"),
    [
        ((60, 40), "note", "teacher"),
        ((60, 0), "error", "weak teacher"),  # always the commonest class
        ((30, 20), "error", "weak teacher"),  # a coin
        ((60, 5), "warning", "teacher"),  # five points above the majority: chance does that too
        ((19, 40), "warning", "teacher"),  # below the majority, but it does tell the rare class from the common one
    ],
)
def test_a_teacher_must_beat_the_commonest_class(right: tuple[int, int], level: str, title: str) -> None:
    predicted = [0] * right[0] + [1] * (60 - right[0]) + [1] * right[1] + [0] * (40 - right[1])
    found = SINGLE.judge(answers(predicted, 2), LABELS, ("a", "b"))
    assert (found.level, found.title) == (level, title)
    assert f"accuracy {sum(right) / 100:.3f} on 100 rows, 0.600 by always answering 'a'" in found.detail
    allowed = SINGLE.judge(answers(predicted, 2), LABELS, ("a", "b"), allowed=True)
    assert allowed.level == ("warning" if level == "error" else level)


def test_too_few_rows_refuse_no_teacher() -> None:
    found = SINGLE.judge(answers([0, 0], 2), np.array([0, 1]), ("a", "b"))
    assert (found.level, found.title) == ("warning", "weak teacher")


def test_a_regression_teacher_must_correlate_by_more_than_chance() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=400)
    good = NUMBERS.judge((labels + rng.normal(size=400))[:, None], labels, ("value",))
    bad = NUMBERS.judge(rng.normal(size=(400, 1)), labels, ("value",))
    assert good.level == "note" and bad.level == "error" and "up to 0.100" in bad.detail


def test_a_teacher_of_several_labels_must_beat_the_commonest_ones() -> None:
    labels = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]] * 5)
    always = np.tile([1.0, -1.0], (20, 1))  # the first label, always: 2 * 15 / (20 + 20)
    found = MULTI.judge(always, labels, ("a", "b"))
    assert found.level == "error" and "micro F1 0.750 on 20 rows, 0.750 by always" in found.detail
    assert MULTI.judge(labels * 2 - 1, labels, ("a", "b")).level == "note"


def test_permuted_labels_are_named_with_the_mapping_that_fits() -> None:
    labels = np.array([0, 1, 2] * 30)
    turned = (labels + 1) % 3  # output 1 is what the data call class 0
    turned[:9] = labels[:9]
    names = ("no", "maybe", "yes so")
    found = find_label_order(answers(list(turned), 3), labels, names, {name: [name] for name in names})
    assert found is not None and found.level == "error"
    assert found.detail.startswith("accuracy 0.100 by name, 0.900 when output 1 is called 'maybe' and means 'no'")
    assert "id2label in the order yes so, no, maybe" in found.fix
    assert found.fix.endswith('--label-map no=maybe "maybe=yes so" "yes so=no"')


@pytest.mark.parametrize("kind", ["right", "coin", "constant", "few", "a class without rows"])
def test_no_mapping_is_proposed_without_evidence(kind: str) -> None:
    rng = np.random.default_rng(1)
    labels = np.array([0, 1, 2] * 100) if kind != "constant" else np.array([0] * 210 + [1] * 50 + [2] * 40)
    predicted = {
        "right": labels,
        "coin": rng.integers(0, 3, 300),
        "constant": np.full(300, 1),
        "few": labels,
        "a class without rows": 1 - labels,
    }[kind]
    if kind == "few":
        labels, predicted = labels[:6], (labels[:6] + 1) % 3
    if kind == "a class without rows":
        labels, predicted = np.array([0, 0, 1] * 100), np.array([0, 0, 2] * 100)
    cells: dict[str, list[str]] = {}
    assert find_label_order(answers(list(predicted), 3), labels, ("a", "b", "c"), cells) is None


def levels(found: Finding | None) -> str | None:
    return found.level if found else None


def test_the_smaller_findings_by_hand() -> None:
    tokens = np.array([5] * 8 + [30, 40])
    assert findings.lengths(tokens, 64, 512, "teacher").level == "note"
    cut = findings.lengths(tokens, 10, 512, "teacher")
    assert cut.level == "warning" and "20.0% of rows are cut at 10" in cut.detail and "--max-length 3" in cut.fix
    assert findings.lengths(tokens, 64, 32, "teacher").fix == "give --max-length 32"
    assert findings.lengths(tokens[:8], 64, 32, "teacher").level == "note"  # long inputs are allowed, but none comes
    assert [levels(findings.unknown_words(share, "t")) for share in (0.0, 0.01, 0.5)] == [None, "note", "warning"]
    assert SINGLE.describe_labels(np.array([0, 1] * 5), ("a", "b")).detail == "a 5 (50%), b 5 (50%)"
    assert SINGLE.describe_labels(np.array([0, 0]), ("a", "b")).fix == "no training row has b"
    assert SINGLE.describe_labels(np.array([0] * 99 + [1]), ("a", "b")).level == "warning"
    assert MULTI.describe_labels(np.array([[1, 1], [1, 0]]), ("a", "b")).detail == "a 2 (100%), b 1 (50%)"
    assert NUMBERS.describe_labels(np.array([2.0, 2.0]), ("v",)).level == "error"
    assert findings.conflicts([("a",), ("b",)], [0, 1]) is None
    assert findings.conflicts([("a",), ("a",)], [0, 0]) == Finding("note", "doubles", "1 training rows repeat a text")
    assert levels(findings.conflicts([("a",), ("a",)], [0, 1])) == "warning"
    (leak,) = findings.leaks([("a", "b"), ("c", "d")], {"eval": [("a", "b"), ("a", "c")], "test x": [("c",)]})
    assert leak.detail == "1 of 2 rows of eval (50.0%) are training rows too"
    both = findings.leaks([("a",)], {"eval": [("a",), ("b",)], "test x": [("c",)]}, [("b",), ("a",), ("b",)])
    assert [one.detail for one in both] == [
        "1 of 2 rows of eval (50.0%) are training rows too",
        "2 of 2 rows of eval (100.0%) are rows of --unlabelled too",
    ]
    assert levels(*findings.leaks([("a",)], {"eval": [("c",)]}, [("b",)])) == "note"
    again = findings.repeats([("a",)], [("b",), ("a",), ("b",), ("c",)])
    assert again is not None and again.detail.startswith("2 of 4 rows of --unlabelled")
    assert findings.repeats([("a",)], [("b",)]) is None is findings.repeats([("a",), ("a",)], [])
    assert normalised(["A  b\n", "É"]) == ("a b", "é")
    order, own = SINGLE.describe_outputs(("a", "b"), ("b", "a"))
    assert order.detail.startswith("0 = a, 1 = b") and "in another order: b, a" in own.detail
    assert SINGLE.describe_outputs(("LABEL_0", "LABEL_1"), None)[0].level == "warning"


def test_the_cost_by_hand() -> None:
    assert findings.cache_bytes(392_702, 12, 768, 3) / 1e9 == pytest.approx(7.25, abs=0.05)  # all of MNLI, BERT-base
    sizes: dict[str, Any] = {"rows": 10, "teacher_parameters": 110_000_000, "student_parameters": 66_000_000}
    full, fits = (
        findings.cost(**sizes, bytes_needed=10**9, bytes_free=free, teacher_seconds=120.0, train_seconds=7200.0)
        for free in (10**8, 10**10)
    )
    assert [finding.level for finding in full] == ["error", "note", "note"] and fits[0].level == "note"
    assert fits[1].detail == "teacher pass about 2 min, training about 2 h on this machine"
    assert fits[2].detail.startswith("1.1 GB")


def test_the_verdict_counts() -> None:
    error, warning = Finding("error", "a", "b"), Finding("warning", "a", "b", "c")
    assert findings.verdict([error, warning, warning]) == "verdict: do not run this: 1 error, 2 warnings"
    assert findings.verdict([warning]) == "verdict: ready to run, but see 1 warning"
    assert str(warning) == "warning: a: b; c"


# ---- by the command line -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Knows that good is pos and bad is neg; its other words mean nothing to it."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    model = BertForSequenceClassification(tiny.bert_config(1, dropout=0.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    tokenizer = tiny.make_tokenizer()
    rows = film_rows(200, seed=5)
    for _ in range(60):
        optimizer.zero_grad()
        batch = tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
        labels = torch.tensor([int(label == "pos") for _, label in rows])
        torch.nn.functional.cross_entropy(model(**batch).logits, labels).backward()
        optimizer.step()
    return tiny.save(folder, model.eval(), tokenizer)


def film_rows(count: int, seed: int) -> list[tuple[str, str]]:
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        label = chance.choice(["pos", "neg"])
        words = [{"pos": "good", "neg": "bad"}[label], *chance.choices(["the", "film", "plot", "music", "scene"], k=7)]
        chance.shuffle(words)
        rows.append((" ".join(words), label))
    return rows


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return path


def run(capsys: Capture, *words: object, code: int = 0) -> dict[str, dict[str, Any]]:
    """Findings by title, of a check that ends with this code."""
    assert main(["check", *map(str, words), "--json"]) == code
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["ready"] == (code == 0) and ("railkd: error: the check found" in captured.err) == (code == 2)
    return {finding["title"]: finding for finding in found["findings"]}


def test_sound_files_and_a_good_teacher_are_ready(teacher: Path, tmp_path: Path, capsys: Capture) -> None:
    train, dev = write(tmp_path / "train.tsv", film_rows(90, 1)), write(tmp_path / "dev.tsv", film_rows(40, 2))
    words = ["--teacher", teacher, "--train", train, "--eval", dev, "--student-layers", 1]
    found = run(capsys, *words)
    assert {finding["level"] for finding in found.values()} == {"note"}
    assert set(found) == {"outputs", "teacher", "lengths (teacher)", "classes", "leak", "cache", "time", "memory"}
    assert found["outputs"]["detail"].startswith("0 = neg, 1 = pos")
    assert main(["check", *map(str, words), "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "verdict: ready to run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.tsv", "train.tsv"]


def test_permuted_labels_are_found_and_the_proposed_map_mends_them(
    teacher: Path, tmp_path: Path, capsys: Capture
) -> None:
    swapped = [(text, {"pos": "neg", "neg": "pos"}[label]) for text, label in film_rows(80, 3)]
    train, dev = write(tmp_path / "train.tsv", swapped[:40]), write(tmp_path / "dev.tsv", swapped[40:])
    words = ["--teacher", teacher, "--train", train, "--eval", dev]
    found = run(capsys, *words, code=2)
    assert "weak teacher" not in found
    fix = found["permuted labels"]["fix"]
    assert fix.endswith("--label-map neg=pos pos=neg")
    mended = run(capsys, *words, "--label-map", *fix.partition("--label-map ")[2].split())
    assert mended["teacher"]["level"] == "note"
    assert run(capsys, *words, "--allow-weak-teacher")["permuted labels"]["level"] == "warning"
    out = tmp_path / "out"
    command = ["distill", *map(str, words), "--student-layers", "1", "--method", "kd", "--output", str(out), "--quiet"]
    assert main(command) == 2 and "permuted labels" in capsys.readouterr().err and not out.exists()


def test_a_chance_teacher_is_found(teacher: Path, tmp_path: Path, capsys: Capture) -> None:
    noise = [(text.replace("good", "the").replace("bad", "film"), label) for text, label in film_rows(60, 4)]
    file = write(tmp_path / "rows.tsv", noise)
    words = ["--teacher", teacher, "--train", file, "--eval", file]
    assert run(capsys, *words, code=2)["weak teacher"]["level"] == "error"
    assert run(capsys, *words, "--allow-weak-teacher")["weak teacher"]["level"] == "warning"


def test_leaks_doubles_truncation_balance_and_unknown_words_are_found(
    teacher: Path, tmp_path: Path, capsys: Capture
) -> None:
    rows = film_rows(60, 6)
    train = write(tmp_path / "train.tsv", [*rows, *rows[:2], (rows[2][0], "pos"), (rows[2][0], "neg")])
    test = write(tmp_path / "test.tsv", [(rows[0][0].upper(), "pos"), ("nothing like it", "neg")])
    pos = write(tmp_path / "pos.tsv", [(text, "pos") for text, label in rows if label == "pos"])
    found = run(capsys, "--teacher", teacher, "--train", train, "--test", f"mine={test}", "--max-length", 8)
    assert found["leak"]["detail"] == "1 of 2 rows of test mine (50.0%) are training rows too"
    assert "4 training rows repeat a text, 1 texts have different labels" in found["doubles"]["detail"]
    assert found["truncation (teacher)"]["detail"].startswith("100.0% of rows are cut at 8 tokens (median 10")
    assert found["teacher"]["detail"] == "not checked: there is no --eval"
    strange = write(tmp_path / "strange.tsv", [("zzz yyy", "pos"), ("good", "neg")])
    assert run(capsys, "--teacher", teacher, "--train", strange)["vocabulary (teacher)"]["level"] == "warning"
    assert run(capsys, "--teacher", teacher, "--train", pos)["classes"]["fix"] == "no training row has neg"
    unread = run(capsys, "--teacher", teacher, "--train", tmp_path / "test.tsv", "--label-column", "text", code=2)
    assert "no column has a common name of a text column" in unread["data"]["detail"]


def test_a_tokenizer_that_cannot_be_trimmed_is_one_finding_among_the_others(
    teacher: Path, tmp_path: Path, capsys: Capture
) -> None:
    train, more = write(tmp_path / "train.tsv", film_rows(30, 1)), tmp_path / "more.tsv"
    more.write_text("text\n" + "good film\n" * 70, encoding="utf-8")
    words = ["--teacher", teacher, "--train", train, "--student-layers", 1, "--vocabulary", 9, "--unlabelled", more]
    found = run(capsys, *words, code=2)
    assert "WordLevel" in found["vocabulary"]["detail"] and found["vocabulary"]["level"] == "error"
    assert {"outputs", "classes", "lengths (teacher)", "memory"} <= set(found)
    assert "100 rows" in found["cache"]["detail"]  # with those that have no labels


def test_inputs_longer_than_the_teacher_takes_are_an_error(teacher: Path, tmp_path: Path, capsys: Capture) -> None:
    rows = write(tmp_path / "rows.tsv", [("good " * 70, "pos"), ("bad", "neg")])
    found = run(capsys, "--teacher", teacher, "--train", rows, code=2)
    assert found["lengths (teacher)"]["fix"] == "give --max-length 64"
    command = ["distill", "--teacher", str(teacher), "--student-layers", "1", "--train", str(rows), "--method", "kd"]
    assert main([*command, "--output", str(tmp_path / "out"), "--quiet"]) == 2
    assert "give --max-length 64" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_another_tokenizer_and_a_student_with_its_own_head_are_noted(
    teacher: Path, tmp_path: Path, capsys: Capture
) -> None:
    student = tiny.make_model(2, id2label={0: "pos", 1: "neg"}, label2id={"pos": 0, "neg": 1})
    tiny.save(tmp_path / "student", student, tiny.make_tokenizer([*reversed(tiny.WORDS)]))
    rows = write(tmp_path / "rows.tsv", film_rows(20, 7))
    found = run(capsys, "--teacher", teacher, "--student", tmp_path / "student", "--train", rows)
    assert found["student's head"]["level"] == "warning" and found["tokenizers"]["level"] == "note"
    assert "lengths (student)" in found


def test_without_a_teacher_the_logits_of_the_cache_are_looked_at(
    teacher: Path, tmp_path: Path, capsys: Capture
) -> None:
    from datasets import Dataset

    rows = film_rows(60, 8)
    train, dev = write(tmp_path / "train.tsv", rows[:40]), write(tmp_path / "dev.tsv", rows[40:])
    for name, texts in (("all", rows), ("some", rows[:40])):
        TeacherCache.build(teacher, Dataset.from_dict({"text": [text for text, _ in texts]}), tmp_path / name)
    student = ["--student", teacher, "--train", train, "--eval", dev]
    assert run(capsys, "--cache", tmp_path / "all", *student)["teacher"]["level"] == "note"
    some = run(capsys, "--cache", tmp_path / "some", *student)["teacher"]
    assert some["detail"] == "not checked: its cache holds too few rows of --eval"
    command = ["distill", "--cache", tmp_path / "some", *student, "--method", "kd", "--output", tmp_path / "out"]
    assert main([*map(str, command), "--epochs", "1"]) == 0
    assert "teacher: not checked, because its cache holds too few rows of --eval" in capsys.readouterr().err


def test_a_warm_cache_is_judged_by_its_own_logits(
    teacher: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every training row in the cache the teacher is not run for --eval; with some lacking it runs anyway."""
    from datasets import Dataset

    from railkd.jobs import given_teachers

    ran: list[int] = []
    real = given_teachers.predict_logits
    monkeypatch.setattr(given_teachers, "predict_logits", lambda *a, **o: (ran.append(1), real(*a, **o))[1])
    rows = film_rows(60, 8)
    train, dev = write(tmp_path / "train.tsv", rows[:40]), write(tmp_path / "dev.tsv", rows[40:])
    words = ["distill", "--teacher", teacher, "--student-layers", 1, "--train", train, "--eval", dev, "--method", "kd"]
    cases = [
        ("all", rows, [], "note: teacher: accuracy", 0),
        ("train", rows[:40], [], "teacher: not checked, because its", 0),
    ]
    cases += [("part", rows[:20], [], "note: teacher: accuracy", 1), ("live", [], ["--live"], "teacher: accuracy", 1)]
    for name, cached, more, said, runs in cases:
        if cached:
            TeacherCache.build(teacher, Dataset.from_dict({"text": [text for text, _ in cached]}), tmp_path / name)
        ran.clear()
        output = ["--output", tmp_path / f"out {name} {len(more)}", "--epochs", 1, "--no-bf16"]
        source = more or ["--cache", tmp_path / name]
        assert main([str(word) for word in (*words, *source, *output)]) == 0
        assert said in capsys.readouterr().err and len(ran) == runs, name


def test_a_warm_cache_of_another_teacher_judges_no_one(teacher: Path, tmp_path: Path, capsys: Capture) -> None:
    from datasets import Dataset

    rows = [(text, {"pos": "neg", "neg": "pos"}[label]) for text, label in film_rows(60, 8)]  # a bad teacher of these
    file = write(tmp_path / "rows.tsv", rows)
    TeacherCache.build(teacher, Dataset.from_dict({"text": [text for text, _ in rows]}), tmp_path / "cache")
    other = tiny.save(tmp_path / "other", tiny.make_model(1, seed=3), tiny.make_tokenizer())
    words = ["distill", "--teacher", other, "--student-layers", 1, "--train", file, "--eval", file, "--method", "kd"]
    assert main([str(word) for word in (*words, "--cache", tmp_path / "cache", "--output", tmp_path / "out")]) == 2
    assert "is of another teacher run: other teacher weights" in capsys.readouterr().err


def test_wrong_labels_are_at_the_top_of_the_table_of_suspects(teacher: Path, tmp_path: Path, capsys: Capture) -> None:
    """Two labels are turned; rows are numbered as in the file."""
    rows = film_rows(40, 9)
    wrong = [3, 17]
    for at in wrong:
        rows[at] = (rows[at][0], {"pos": "neg", "neg": "pos"}[rows[at][1]])
    train, table = write(tmp_path / "train.tsv", rows), tmp_path / "suspects.tsv"
    found = run(capsys, "--teacher", teacher, "--train", train, "--suspects", table)
    assert found["suspects"]["detail"].startswith(
        "teacher and label disagree on 2 of 40 training rows, most confidently"
    )
    head, *lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    assert head == ["row", "label", "answer", "confidence", "margin", "text"]
    assert sorted(int(line[0]) - 1 for line in lines) == wrong
    for row, label, answer, confidence, margin, text in lines:
        assert (text, label) == rows[int(row) - 1] and answer != label
        assert float(margin) == pytest.approx(2 * float(confidence) - 1, abs=2e-6) and float(confidence) > 0.5
    assert [float(line[3]) for line in lines] == sorted((float(line[3]) for line in lines), reverse=True)
    # Of a cache alone, the rows that it holds are looked at.
    from datasets import Dataset

    cache = tmp_path / "cache"
    TeacherCache.build(teacher, Dataset.from_dict({"text": [text for text, _ in rows[10:]]}), cache)
    words = ["--cache", cache, "--student", teacher, "--train", train, "--suspects", table]
    assert "disagree on 1 of 30 training rows" in run(capsys, *words)["suspects"]["detail"]
    assert table.read_text(encoding="utf-8").splitlines()[1].split("\t")[0] == "18"
    clean = write(tmp_path / "clean.tsv", film_rows(10, 9)[:3] + film_rows(10, 9)[4:])
    run(capsys, "--teacher", teacher, "--train", clean, "--suspects", table)
    assert table.read_text(encoding="utf-8") == "row\tlabel\tanswer\tconfidence\tmargin\ttext\n"
    assert main(["check", "--teacher", str(teacher), "--train", str(clean), "--suspects", str(clean)]) == 2
    assert "is read by --train" in capsys.readouterr().err
