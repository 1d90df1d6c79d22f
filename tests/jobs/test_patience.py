"""--patience N ends a training once N evaluations were not better than the best one, and --save-strategy best works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import tiny
from railkd.cli import main
from railkd.jobs.finetune import finetune
from railkd.jobs.options import FinetuneOptions
from railkd.jobs.request import Request
from railkd.records import RunRecord
from railkd.training.callbacks import Patience

Capture = pytest.CaptureFixture[str]
#: Too low a rate to change a score, so every evaluation after the first one is no better.
STILL = ["--learning-rate", "1e-30", "--batch-size", "8", "--no-bf16"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = tiny.text_rows(24)
    path = tmp_path_factory.mktemp("rows") / "rows.tsv"
    lines = [f"{text}\t{label}" for text, label in zip(given["text"], given["label"], strict=True)]
    path.write_text("\n".join(["text\tlabel", *lines, ""]))
    return path


def evaluations(record: RunRecord) -> int:
    return sum("eval_loss" in entry for entry in record.curve)


@pytest.mark.parametrize("patience", [1, 2])
@pytest.mark.parametrize("choosing", [["--eval"], ["--eval-share", "0.25"]], ids=["eval", "share"])
def test_a_run_ends_when_its_patience_does(
    teacher_folder: Path, rows: Path, tmp_path: Path, capsys: Capture, patience: int, choosing: list[str]
) -> None:
    choosing = [*choosing, str(rows)] if choosing == ["--eval"] else choosing
    distil = ["--student-layers", "2", "--method", "kd", "--allow-weak-teacher"]
    common = ["--train", str(rows), *choosing, *STILL, "--epochs", "9", "--patience", str(patience)]
    verbs = {
        "finetune": ["--model", str(teacher_folder)],
        "distill": ["--teacher", str(teacher_folder), *distil],
    }
    for verb, words in verbs.items():
        assert main([verb, *words, *common, "--output", str(tmp_path / verb)]) == 0
        record = RunRecord.read(tmp_path / verb / "metrics.json")
        words = r"stopped at step (\d+) of (\d+), after (\d) evaluations without a better accuracy"
        said = re.search(words, record.selection)
        assert said is not None and said[0] in capsys.readouterr().err
        assert int(said[3]) == patience and evaluations(record) == patience + 1
        assert int(said[1]) * 9 == int(said[2]) * (patience + 1)


def test_patience_that_lasts_changes_nothing(teacher_folder: Path, rows: Path, tmp_path: Path) -> None:
    found = []
    begin = ["finetune", "--model", teacher_folder, "--train", rows, "--eval", rows, "--epochs", 3, "--no-bf16"]
    for name, more in {"with": ["--patience", "3"], "without": []}.items():
        assert main([*map(str, [*begin, *more]), "--output", str(tmp_path / name)]) == 0
        found.append(RunRecord.read(tmp_path / name / "metrics.json").comparable() | {"config": {}})
    assert found[0] == found[1] and "stopped" not in found[0]["selection"]


class Stop(TrainerCallback):
    """Ends the process of training, as a kill does, when a checkpoint is complete."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_resumed_run_ends_where_an_undisturbed_one_does(
    teacher_folder: Path, rows: Path, tmp_path: Path, epoch: int
) -> None:
    """Also from the checkpoint at which the patience was already at its end."""

    def request(folder: str, **more: Any) -> Request[FinetuneOptions]:
        options = FinetuneOptions(output=str(tmp_path / folder), model=str(teacher_folder), train=str(rows), **more)
        training = {"learning_rate": 1e-30, "per_device_train_batch_size": 8, "num_train_epochs": 9.0, "bf16": False}
        return Request(options, training)

    chosen = {"eval": str(rows), "patience": 2}
    whole = finetune(request("whole", **chosen), lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        finetune(request("killed", **chosen), lambda line: None, [Stop(3 * epoch)])
    resumed = finetune(request("killed", **chosen, resume=True), lambda line: None)
    assert resumed.selection == whole.selection and "stopped at step 9 of 27, after 2 evaluations" in whole.selection
    assert evaluations(resumed) == evaluations(whole) == 3
    assert resumed.comparable()["metrics"] == whole.comparable()["metrics"]


@pytest.mark.parametrize("better", [True, False])
def test_patience_depends_on_the_log_alone(tmp_path: Path, better: bool) -> None:
    """So ranks, which have one log, agree. An equal score is no better one, and neither is NaN."""
    args = TrainingArguments(str(tmp_path), metric_for_best_model="eval_x", greater_is_better=better, use_cpu=True)
    sign = 1 if better else -1
    for values, stops in {
        (1.0, 2.0, 3.0): False,
        (3.0, 2.0, 2.5): True,
        (2.0, 2.0, 2.0): True,
        (1.0, 0.0, 2.0, 1.0): False,
        (1.0, float("nan"), 0.5): True,
        (): False,
    }.items():
        state, control = TrainerState(), TrainerControl()
        state.log_history = [{"eval_x": sign * value} for value in values] + [{"loss": 1.0}]
        Patience(2, lambda line: None).on_evaluate(args, state, control)
        assert control.should_training_stop == stops, values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--patience", "2"], "--patience has no effect without --eval or --eval-share"),
        (["--patience", "0", "--eval-share", "0.5"], "--patience: expected at least 1, got 0"),
        (["--save-strategy", "best"], "for --save-strategy best, got none. Fix: give --eval FILE"),
    ],
)
def test_what_cannot_choose_is_refused(
    teacher_folder: Path, rows: Path, tmp_path: Path, capsys: Capture, words: list[str], message: str
) -> None:
    begin = ["finetune", "--model", str(teacher_folder), "--train", str(rows), "--output", str(tmp_path / "out")]
    assert main([*begin, *words]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_best_checkpoint_alone_is_saved_and_loaded(teacher_folder: Path, rows: Path, tmp_path: Path) -> None:
    words = ["finetune", "--model", teacher_folder, "--train", rows, "--eval", rows, "--epochs", 4, "--no-bf16"]
    found = {}
    for name in ("epoch", "best"):
        more = ["--save-strategy", name, "--learning-rate", 0.01, "--save-total-limit", 9]
        assert main([*map(str, [*words, *more]), "--output", str(tmp_path / name)]) == 0
        found[name] = RunRecord.read(tmp_path / name / "metrics.json")
    assert found["best"].selection == found["epoch"].selection and "best accuracy" in found["best"].selection
    assert found["best"].metrics == found["epoch"].metrics
    kept = {name: len(list((tmp_path / name).glob("checkpoint-*"))) for name in found}
    assert 0 < kept["best"] <= kept["epoch"] == 4


@pytest.mark.parametrize("choosing", [[], ["--eval"], ["--eval-share", "0.25"]], ids=["none", "eval", "share"])
def test_dropping_the_last_batch_leaves_evaluations_whole(
    teacher_folder: Path, rows: Path, tmp_path: Path, capsys: Capture, choosing: list[str]
) -> None:
    choosing = [*choosing, str(rows)] if choosing == ["--eval"] else choosing
    begin = ["finetune", "--model", str(teacher_folder), "--train", str(rows), *choosing, "--no-bf16"]
    begin += ["--dataloader-drop-last", "--epochs", "1", "--output", str(tmp_path / "out")]
    assert main([*begin, "--batch-size", "5", "--per-device-eval-batch-size", "64"]) == 0
    record = RunRecord.read(tmp_path / "out" / "metrics.json")
    assert record.curve[-1]["step"] in (3, 4) and ("eval" in record.metrics) == bool(choosing)
    capsys.readouterr()
    for steps in ([], ["--max-steps", "3"]):
        assert main([*begin, *steps, "--batch-size", "64", "--overwrite"]) == 2
        assert "at least 64 training rows, one full batch" in capsys.readouterr().err
