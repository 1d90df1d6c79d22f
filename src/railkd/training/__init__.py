"""Training. Only the modules of this package use `transformers.Trainer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from railkd.runtime.faces import lazy

if TYPE_CHECKING:
    from railkd.training.arguments import DistillationTrainingArguments
    from railkd.training.trainer import DistillationTrainer

_HOMES = {
    "DistillationTrainer": "railkd.training.trainer",
    "DistillationTrainingArguments": "railkd.training.arguments",
}

__all__ = ["DistillationTrainer", "DistillationTrainingArguments"]

__getattr__, __dir__ = lazy(__name__, _HOMES)
