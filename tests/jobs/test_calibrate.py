"""``railkd calibrate``, and what evaluate and predict make of its file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn import metrics

import tiny
from railkd.cli import main
from railkd.data.reader import read
from railkd.data.reading import Reading
from railkd.data.sources import Source
from railkd.jobs.calibrate import describe, fit
from railkd.jobs.goals import Goal
from railkd.jobs.scorer import Scorer
from railkd.jobs.thresholds import FittedOn, Thresholds
from railkd.models.inference import predict_logits
from railkd.records import RunRecord
from railkd.runtime.ownership import Ledger
from railkd.tasks import task_of
from railkd.tasks.target import Target

Capture = pytest.CaptureFixture[str]
NOWHERE = FittedOn("rows", 0, "")
NAMES = ("neg", "pos")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a model that is twice too sure, and rows whose labels are drawn from its probabilities at 2."""
    base = tmp_path_factory.mktemp("calibrated")
    model, tokenizer = tiny.make_model(1, seed=3), tiny.make_tokenizer()
    with torch.no_grad():
        model.classifier.weight *= 6
        found = predict_logits(model, tokenizer, tiny.text_rows(300, seed=1), max_length=128)
        model.classifier.bias[1] -= float(np.median(found[:, 1] - found[:, 0])) + 1  # pos is the rare class
    tiny.save(base / "run" / "student", model, tokenizer)
    for name, seed in (("train", 1), ("fit", 2), ("shown", 3)):
        rows = tiny.text_rows(400, seed=seed)
        shares = softmax(predict_logits(model, tokenizer, rows, max_length=128) / 2, axis=1)
        labels = np.random.default_rng(seed).random(400) < shares[:, 1]
        lines = [f"{text}\t{NAMES[flag]}" for text, flag in zip(rows["text"], labels.astype(int), strict=True)]
        (base / f"{name}.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n", encoding="utf-8")
    digest = read(Source.parse(str(base / "train.tsv")), Reading(), split="train").digest
    Ledger(base / "run").add("metrics.json")
    RunRecord("distill", "kd", 0, contents={"train": digest, "model": "x"}).write(base / "run" / "metrics.json")
    return base


@pytest.fixture(scope="module")
def fitted(folder: Path) -> Path:
    words = ["calibrate", "--model", str(folder / "run" / "student"), "--eval", str(folder / "fit.tsv"), "--quiet"]
    assert main(words) == 0
    return folder / "run" / "student" / "thresholds.json"


def test_the_file_names_its_rows_and_fits_their_labels(folder: Path, fitted: Path) -> None:
    found = Thresholds.read(fitted)
    assert found.temperature == pytest.approx(2.0, rel=0.25)
    assert found.thresholds["pos"] + found.thresholds["neg"] == pytest.approx(1.0)
    assert found.fitted_on.rows == 400 and found.fitted_on.source == str(folder / "fit.tsv")
    before, after = (found.on_these_rows[when] for when in ("before", "after"))
    assert after["log_loss"] < before["log_loss"] and after["classes"]["pos"]["f1"] >= before["classes"]["pos"]["f1"]
    # The run owns the file, so that a later run may replace the model with it.
    assert "student/thresholds.json" in Ledger(folder / "run").names()
    assert json.loads(fitted.read_text(encoding="utf-8"))["version"] == 1


def test_scores_with_thresholds_say_which_rows_were_fitted_and_which_are_shown(
    folder: Path, fitted: Path, tmp_path: Path, capsys: Capture
) -> None:
    model, out = str(folder / "run" / "student"), tmp_path / "scores.json"
    tests = ["--test", f"same={folder / 'fit.tsv'}", "--test", f"other={folder / 'shown.tsv'}"]
    words = ["evaluate", "--model", model, *tests, "--output", str(out)]
    assert main([*words, "--thresholds", str(fitted)]) == 0
    said, scores = capsys.readouterr().err, json.loads(out.read_text(encoding="utf-8"))
    assert "warning: same: shown on the rows that the thresholds were fitted on" in said
    assert "thresholds for best-f1, fitted on 400 rows of" in said and "warning: other" not in said
    after = Thresholds.read(fitted).on_these_rows["after"]
    assert scores["same"]["f1"] == pytest.approx(after["classes"]["pos"]["f1"])
    assert scores["same"]["accuracy"] == pytest.approx(after["right"])
    assert [scores[name]["thresholds"]["same_rows"] for name in ("same", "other")] == [True, False]
    assert main(words) == 0 and "thresholds" not in json.loads(out.read_text(encoding="utf-8"))["same"]


