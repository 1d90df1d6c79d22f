"""A training of a tiny student, and how far apart two of them end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor

from railkd import DistillationTrainer
from tiny import make_model, make_small, make_trainer


def far(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    assert one.keys() == two.keys()
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


def run(folder: Path, teacher: Any, rows: Dataset, tokenizer: Any, **settings: Any) -> DistillationTrainer:
    """Train a student that starts apart from the teacher, without dropout unless asked."""
    student = settings.pop("student", None) or make_small(
        make_model(4, seed=11), 3, dropout=settings.pop("dropout", 0.0)
    )
    trainer = make_trainer(folder, teacher, rows, tokenizer, student=student, **settings)
    trainer.train()
    return trainer
