"""Restore what Trainer loses when a run resumes: the sums since the last log, gauges, the place in a stream.

With these a resumed run writes the same record as an uninterrupted one, line by line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from railkd.training.checkpoint_folders import SUMS, best_checkpoint


class Resuming(TrainerCallback):
    """Restore the sums of a checkpoint, and delay a checkpoint at the last step of an epoch until the epoch has ended.

    Trainer saves after a step, and then ends the epoch, for example with an evaluation. A run that resumes from such a
    checkpoint starts the next epoch, so the evaluation would be missing. The length of a stream is not known before
    its end, so there Trainer counts all steps as those of the first pass, and the place comes from the state.

    Args:
        restore: receives the content of a checkpoint's `SUMS` file, after Trainer has set its own sums to zero.

    Attributes:
        checkpoint: the folder to resume from. It is set before training and cleared when training begins.
        pass_ended: whether the work at the end of an epoch has begun, and no step was taken since.
        position: arguments of `Trainer._run_epoch` that say where a stream goes on; empty for other rows.
    """

    def __init__(self, restore: Callable[[dict[str, Any]], None]) -> None:
        self._restore = restore
        self.checkpoint: str | None = None
        self.pass_ended = self._deferred = False
        self.position: dict[str, int] = {}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Restore the sums of the checkpoint, after Trainer has set its own to zero (called by Trainer)."""
        self.pass_ended, self._deferred, self.position = False, False, {}
        folder, self.checkpoint = Path(self.checkpoint) if self.checkpoint else None, None
        if folder is None:
            return
        best = best_checkpoint(folder.parent, state.best_global_step)
        if best is not None and best.is_dir():  # the run may have been moved since
            state.best_model_checkpoint = str(best)
        held: dict[str, Any] = {}
        if (folder / SUMS).is_file():
            held = json.loads((folder / SUMS).read_text(encoding="utf-8"))
            self._restore(held)
        if not has_length(train_dataloader):
            passes, part = divmod(float(state.epoch or 0), 1.0)  # Trainer counts parts of max_steps
            batches = round(part * state.max_steps * args.gradient_accumulation_steps)
            passes, batches = (passes + 1, 0) if held.get("pass_ended") else (passes, batches)
            self.position = {"epochs_trained": int(passes), "steps_trained_in_current_epoch": batches}

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Note that an epoch goes on (called by Trainer)."""
        self.pass_ended = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Delay a checkpoint at the last step of an epoch (called by Trainer)."""
        if control.should_save and at_boundary(state):
            control.should_save, self._deferred = False, True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Request the delayed checkpoint (called by Trainer)."""
        self.pass_ended = True
        if self._deferred:
            control.should_save, self._deferred = True, False


def at_boundary(state: TrainerState) -> bool:
    """Return True if the last finished step is the last one of its epoch or of the run."""
    return float(state.epoch or 0).is_integer() or state.global_step >= state.max_steps