def test_of_models_side_by_side_the_one_that_follows_thresholds_is_marked(
    folder: Path, fitted: Path, tmp_path: Path, capsys: Capture
) -> None:
    model, out = str(folder / "run" / "student"), tmp_path / "scores.json"
    teacher = str(shutil.copytree(model, tmp_path / "teacher"))
    words = ["evaluate", "--model", model, "--teacher", teacher, "--test", f"d={folder / 'shown.tsv'}", "--quiet"]
    assert main([*words, "--output", str(out), "--thresholds", str(fitted)]) == 0
    first, second = json.loads(out.read_text(encoding="utf-8"))["side by side"]["sides"]
    assert (first["thresholds"], second["thresholds"]) == (False, True)
    assert first["scores"] != second["scores"] and second["agreement"] < 1  # the same model, without them
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].endswith(", with thresholds") for line in lines[-2:]] == [False, True]


def test_an_export_takes_the_thresholds_of_its_model_along_and_no_others(
    folder: Path, fitted: Path, tmp_path: Path, capsys: Capture
) -> None:
    model = Path(shutil.copytree(folder / "run" / "student", tmp_path / "model"))
    words = ["export", str(model), "--onnx", "--eval", str(folder / "fit.tsv")]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    assert "thresholds.json: 0 verdicts of ONNX differ from those of the model, on " in capsys.readouterr().err
    shipped, given = Thresholds.read(tmp_path / "out"), Thresholds.read(fitted)
    assert replace(shipped, model=given.model) == given
    assert shipped.model == Scorer.find(tmp_path / "out").content()  # so that nothing warns of another model
    card = (tmp_path / "out" / "README.md").read_text()
    assert "--thresholds ." in card and "rows: 0 of ONNX." in card and "and so does `example.py`" in card
    replace(given, model="another").write(model / "thresholds.json")
    assert main(["export", str(model), "--output", str(tmp_path / "other")]) == 0
    assert "thresholds.json is left out" in capsys.readouterr().err
    assert not (tmp_path / "other" / "thresholds.json").exists()


def test_predictions_follow_the_thresholds_and_show_calibrated_probabilities(
    folder: Path, fitted: Path, tmp_path: Path
) -> None:
    words = ["predict", "--model", str(folder / "run" / "student"), "--test", str(folder / "shown.tsv"), "--quiet"]
    assert main([*words, "--thresholds", str(fitted.parent), "--output", str(tmp_path / "a.jsonl")]) == 0
    assert main([*words, "--output", str(tmp_path / "b.jsonl")]) == 0
    cut, plain = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in "ab"
    )
    found = Thresholds.read(fitted)
    assert any(one["label"] != two["label"] for one, two in zip(cut, plain, strict=True))
    for one, two in zip(cut, plain, strict=True):
        assert (one["logit_neg"], one["logit_pos"]) == (two["logit_neg"], two["logit_pos"])
        share = expit((one["logit_pos"] - one["logit_neg"]) / found.temperature)
        assert one["score"] == pytest.approx(share if one["label"] == "pos" else 1 - share, abs=1e-5)
        assert abs(share - found.thresholds["pos"]) < 1e-6 or (one["label"] == "pos") == (
            share > found.thresholds["pos"]
        )


def test_rows_that_trained_the_model_are_refused(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["calibrate", "--model", str(folder / "run" / "student"), "--output", str(tmp_path / "t.json")]
    assert main([*words, "--eval", str(folder / "train.tsv")]) == 2
    assert "holds the rows that trained the model (--train of" in capsys.readouterr().err
    # An exported model leads to its run, and a model without a run to a line.
    tiny.save(tmp_path / "shipped", tiny.make_model(1), tiny.make_tokenizer())
    words[2] = str(tmp_path / "shipped")
    assert main([*words, "--eval", str(folder / "fit.tsv"), "--goal", "recall>=0.2"]) == 0
    assert "it is not known which rows trained it" in capsys.readouterr().err
    (tmp_path / "shipped" / "export.json").write_text(json.dumps({"config": {"model": str(folder / "run")}}))
    assert main([*words, "--eval", str(folder / "train.tsv")]) == 2
    assert "holds the rows that trained the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("--goal precision>=1.0 --positive pos", 1, "no threshold reaches precision>=1.0 for 'pos'"),
        ("--goal precision", 2, 'write it in quotes, as --goal "precision>=0.9"'),
        ("--goal recall=0", 2, "expected best-f1, precision>=P or recall>=R"),
        ("--positive good", 2, "--positive: expected neg and pos, got 'good'"),
        ("--output FOLDER/fit.tsv", 2, "is read by --eval"),
        ("--output FOLDER/shown.tsv", 2, "was not written by railkd calibrate"),
    ],
)
def test_what_cannot_be_done_is_refused(folder: Path, words: str, code: int, message: str, capsys: Capture) -> None:
    output = [] if "--output" in words else ["--output", str(folder / "new.json")]
    command = ["calibrate", "--model", str(folder / "run" / "student"), "--eval", str(folder / "fit.tsv"), *output]
    assert main([*command, *words.replace("FOLDER", str(folder)).split()]) == code
    assert message in capsys.readouterr().err and not (folder / "new.json").exists()


