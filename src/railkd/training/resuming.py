"""What Trainer forgets over a resume, kept: the sums of the log since its last line, the gauges, and the end of an
epoch.

With these a resumed run writes the record of an uninterrupted one, line by line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from railkd.training.checkpoint_folders import SUMS, best_checkpoint


class Resuming(TrainerCallback):
    """Takes up the sums of a checkpoint, and moves a checkpoint at the last step of an epoch behind the epoch's end.

    Trainer saves after a step and then ends the epoch, with an evaluation perhaps; a run that resumes from such a
    checkpoint begins with the next epoch and never does what belongs to the end of the last.

    Args:
        restore: receives the content of a checkpoint's `SUMS` file, after Trainer has set its own sums to zero.

    Attributes:
        checkpoint: the folder to resume from; set before training begins, cleared when it has begun.
    """

    def __init__(self, restore: Callable[[dict[str, Any]], None]) -> None:
        self._restore = restore
        self.checkpoint: str | None = None
        self._deferred = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Called by Trainer, when its own sums stand at zero."""
        self._deferred = False
        folder, self.checkpoint = Path(self.checkpoint) if self.checkpoint else None, None
        if folder is None:
            return
        best = best_checkpoint(folder.parent, state.best_global_step)
        if best is not None and best.is_dir():  # the run may have been moved since
            state.best_model_checkpoint = str(best)
        if (folder / SUMS).is_file():
            self._restore(json.loads((folder / SUMS).read_text(encoding="utf-8")))

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
