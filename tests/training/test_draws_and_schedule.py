"""Draws by epoch and step, the files a job writes of them, and the schedule of the intermediate term."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import TrainerCallback

from railkd import DistillationTrainer, mapping
from railkd.errors import RailkdError
from railkd.jobs.distill import distill
from railkd.jobs.options import DistillOptions
from railkd.jobs.request import Request
from railkd.teacher import TeacherCache
from training.runs import trainer_of


class Drawn(TrainerCallback):
    """Notes the draws that the objective was really given, one list an optimizer step."""

    def __init__(self, trainer: DistillationTrainer) -> None:
        self.steps: list[list[tuple[int, ...]]] = []
        trainer.model.objective.register_forward_pre_hook(self.note)

    def note(self, module: Any, args: Any) -> None:
        self.steps[-1].append(tuple(args[3].tolist()))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps.append([])


@pytest.mark.parametrize(
    ("settings", "index"),
    [
        ({"redraw": "step"}, lambda step: step),
        ({"method": "rail-step"}, lambda step: step),
        ({"method": "rail-cyclic"}, lambda step: step // 3),
        ({"method": "rail-fixed-random"}, lambda step: 0),
    ],
    ids=["redraw step", "rail-step", "rail-cyclic", "rail-fixed-random"],
)
def test_micro_batches_of_a_step_share_its_draw(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, settings: Any, index: Any
) -> None:
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, gradient_accumulation_steps=2, seed=9, **settings)
    drawn = Drawn(trainer)
    trainer.add_callback(drawn)
    trainer.train()
    strategy = trainer.model.objective.draws.strategy
    assert len(drawn.steps) == 6 and all(len(step) == 2 for step in drawn.steps)  # 22 rows: 6 micro-batches an epoch
    for step, given in enumerate(drawn.steps):
        assert set(given) == {mapping.draw(2, 3, seed=9, epoch=index(step), strategy=strategy)}


def test_a_job_writes_its_gauges_and_the_coverage_of_what_was_drawn(
    tmp_path: Path, teacher_folder: Path, rows: Dataset
) -> None:
    rows.to_csv(tmp_path / "train.csv")
    options = DistillOptions(
        train=str(tmp_path / "train.csv"),
        output=str(tmp_path / "run"),
        teacher=str(teacher_folder),
        student_layers=3,
        quiet=True,
    )
    training = {"method": "rail-cyclic", "shared_size": 8, "num_train_epochs": 4, "bf16": False, "use_cpu": True}
    record = distill(
        Request(options, training | {"dataloader_pin_memory": False, "per_device_train_batch_size": 8}), lambda _: None
    )
    stored = json.loads((tmp_path / "run" / "draws.json").read_text())
    gauged = json.loads((tmp_path / "run" / "gauges.json").read_text())
    wanted = [mapping.draw(2, 3, seed=record.seed, epoch=epoch, strategy="cyclic") for epoch in range(4)]
    assert [tuple(draw) for draw in stored["draws"]] == wanted
    for block in (1, 2, 3):
        assert stored["coverage"][str(block)] == [sum(draw[i] == block for draw in wanted) for i in range(2)]
    assert sum(sum(counts) for counts in stored["coverage"].values()) == 4 * 2
    assert len(gauged["readings"]) == 5 and set(gauged["similarity"]) == {"before", "after"}
    assert any("gauge_rank" in entry for entry in record.curve)


@pytest.mark.parametrize(
    ("schedule", "scale"),
    [
        ("constant", lambda step: 1.0),
        ("linear", lambda step: 1 - step / 12),
        ("0.5", lambda step: float(step < 6)),
        ("1.0", lambda step: 1.0),
    ],
)
def test_the_schedule_scales_the_intermediate_term_and_nothing_else(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, schedule: str, scale: Any
) -> None:
    trainer = trainer_of(tmp_path, cache, rows, tokenizer, weights=[1, 2, 5], intermediate_schedule=schedule)
    trainer.train()
    told = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(told) == 12
    for step, entry in enumerate(told):
        wanted = (entry["ce"] + 2 * entry["kd"] + 5 * scale(step) * entry["intermediate"]) / 8
        assert entry["loss"] == pytest.approx(wanted, abs=1e-5) and entry["intermediate"] > 0


@pytest.mark.parametrize("schedule", ["cosine", "0", "1.5", "-0.5", "nan"])
def test_an_unknown_schedule_is_refused(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, schedule: str
) -> None:
    with pytest.raises(RailkdError, match=f"got intermediate_schedule '{schedule}', wanted constant, linear"):
        trainer_of(tmp_path, cache, rows, tokenizer, intermediate_schedule=schedule)
