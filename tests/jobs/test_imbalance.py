"""``--class-weights``, ``--sampling`` and ``--metrics`` on a made set with a rare class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.commands import argv, railkd
from railkd.cli import main
from railkd.errors import RailkdError
from railkd.jobs.class_weights import parse_class_weights, weights_in_order
from railkd.records import RunRecord

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 rows of a common class and 4 of a rare one; a test set of the common one alone, and one of both."""
    folder = tmp_path_factory.mktemp("data")
    common = [f"good the {'is' * (i % 3)} {'a ' * (i % 5)}\tfine" for i in range(20)]
    rare = [f"not who {'what ' * i}\ttoxic" for i in range(4)]
    for name, lines in {"train": [*common, *rare], "one": common[:5], "both": [*common[:6], *rare[:2]]}.items():
        (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines, ""]))
    labels = [["a"], ["a", "b"], [], ["b"]] * 3
    rows = [json.dumps({"text": f"good {'a ' * i}", "labels": label}) for i, label in enumerate(labels)]
    (folder / "several.jsonl").write_text("\n".join([*rows, ""]))
    return folder


def finetune(base: Path, data: Path, *words: object, train: str = "train.tsv") -> list[str]:
    quick = "--epochs 1 --learning-rate 0.01 --batch-size 8 --no-bf16"
    return argv("finetune", "--model", base, "--train", data / train, quick, *words)