def test_a_model_of_numbers_has_no_thresholds(tmp_path: Path, capsys: Capture) -> None:
    model = tiny.make_model(1, num_labels=1, problem_type="regression", id2label={0: "score"}, label2id={"score": 0})
    tiny.save(tmp_path / "model", model, tiny.make_tokenizer())
    rows = tmp_path / "rows.tsv"
    rows.write_text("text\tscore\na film\t0.5\nthe plot\t1.5\n", encoding="utf-8")
    assert main(["calibrate", "--model", str(tmp_path / "model"), "--eval", str(rows)]) == 2
    assert "answers with a number (regression)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2, this railkd reads 1"),
        ({"thresholds": {"neg": 0.5, "good": 0.5}}, "expected those of the classes of"),
        ({"thresholds": {"neg": 0.0, "pos": 1.0}}, "expected numbers between 0 and 1"),
        ({"temperature": "2"}, "is not a file of railkd calibrate (temperature"),
        ({"surprise": 1}, "is not a file of railkd calibrate (surprise"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(
    folder: Path, fitted: Path, tmp_path: Path, change: dict[str, Any], message: str, capsys: Capture
) -> None:
    held = json.loads(fitted.read_text(encoding="utf-8")) | change
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps(held), encoding="utf-8")
    words = ["--model", str(folder / "run" / "student"), "--test", str(folder / "shown.tsv")]
    for verb in ("evaluate", "predict"):
        assert main([verb, *words, "--thresholds", str(file)]) == 2
        assert message in capsys.readouterr().err


# ---- the rule, in process ------------------------------------------------------------------------


def target_of(kind: str, names: tuple[str, ...]) -> Target:
    return Target.of_model(names, kind, "the model")


def thresholds(kind: str, **limits: float) -> Thresholds:
    return Thresholds(1, kind, "", 1.0, "best-f1", limits, [], NOWHERE)


def test_the_answers_by_hand() -> None:
    single, several = "single_label_classification", "multi_label_classification"
    logits = np.log(np.array([[0.7, 0.3], [0.6, 0.4], [0.45, 0.55]]))
    found = thresholds(single, neg=0.65, pos=0.35).apply(task_of(single))
    assert found.decide(logits).tolist() == [0, 1, 1] and task_of(single).decide(logits).tolist() == [0, 0, 1]
    # 0.3 / 0.2 beats 0.6 / 0.5; none passes: 0.4 / 0.5 beats 0.3 / 0.9; a tie goes to the first.
    logits = np.log(np.array([[0.6, 0.3, 0.1], [0.4, 0.3, 0.3], [0.4, 0.4, 0.2]]))
    assert thresholds(single, a=0.5, b=0.2, c=0.9).apply(task_of(single)).decide(logits)[0] == 1
    assert thresholds(single, a=0.5, b=0.9, c=0.9).apply(task_of(single)).decide(logits)[1] == 0
    assert thresholds(single, a=0.7, b=0.7, c=0.7).apply(task_of(single)).decide(logits)[2] == 0
    z = np.log(np.array([[3.0, 1 / 3], [0.25, 4.0]]))  # probabilities 0.75, 0.25 and 0.2, 0.8
    found = thresholds(several, a=0.8, b=0.2).apply(task_of(several))
    assert found.decide(z).tolist() == [[0, 1], [0, 1]]
    assert [row["labels"] for row in found.predictions(z, ["a", "b"])] == [["b"], ["b"]]
    assert found.confidence(z) == pytest.approx([0.25, 0.8])  # of a: it does not apply; of b: it does


def test_usual_thresholds_and_no_temperature_change_no_answer() -> None:
    rng = np.random.default_rng(0)
    for kind in ("single_label_classification", "multi_label_classification"):
        z, names = rng.normal(size=(50, 4)), dict.fromkeys("abcd", 0.5)
        cut, plain = replace(thresholds(kind, **names)).apply(task_of(kind)), task_of(kind)
        assert (cut.decide(z) == plain.decide(z)).all()
        assert cut.confidence(z) == pytest.approx(plain.confidence(z))


