"""Gauges of projections: what they log, whether resuming keeps them, and when they warn of a collapse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from transformers import TrainerCallback

from railkd.teacher import TeacherCache
from tiny import losses, text_rows
from training.runs import gauge, trainer_of


class Report(TrainerCallback):
    """Where `report_to` sends its numbers."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.told.append(dict(logs))


@pytest.mark.parametrize("method", ["rail-kd-l", "rail-kd-c", "rail-expected"])
def test_gauges_reach_the_log_and_whoever_reports_it(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, method: str
) -> None:
    report = Report()
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, method=method, callbacks=[report])
    gauging = gauge(trainer)
    trainer.train()
    kept = [entry for entry in trainer.state.log_history if "gauge_rank" in entry]
    told = [entry for entry in report.told if "gauge_rank" in entry]
    assert [entry["epoch"] for entry in kept] == [0, 1, 2]
    for entry, reported, reading in zip(kept, told, gauging.readings, strict=True):
        for name in ("rank", "target_rank", "variance", "term"):
            assert entry[f"gauge_{name}"] == reported[f"gauge_{name}"] == reading[name]
        assert 1 <= reading["rank"] <= 8 and 0 <= reading["variance"] <= 1 and 0 <= reading["term"] <= 4


@pytest.mark.parametrize("method", ["rail-kd-l", "pkd-last"])
def test_a_live_teacher_is_gauged_like_its_cache(
    tmp_path: Path, cache: TeacherCache, teacher_folder: Path, rows: Dataset, tokenizer: Any, method: str
) -> None:
    read = []
    for teacher in (cache, str(teacher_folder)):
        trainer = trainer_of(tmp_path, teacher, rows, tokenizer, method=method, max_steps=2)
        gauging = gauge(trainer)
        trainer.train()
        read.append(gauging)
    for moment in ("before", "after"):
        np.testing.assert_allclose(read[0].similarity[moment], read[1].similarity[moment], atol=2e-4)
    for one, two in zip(read[0].readings, read[1].readings, strict=True):
        assert one == pytest.approx(two, rel=1e-3)


def test_the_gauged_term_is_that_of_the_drawn_blocks(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    # One batch of all rows without dropout and a learning rate of 0: every term of an epoch is the gauge's.
    settings: dict[str, Any] = {"per_device_train_batch_size": 22, "learning_rate": 0.0, "num_train_epochs": 6}
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, method="rail-kd-l", **settings)
    gauging = gauge(trainer)
    trainer.train()
    terms = losses(trainer, "intermediate")
    assert [reading["term"] for reading in gauging.readings] == pytest.approx([terms[0], *terms], rel=1e-5)
    assert len({round(term, 6) for term in terms}) > 1


def test_a_resumed_run_keeps_the_readings_from_the_start(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    read = []
    for resume in (False, True):
        trainer = trainer_of(tmp_path, cache, rows, tokenizer, save_strategy="epoch", num_train_epochs=3)
        gauging = gauge(trainer)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6") if resume else None)
        read.append(gauging.readings)
    assert read[0] == read[1] and len(read[0]) == 4


@pytest.mark.parametrize(("method", "collapses"), [("rail-kd-l", True), ("rail-kd-c", True), ("rail-kd-w", False)])
def test_the_warning_fires_on_a_run_that_collapses_and_not_on_a_whitened_one(
    tmp_path: Path, teacher_folder: Path, tokenizer: Any, method: str, collapses: bool
) -> None:
    rows, said = text_rows(48, seed=3), []
    cache = TeacherCache.build(teacher_folder, rows, tmp_path / "cache", dtype="float32")
    trainer = trainer_of(
        tmp_path,
        cache,
        rows,
        tokenizer,
        method=method,
        projection_learning_rate=0.03,
        per_device_train_batch_size=8,
        num_train_epochs=6,
        lr_scheduler_type="constant",
    )
    gauging = gauge(trainer, said.append)
    trainer.train()
    assert len(said) == collapses and (gauging.warning is not None) == collapses  # once, in words
    first, last = gauging.readings[0], gauging.readings[-1]
    if collapses:
        assert "the intermediate term has collapsed" in said[0]
        assert last["term"] < 0.05 * first["term"] and last["variance"] < 0.01 and last["target_rank"] < 1.2
    else:
        assert last["term"] > 0.2 * first["term"] and last["target_rank"] == pytest.approx(
            first["target_rank"], rel=0.5
        )