def test_a_weighted_run_says_its_weights_and_a_resume_compares_them(
    base: Path, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    """n / (k n_c) of 20 and 4 rows is 0.6 and 3. Metrics that one class does not define are noted, never NaN."""
    run = finetune(base, data, "--class-weights balanced --metrics auroc log-loss", "--output", tmp_path / "out")
    railkd(*run, "--test", data / "one.tsv", "--test", f"both={data / 'both.tsv'}", "--save-steps", 2)
    said = capsys.readouterr()
    assert "class weights in the task term: fine 0.6, toxic 3; their mean over the training rows is 1" in said.err
    record = RunRecord.read(tmp_path / "out" / "metrics.json")
    assert record.config["class_weights"] == ["balanced"] and record.config["metrics"] == ["auroc", "log-loss"]
    assert list(record.metrics["one"]) == ["accuracy", "f1", "log_loss"]
    assert (
        list(record.metrics["both"])
        == list(record.baselines["both"].metrics)
        == [
            *("accuracy", "f1", "auroc", "log_loss"),
        ]
    )
    assert record.baselines["both"].metrics["auroc"] == 0.5
    assert record.gaps == {"one": {"auroc": record.gaps["one"]["auroc"]}} and "it is not defined" in said.out
    assert [(one.name, one.support) for one in record.classes["both"]] == [("fine", 6), ("toxic", 2)]
    assert sum(count for *_, count in record.confusion["both"]) == 8
    (tmp_path / "out" / "metrics.json").rename(tmp_path / "metrics.json")  # as if it had been killed at its end
    other = [word if word != "balanced" else "1,2" for word in run]
    assert main([*other, "--resume", *argv("--save-steps", 2)]) == 2
    assert "class-weights" in capsys.readouterr().err.replace("_", "-")

    scores = tmp_path / "scores.json"
    railkd(
        *argv("evaluate", "--model", tmp_path / "out" / "model", "--test", data / "both.tsv", "--output", scores),
        *argv("--metrics brier,recall@fpr=0.2 --quiet"),
    )
    found = json.loads(scores.read_text())["both"]
    assert found["classes"][1]["name"] == "toxic" and found["confusion"] == record.confusion["both"]
    assert {"brier", "recall@fpr=0.2"} < found.keys() and found["accuracy"] == record.metrics["both"]["accuracy"]
    assert "both, by class:" in capsys.readouterr().out


COST = """
import numpy as np


def cost(predictions, labels):
    return {"cost": -np.log(predictions[np.arange(len(labels)), labels]).mean()}


cost.higher_is_better = False
"""


@pytest.mark.parametrize("name", ["log-loss", "cost"])
def test_an_error_of_probabilities_chooses_the_epoch_where_it_is_lowest(
    name: str, base: Path, data: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Balanced draws are said, and the record names the metric as it is spelled in the table, or by the function."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(COST)
    run = finetune(base, data, "--sampling balanced --metrics mine.py:cost", "--eval", data / "both.tsv")
    run += argv("--output out --epochs 4 --metric-for-best-model", name)
    railkd(*run)
    assert "draws 24 labelled rows with replacement, each of the 2 classes equally likely" in capsys.readouterr().err
    record = RunRecord.read("out/metrics.json")
    spelled = {"log-loss": "log_loss"}.get(name, name)
    values = {entry["step"]: entry[f"eval_{spelled}"] for entry in record.curve if f"eval_{spelled}" in entry}
    assert len(set(values.values())) == 4
    step = min(values, key=lambda at: values[at])
    assert record.selection == f"best {spelled} on --eval, at step {step}"
    assert next(iter(record.metrics["eval"])) == "accuracy" and record.config["sampling"] == "balanced"
    assert record.higher_is_better == {"cost": False} and record.metrics["eval"]["cost"] == pytest.approx(
        record.metrics["eval"].get("log_loss", record.metrics["eval"]["cost"])
    )
    if name == "cost":
        own_metrics_of_a_finished_run(run, data, record, capsys)


def own_metrics_of_a_finished_run(run: list[str], data: Path, record: RunRecord, capsys: Capture) -> None:
    """Its scores are those of evaluate, no edited file goes on, and what cannot be computed is refused before a run."""
    railkd(
        *argv(
            "evaluate --model out/model --quiet --metrics mine.py:cost --output scores.json --test", data / "both.tsv"
        )
    )
    found = json.loads(Path("scores.json").read_text())["both"]
    assert found["cost"] == pytest.approx(record.metrics["eval"]["cost"]) and found["higher_is_better"] == {
        "cost": False
    }
    assert record.baselines["eval"].metrics["cost"] == pytest.approx(0.5623, abs=1e-4)  # of 6 and 2 rows
    Path("out/metrics.json").unlink()  # as if it had been killed at its end
    Path("mine.py").write_text(f"{COST}\n")
    assert main([*run, "--resume"]) == 2
    assert "began with other contents of the metrics mine.py:cost" in capsys.readouterr().err
    Path("mine.py").write_text(COST.replace("cost(", "cost(more, "))
    assert main([*run, "--overwrite"]) == 2
    assert "expected a function of two arguments" in capsys.readouterr().err
    Path("mine.py").write_text(COST.replace('"cost"', '"price"'))
    assert main([*run, "--overwrite"]) == 2
    assert "Your functions compute price" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "train", "message"),
    [
        ("--class-weights 1,2,3", "train.tsv", "expected 2 numbers, for fine, toxic in this order, got 3"),
        ("--class-weights toxc=3", "train.tsv", "'toxc' is no class. Expected some of 'fine' and 'toxic'. Did you"),
        ("--class-weights 1,0", "train.tsv", "got '0' in '1,0'"),
        ("--class-weights 1,nan", "train.tsv", "got 'nan' in '1,nan'"),
        ("--class-weights balanced --sampling balanced", "train.tsv", "both correct the imbalance"),
        ("--sampling even", "train.tsv", "Expected all or balanced as sampling, got 'even'"),
        ("--sampling balanced", "several.jsonl", "--sampling balanced needs one class a row, got multi-label"),
        ("--metrics rmse", "train.tsv", "no metric 'rmse'. Expected one of accuracy"),
        ("--metrics mse", "train.tsv", "no metric 'mse' for classification. Expected one of accuracy"),
        ("--metrics recall@fpr=2", "train.tsv", "rate between 0 and 1"),
        ("--metric-for-best-model auroc --eval one.tsv", "train.tsv", "on the rows that choose the epoch. Fix: choose"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_training(
    words: str, train: str, message: str, base: Path, data: Path, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(data)
    assert main([*finetune(base, data, words, train=train), "--output", str(tmp_path / "out")]) == 2
    assert message in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["Balanced"], "balanced"),
        (["1", "2.5"], (1.0, 2.5)),
        (["a=1,b=2"], {"a": 1.0, "b": 2.0}),
        (["a, b=2", "x=y=3"], {"a, b": 2.0, "x=y": 3.0}),
    ],
)
def test_weights_are_read_in_each_form(words: list[str], found: Any) -> None:
    assert parse_class_weights(words) == found


@pytest.mark.parametrize("words", [["a=1,a=2"], ["=2"], ["a=1,b"], ["a=-1"], ["a=inf"], ["x"], [""], ["1,,2"]])
def test_words_that_are_no_weights_are_refused(words: list[str]) -> None:
    with pytest.raises(RailkdError, match=r"--class-weights: .*[Ee]?xpected balanced, one number above 0"):
        parse_class_weights(words)
    assert weights_in_order({"b": 2.0}, ["a", "b"]) == [1.0, 2.0]
