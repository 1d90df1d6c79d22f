"""Callbacks for signals, for the progress bar and for the early end of a training.

After SIGINT, SIGTERM or SIGHUP training finishes the step, saves a checkpoint and stops. A second signal stops at once.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from railkd.runtime import ranks
from railkd.runtime.handlers import handling
from railkd.runtime.progress import Advance
from railkd.training.resuming import at_boundary


class Interruption(TrainerCallback):
    """Save a checkpoint after a signal, and then stop training.

    The previous handlers run after the checkpoint is saved, so Ctrl-C raises ``KeyboardInterrupt`` as usual.
    ``should_training_stop`` is not used. It would end the epoch, with an evaluation and a gauge reading in the log that
    an uninterrupted run does not have.

    Args:
        say: receives a message when a signal arrives.

    Attributes:
        heard: number of the first signal, or None.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say or (lambda line: None)
        self.heard: int | None = None
        self._restore: Callable[[], None] = lambda: None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP for the duration of a block.

        Yields:
            Nothing.
        """
        with handling(("SIGINT", "SIGTERM", "SIGHUP"), self._hear) as self._restore:
            yield
            if self.heard is not None:  # the signal came too late for a checkpoint, but must still have its effect
                self._leave(self.heard)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Request a checkpoint after a signal, except after the last step of an epoch (called by Trainer)."""
        if self._agreed():
            control.should_save = not at_boundary(state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Request a checkpoint after the evaluation and log of an epoch (called by Trainer)."""
        if self._agreed():
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Stop training once the checkpoint is complete (called by Trainer)."""
        if self._agreed():
            self._leave(self.heard or signal.SIGTERM)

    def _hear(self, number: int) -> None:
        if self.heard is None:
            self.heard = number
            self._say(f"{signal.Signals(number).name}: saving a checkpoint after this step; once more to stop at once")
        else:
            self._leave(number)

    def _agreed(self) -> bool:
        """Return True if any rank has received a signal, and copy its number to all ranks."""
        number = ranks.all_reduce_max(self.heard or 0)
        if number:  # a signal that arrives during the all-reduce counts at the next call
            self.heard = number
        return bool(number)

    def _leave(self, number: int) -> None:
        self._restore()
        if signal.getsignal(number) is signal.SIG_IGN:  # another rank received the signal, and all ranks stop together
            raise KeyboardInterrupt
        signal.raise_signal(number)


class StepProgress(TrainerCallback):
    """Advance a progress bar after each optimizer step.

    Args:
        advance: called with the number of finished steps and the number of all steps.
    """

    def __init__(self, advance: Advance) -> None:
        self.advance = advance

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Advance the bar (called by Trainer)."""
        self.advance(state.global_step, state.max_steps)


class Elapsed(TrainerCallback, ExportableState):
    """Count the seconds of a training over all its sessions. One that was killed counts up to its last checkpoint.

    Attributes:
        before: seconds of the sessions before this one.
    """

    def __init__(self) -> None:
        self.before, self._start = 0.0, time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Read the seconds from the checkpoint, if the run resumes and they are known (called by Trainer)."""
        held: Any = (state.stateful_callbacks or {}).get(type(self).__name__)
        seconds = held["attributes"].get("seconds") if isinstance(held, dict) and state.global_step else None
        known = isinstance(seconds, float | int) and not isinstance(seconds, bool)
        self.before = float(seconds or 0.0) if known else 0.0
        self._start = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """Return the seconds so far, for a checkpoint."""
        return {"args": {}, "attributes": {"seconds": self.before + time.perf_counter() - self._start}}


class Patience(TrainerCallback):
    """End training after a number of evaluations without a better one.

    The evaluations are counted in the log of Trainer. So all ranks agree, and so does a resumed run.

    Args:
        limit: this many evaluations in a row that are not better than the best one before them end the training.
        say: receives a line when it ends.

    Attributes:
        stopped: when and why the training ended; empty if it did not end early.
    """

    def __init__(self, limit: int, say: Callable[[str], None]) -> None:
        self._limit, self._say = limit, say
        self.stopped = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """End a resumed training that has no patience left (called by Trainer)."""
        self._count(args, state, control)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Count the evaluations since the best one (called by Trainer)."""
        self._count(args, state, control)

    def _count(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        metric = str(args.metric_for_best_model).removeprefix("eval_")
        values = [float(entry[f"eval_{metric}"]) for entry in state.log_history if f"eval_{metric}" in entry]
        best, since = float("-inf"), 0
        for value in values if args.greater_is_better else [-value for value in values]:
            best, since = (value, 0) if value > best else (best, since + 1)
        if since >= self._limit:
            control.should_training_stop = True
            of = f"at step {state.global_step} of {state.max_steps}"
            self.stopped = f"stopped {of}, after {since} evaluations without a better {metric}"
            self._say(self.stopped)
