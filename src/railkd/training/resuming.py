"""What Trainer forgets over a resume, kept: the sums of the log since its last line, the gauges, and the end of an
epoch.

With these a resumed run writes the record of an uninterrupted one, line by line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from railkd import ranks

if TYPE_CHECKING:
    from railkd.training.trainer import DistillationTrainer

SUMS = "log_sums.json"


class Resuming(TrainerCallback):
    """Takes up the sums of a checkpoint, and moves a checkpoint at the last step of an epoch behind the epoch's end.

    Trainer saves after a step and then ends the epoch, with an evaluation perhaps; a run that resumes from such a
    checkpoint begins with the next epoch and never does what belongs to the end of the last.
    """

    def __init__(self, trainer: DistillationTrainer) -> None:
        self.trainer = trainer
        self.checkpoint: str | None = None
        self._deferred = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Called by Trainer, when its own sums stand at zero."""
        self._deferred = False
        path = Path(self.checkpoint) / SUMS if self.checkpoint else None
        self.checkpoint = None
        if path is not None and path.is_file():
            _take_up(self.trainer, json.loads(path.read_text(encoding="utf-8")))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Called by Trainer."""
        if control.should_save and at_boundary(state):
            control.should_save, self._deferred = False, True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Called by Trainer."""
        if self._deferred:
            control.should_save, self._deferred = True, False


def at_boundary(state: TrainerState) -> bool:
    """Whether the step just done is the last of its epoch, or of the run."""
    return float(state.epoch or 0).is_integer() or state.global_step >= state.max_steps


def log_sums(trainer: DistillationTrainer) -> dict[str, Any]:
    """The sums since the last line of the log, as the mean over the ranks; every rank must call it."""
    terms = trainer._terms.tolist() if len(trainer._terms) else [0.0] * len(trainer.model.term_names)
    held = torch.tensor([float(trainer._tr_loss), trainer._term_steps, *terms], dtype=torch.float64)
    mean = (ranks.added(held.numpy()) / ranks.world()).tolist()
    return {
        "loss": mean[0],
        "steps": mean[1],
        "terms": mean[2:],
        "total": trainer._total_loss_scalar,
        "last_logged": trainer._globalstep_last_logged,
        "gauges": trainer.gauging.as_dict(),
    }


def _take_up(trainer: DistillationTrainer, sums: dict[str, Any]) -> None:
    trainer._tr_loss += sums["loss"]
    trainer._total_loss_scalar = sums["total"]
    trainer._globalstep_last_logged = sums["last_logged"]
    trainer._term_steps = sums["steps"]
    for name, value in sums["gauges"].items():
        setattr(trainer.gauging, name, value)
    if sums["steps"]:
        trainer._terms = torch.tensor(sums["terms"], device=trainer.args.device)