def test_each_class_gets_the_threshold_of_the_goal_where_any_number_applies() -> None:
    rng = np.random.default_rng(3)
    z, target = 2 * rng.normal(size=(600, 3)), target_of("multi_label_classification", ("a", "b", "c"))
    gold = rng.random((600, 3)) < expit(z)
    gold[:, 2] = False
    found = fit(target, z, gold, Goal.parse("recall>=0.9"), range(3), NOWHERE, "")
    after = found.on_these_rows["after"]["classes"]
    assert found.unreached == ["c"] and found.thresholds["c"] == 0.5  # no row has it
    assert all(after[name]["recall"] >= 0.9 for name in "ab")
    assert all(after[name]["precision"] > gold[:, i].mean() for i, name in enumerate("ab"))


def test_of_more_than_two_exclusive_classes_the_answers_reach_the_goal_or_the_file_says_which_miss_it() -> None:
    """Judged on the answers of scikit-learn's figures: a threshold of one class moves the answers of the others."""
    seen = {"reached": 0, "missed": 0, "raised": 0, "kept": 0}
    target, labels = target_of("single_label_classification", ("a", "b", "c")), np.arange(3)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        z = (1 + seed % 4) * rng.normal(size=(300, 3)) + [0, 0, 1.5 * (seed % 3)]
        y = (rng.random((300, 1)) > softmax(z - [0, 0, seed % 2], axis=1).cumsum(axis=1)).sum(axis=1).clip(0, 2)
        for goal in ("precision>=0.95", "precision>=0.6", "recall>=0.6", "best-f1"):
            found = fit(target, z, np.eye(3, dtype=bool)[y], Goal.parse(goal), range(3), NOWHERE, "")
            given = found.apply(target.task).decide(z)
            what, _, least = goal.partition(">=")
            if least:
                score = metrics.precision_score if what == "precision" else metrics.recall_score
                figures = score(y, given, average=None, labels=labels, zero_division=0.0)
                missed = [name for name, figure in zip("abc", figures, strict=True) if figure < float(least)]
                assert found.unreached == missed
                seen["missed" if missed else "reached"] += 1
            else:
                ours, usual = (metrics.f1_score(y, one, average="macro") for one in (given, z.argmax(axis=1)))
                assert (ours > usual) or (ours == usual and set(found.thresholds.values()) == {0.5})
                seen["raised" if ours > usual else "kept"] += 1
            if found.unreached:
                assert set(found.thresholds.values()) == {0.5}  # a class that misses the goal is not favoured
    assert min(seen.values()) > 0, seen


def test_a_class_without_rows_is_named_and_not_favoured() -> None:
    z = 2 * np.random.default_rng(0).normal(size=(200, 3))
    gold = np.eye(3, dtype=bool)[z[:, :2].argmax(axis=1)]
    found = fit(
        target_of("single_label_classification", ("a", "b", "c")), z, gold, Goal.parse("best-f1"), range(3), NOWHERE, ""
    )
    assert found.unreached == ["c"] and set(found.thresholds.values()) == {0.5}
    assert any("no row has this class" in line for line in describe(found))


def test_three_classes_that_miss_the_goal_write_nothing(tmp_path: Path, capsys: Capture) -> None:
    names = dict(enumerate("abc"))
    model = tiny.make_model(1, num_labels=3, id2label=names, label2id={name: n for n, name in names.items()})
    tiny.save(tmp_path / "model", model, tiny.make_tokenizer())
    rows = [f"{text}\t{'abc'[n % 3]}" for n, text in enumerate(tiny.text_rows(60, seed=2)["text"])]
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    words = ["calibrate", "--model", str(tmp_path / "model"), "--eval", str(tmp_path / "rows.tsv"), "--quiet"]
    assert main([*words, "--goal", "precision>=0.95"]) == 1
    assert "do not bring all classes to precision>=0.95" in capsys.readouterr().err
    assert not (tmp_path / "model" / "thresholds.json").exists()


def test_answers_that_are_all_right_keep_the_temperature_1_with_a_warning(tmp_path: Path, capsys: Capture) -> None:
    model, tokenizer, rows = tiny.make_model(1, seed=3), tiny.make_tokenizer(), tiny.text_rows(60, seed=2)
    found = predict_logits(model, tokenizer, rows, max_length=128)
    with torch.no_grad():
        model.classifier.bias[1] -= float(np.median(found[:, 1] - found[:, 0]))
    answers = predict_logits(model, tokenizer, rows, max_length=128).argmax(axis=1)
    lines = [f"{text}\t{NAMES[answer]}" for text, answer in zip(rows["text"], answers, strict=True)]
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n", encoding="utf-8")
    tiny.save(tmp_path / "model", model, tokenizer)
    assert main(["calibrate", "--model", str(tmp_path / "model"), "--eval", str(tmp_path / "rows.tsv")]) == 0
    assert "warning: no temperature is fitted, and 1 is kept" in capsys.readouterr().err
    assert Thresholds.read(tmp_path / "model").temperature == 1
