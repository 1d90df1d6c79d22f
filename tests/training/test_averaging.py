"""The mean of the weights over the last epochs: the mean of what the steps left, and the same after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback

from railkd import DistillationTrainer, DistillationTrainingArguments
from railkd.cli import main
from railkd.errors import RailkdError
from railkd.records import RunRecord
from railkd.teacher import TeacherCache
from tiny import make_model, make_small, make_trainer, save, weights_of


class Steps(TrainerCallback):
    """Keeps the weights of the student after each step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: object) -> None:
        self.weights.append(weights_of(model.student))


def train(
    folder: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, resume: Path | None = None, **settings: Any
) -> tuple[DistillationTrainer, Steps]:
    """22 rows in batches of 4: 6 steps an epoch, 12 in all."""
    steps = Steps()
    options = {"method": "rail-kd-l", "save_strategy": "steps", "save_steps": 3, "callbacks": [steps]}
    student = make_small(make_model(4, seed=11))
    trainer = make_trainer(folder, cache, rows, tokenizer, student=student, **options | settings)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer, steps


@pytest.mark.parametrize(("epochs", "count"), [(1, 6), (0.5, 3), (2, 12), (5, 12)])
def test_the_student_is_the_mean_of_the_last_steps(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, epochs: float, count: int
) -> None:
    trainer, steps = train(tmp_path, cache, rows, tokenizer, average_last=epochs, freeze=["embeddings"])
    plain, same = train(tmp_path / "plain", cache, rows, tokenizer, freeze=["embeddings"])
    assert trainer.averaging.count == count and plain.averaging.count == 0
    for name, weight in weights_of(trainer.model.student).items():
        assert torch.equal(steps.weights[-1][name], same.weights[-1][name])  # averaging changes no step
        wanted = torch.stack([each[name].double() for each in steps.weights[-count:]]).mean(dim=0)
        torch.testing.assert_close(weight.double(), wanted, atol=1e-6, rtol=1e-6, msg=name)
        if "embeddings" in name:
            assert torch.equal(weight, steps.weights[0][name])


@pytest.mark.parametrize("step", [3, 6, 9])
def test_a_resumed_mean_is_that_of_an_uninterrupted_run(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, step: int
) -> None:
    """Before the mean begins, where it begins, and within it."""
    whole, _ = train(tmp_path / "whole", cache, rows, tokenizer, average_last=1)
    resumed, _ = train(
        tmp_path / "resumed", cache, rows, tokenizer, tmp_path / "whole" / f"checkpoint-{step}", average_last=1
    )
    ours, theirs = weights_of(resumed.model), weights_of(whole.model)
    assert [name for name in theirs if not torch.equal(theirs[name], ours[name])] == []
    assert resumed.averaging.count == whole.averaging.count == 6


@pytest.mark.parametrize("settings", [{"average_last": 0.0}, {"average_last": -1.0}])
def test_a_mean_of_nothing_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(RailkdError, match="Expected average_last above 0"):
        DistillationTrainingArguments(output_dir=str(tmp_path), **settings)
    best = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch", "average_last": 1.0}
    with pytest.raises(RailkdError, match="without load_best_model_at_end"):
        DistillationTrainingArguments(output_dir=str(tmp_path), **best)


def test_the_record_names_the_mean(tmp_path: Path, tokenizer: Any) -> None:
    save(tmp_path / "base", make_model(2), tokenizer)
    file = tmp_path / "rows.tsv"
    file.write_text("text\tlabel\n" + "".join(f"a film {'so ' * i}\t{i % 2}\n" for i in range(8)))
    words = ["finetune", "--model", tmp_path / "base", "--train", file, "--eval", file, "--epochs", 2, "--no-bf16"]
    words += ["--batch-size", 4, "--average-last", 1, "--output", tmp_path / "out", "--quiet"]
    assert main([str(word) for word in words]) == 0
    record = RunRecord.read(tmp_path / "out" / "metrics.json")
    assert record.selection == "mean of the weights over the last 2 steps" and record.metrics["eval"]
