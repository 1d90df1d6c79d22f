"""Saved and resumed is the same as never interrupted: bit for bit, with dropout, after an epoch and in the middle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import BertForSequenceClassification

from railkd import DistillationTrainer
from railkd.errors import RailkdError
from railkd.models.checkpoints import OBJECTIVE_FILE
from railkd.teacher import TeacherCache
from railkd.training.checkpoint_folders import newest_checkpoint
from tiny import make_model, make_small, make_trainer, text_rows, weights_of


@pytest.fixture(scope="module")
def some_labelled() -> Dataset:
    return text_rows(labels="some")


def run(
    folder: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, resume: Path | None = None, **settings: Any
) -> DistillationTrainer:
    """22 rows in batches of 4: 6 steps an epoch, 12 in all; a checkpoint at every third."""
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3, **settings}
    trainer = make_trainer(folder, cache, rows, tokenizer, student=make_small(make_model(4, seed=11)), **options)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def log_of(trainer: DistillationTrainer) -> list[dict[str, float]]:
    timeless = ("loss", "ce", "kd", "intermediate", "learning_rate", "grad_norm", "epoch", "step")
    return [
        {name: entry[name] for name in timeless if name in entry}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


@pytest.mark.parametrize(
    ("settings", "points"),
    [
        ({"method": "rail-kd-l"}, (3, 6, 9)),
        ({"method": "rail-kd-l", "redraw": "step", "projection_learning_rate": 0.01, "length_groups": False}, (3,)),
        ({"method": "rail-kd-c", "strategy": "cyclic", "gradient_accumulation_steps": 2, "save_steps": 1}, (1, 3, 4)),
        ({"method": "pkd-skip", "seed": 3, "logging_steps": 3, "sampling": "balanced"}, (3,)),
        ({"method": "kd", "source_rows": [6, 16], "source_shares": [0.75, 0.25]}, (9,)),
    ],
)
def test_resumed_is_the_same_as_uninterrupted(
    tmp_path: Path,
    cache: TeacherCache,
    some_labelled: Dataset,
    tokenizer: Any,
    settings: dict[str, Any],
    points: tuple[int, ...],
) -> None:
    whole = run(tmp_path / "whole", cache, some_labelled, tokenizer, **settings)
    for step in points:
        torch.manual_seed(step)  # the state of the world must not matter
        resumed = run(
            tmp_path / f"from-{step}",
            cache,
            some_labelled,
            tokenizer,
            tmp_path / "whole" / f"checkpoint-{step}",
            **settings,
        )
        assert resumed.state.global_step == whole.state.global_step
        theirs, ours = weights_of(whole.model), weights_of(resumed.model)
        assert [name for name in theirs if not torch.equal(theirs[name], ours[name])] == []
        assert log_of(resumed) == log_of(whole)


def test_a_checkpoint_is_the_plain_student_the_objective_beside_it_and_no_pickled_arguments(
    tmp_path: Path, cache: TeacherCache, some_labelled: Dataset, tokenizer: Any
) -> None:
    trainer = run(tmp_path, cache, some_labelled, tokenizer, max_steps=3)
    checkpoint = tmp_path / "checkpoint-3"
    names = {path.name for path in checkpoint.iterdir()}
    assert {"config.json", "model.safetensors", OBJECTIVE_FILE, "trainer_state.json", "tokenizer.json"} <= names
    assert "training_args.bin" not in names
    loaded, report = BertForSequenceClassification.from_pretrained(checkpoint, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    student = weights_of(trainer.model.student)
    assert all(torch.equal(tensor, student[name]) for name, tensor in loaded.state_dict().items())
    objective = weights_of(trainer.model.objective)
    saved = load_file(checkpoint / OBJECTIVE_FILE)
    assert saved.keys() == objective.keys() and all(torch.equal(saved[name], objective[name]) for name in saved)


def test_checkpoints_are_complete_or_absent_and_old_ones_make_room(
    tmp_path: Path, cache: TeacherCache, some_labelled: Dataset, tokenizer: Any
) -> None:
    run(tmp_path, cache, some_labelled, tokenizer, save_total_limit=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-12", "checkpoint-9"]
    (tmp_path / "checkpoint-99").mkdir()  # what a run killed in the middle might leave
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    assert newest_checkpoint(tmp_path / "checkpoint-99") is None


@pytest.mark.parametrize("limit", [1, 2])
def test_checkpoints_of_other_programs_are_neither_counted_nor_deleted(
    tmp_path: Path, cache: TeacherCache, some_labelled: Dataset, tokenizer: Any, limit: int
) -> None:
    theirs = [tmp_path / name / "file" for name in ("checkpoint-1", "checkpoint-500", "checkpoint-mine")]
    for file in theirs:
        file.parent.mkdir(parents=True)
        file.write_text("theirs")
    (tmp_path / ".checkpoint-3.tmp").write_text("theirs")
    best = {"eval_strategy": "steps", "eval_steps": 3, "load_best_model_at_end": True, "metric_for_best_model": "loss"}
    trainer = make_trainer(
        *(tmp_path, cache, some_labelled, tokenizer),
        student=make_small(make_model(4, seed=11)),
        eval_dataset=text_rows(9, seed=5),
        **{"save_strategy": "steps", "save_steps": 3, "save_total_limit": limit} | best,
    )
    trainer.train()
    assert all(file.read_text() == "theirs" for file in theirs)
    assert (tmp_path / ".checkpoint-3.tmp").read_text() == "theirs"
    ours = {path.name for path in tmp_path.iterdir()} - {file.parent.name for file in theirs}
    assert len(ours) == limit + 1 and Path(str(trainer.state.best_model_checkpoint)).name in ours


def test_a_damaged_checkpoint_is_refused_or_passed_over(
    tmp_path: Path, cache: TeacherCache, some_labelled: Dataset, tokenizer: Any
) -> None:
    whole = run(tmp_path, cache, some_labelled, tokenizer)
    weights = tmp_path / "checkpoint-9" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(RailkdError, match=r"model.safetensors is damaged.*resume from an older one"):
        run(tmp_path, cache, some_labelled, tokenizer, tmp_path / "checkpoint-9")
    shutil.rmtree(tmp_path / "checkpoint-12")
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-6"
    again = make_trainer(tmp_path, cache, some_labelled, tokenizer, student=make_small(make_model(4, seed=11)))
    said: list[str] = []
    again.say = said.append
    again.train(resume_from_checkpoint=True)
    theirs, ours = weights_of(whole.model), weights_of(again.model)
    assert "checkpoint-9' is skipped" in said[0] and all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_a_checkpoint_of_another_method_or_none_is_refused(
    tmp_path: Path, cache: TeacherCache, some_labelled: Dataset, tokenizer: Any
) -> None:
    run(tmp_path / "kd", cache, some_labelled, tokenizer, method="kd", max_steps=3)
    run(tmp_path / "other", cache, some_labelled, tokenizer, shared_size=4, max_steps=3)
    with pytest.raises(RailkdError, match="lacks objective.safetensors"):
        run(tmp_path / "rail", cache, some_labelled, tokenizer, tmp_path / "kd" / "checkpoint-3")
    with pytest.raises(RailkdError, match="does not fit this method"):
        run(tmp_path / "rail", cache, some_labelled, tokenizer, tmp_path / "other" / "checkpoint-3")


def test_the_state_file_names_the_step(
    tmp_path: Path, cache: TeacherCache, some_labelled: Dataset, tokenizer: Any
) -> None:
    run(tmp_path, cache, some_labelled, tokenizer, max_steps=3)
    assert json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())["global_step"] == 3
