"""A training of a tiny student, and how far apart two of them end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from railkd import DistillationTrainer, TeacherCache
from railkd.data.keys import KEY
from railkd.signals import Signals
from railkd.training.gauges import Gauging
from tiny import make_model, make_small, make_trainer


def far(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    assert one.keys() == two.keys()
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


def trainer_of(folder: Path, teacher: Any, rows: Dataset, tokenizer: Any, **settings: Any) -> DistillationTrainer:
    """Return a trainer of a student that starts apart from the teacher, without dropout unless asked."""
    if settings.get("method") == "codir":
        settings = {"negatives": 4, "shared_size": 8} | settings
    student = settings.pop("student", None) or make_small(make_model(4, seed=11), dropout=settings.pop("dropout", 0.0))
    return make_trainer(folder, teacher, rows, tokenizer, student=student, **settings)


def run(folder: Path, teacher: Any, rows: Dataset, tokenizer: Any, **settings: Any) -> DistillationTrainer:
    """Train as `trainer_of` says."""
    trainer = trainer_of(folder, teacher, rows, tokenizer, **settings)
    trainer.train()
    return trainer


def gauge(trainer: DistillationTrainer, warn: Callable[[str], None] = lambda line: None) -> Gauging:
    """Return the gauges that watch a trainer."""
    gauging = Gauging(trainer.probe, trainer.log, warn=warn)
    trainer.add_callback(gauging)
    return gauging


class Spoilt:
    """A teacher whose logits or states have one value, NaN or infinity, for one example."""

    def __init__(self, teacher: TeacherCache, key: list[int], where: str, value: float) -> None:
        self.teacher, self.key, self.where, self.value = teacher, torch.tensor(key), where, value
        self.info, self.poolings = teacher.info, teacher.poolings

    def __call__(self, batch: Mapping[str, Tensor], pooling: str | None) -> Signals:
        found = self.teacher(batch, pooling)
        parts = {"logits": found.logits.clone(), "states": None if found.states is None else found.states.clone()}
        parts[self.where][(batch[KEY] == self.key).all(dim=1)] = self.value  # type: ignore[index]
        return Signals(parts["logits"], parts["states"])  # type: ignore[arg-type]
