"""Restore what Trainer loses when a run resumes: the sums since the last log, the gauges and the end of an epoch.

With these a resumed run writes the same record as an uninterrupted one, line by line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from railkd.errors import RailkdError
from railkd.training.checkpoint_folders import SUMS, best_checkpoint


class Resuming(TrainerCallback):
    """Restore the sums of a checkpoint, and delay a checkpoint at the last step of an epoch until the epoch has ended.

    Trainer saves after a step, and then ends the epoch, for example with an evaluation. A run that resumes from such a
    checkpoint starts the next epoch, so the evaluation would be missing.

    Args:
        restore: receives the content of a checkpoint's `SUMS` file, after Trainer has set its own sums to zero.

    Attributes:
        checkpoint: the folder to resume from. It is set before training and cleared when training begins.
    """

    def __init__(self, restore: Callable[[dict[str, Any]], None]) -> None:
        self._restore = restore
        self.checkpoint: str | None = None
        self._deferred = False

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Restore the sums of the checkpoint, after Trainer has set its own to zero (called by Trainer).

        Raises:
            RailkdError: the checkpoint lies in a later pass over a stream, so Trainer would go on with other rows.
        """
        self._deferred = False
        folder, self.checkpoint = Path(self.checkpoint) if self.checkpoint else None, None
        if folder is None:
            return
        if float(state.epoch or 0) >= 1 and not has_length(train_dataloader):
            raise RailkdError(
                f"Expected a checkpoint of the first pass over the stream of training rows, got {folder.name} of pass "
                f"{int(state.epoch) + 1}, from which training would go on with other rows. Fix: train from the start, "
                "or on a Dataset."
            )
        best = best_checkpoint(folder.parent, state.best_global_step)
        if best is not None and best.is_dir():  # the run may have been moved since
            state.best_model_checkpoint = str(best)
        if (folder / SUMS).is_file():
            self._restore(json.loads((folder / SUMS).read_text(encoding="utf-8")))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Delay a checkpoint at the last step of an epoch (called by Trainer)."""
        if control.should_save and at_boundary(state):
            control.should_save, self._deferred = False, True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Request the delayed checkpoint (called by Trainer)."""
        if self._deferred:
            control.should_save, self._deferred = True, False


def at_boundary(state: TrainerState) -> bool:
    """Return True if the last finished step is the last one of its epoch or of the run."""
    return float(state.epoch or 0).is_integer() or state.global_step >= state.max_steps
