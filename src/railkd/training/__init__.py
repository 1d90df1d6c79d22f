"""The only rooms that know `transformers.Trainer`."""

from __future__ import annotations

from railkd.training.arguments import DistillationTrainingArguments
from railkd.training.trainer import DistillationTrainer

__all__ = ["DistillationTrainer", "DistillationTrainingArguments"]
