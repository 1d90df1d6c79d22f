"""SIGINT, SIGTERM and SIGHUP in training: finish the step, save a checkpoint, leave. A second signal leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from railkd.runtime import ranks
from railkd.runtime.progress import Advance
from railkd.training.resuming import at_boundary

#: SIGHUP comes when a terminal is closed; Windows lacks it.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interruption(TrainerCallback):
    """Turns a signal into a checkpoint.

    The handlers that stood before decide what happens after it: Ctrl-C raises ``KeyboardInterrupt``, as always. It is
    raised out of the loop, and not asked for by ``should_training_stop``: that would end the epoch, with an evaluation
    and a gauge reading in the log that an uninterrupted run does not have.

    Args:
        say: told that the signal was heard.

    Attributes:
        heard: the first signal, or None.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say or (lambda line: None)
        self.heard: int | None = None
        self._before: dict[int, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen while a training runs.

        A signal that is ignored, as SIGINT is in the background job of a script and SIGHUP under nohup, stays ignored.
        Only the main thread may install handlers; in other threads the block runs without them.

        Yields:
            Nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        owner = os.getpid()

        def hear(number: int, frame: FrameType | None) -> None:
            if os.getpid() != owner:  # a forked data loader worker inherits the handler: it dies as it would without
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            elif self.heard is None:
                self.heard = number
                name = signal.Signals(number).name
                self._say(f"{name}: saving a checkpoint after this step; once more to stop at once")
            else:
                self._leave(number)

        honoured = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, hear) for number in honoured}
        try:
            yield
            if self.heard is not None:  # too late for a checkpoint, and not to be swallowed
                self._leave(self.heard)
        finally:
            self._restore()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Called by Trainer. All ranks must save at the same step."""
        if self._agreed():
            control.should_save = not at_boundary(state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Called by Trainer: what belongs to the end of the epoch is done before a checkpoint here."""
        if self._agreed():
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Called by Trainer, when the checkpoint is complete."""
        if self._agreed():
            self._leave(self.heard or signal.SIGTERM)

    def _agreed(self) -> bool:
        """Whether any rank has heard a signal, which is then heard by all. They need not hear it in the same step."""
        number = ranks.all_reduce_max(self.heard or 0)
        if number:  # what was heard in the meantime is left for the next time
            self.heard = number
        return bool(number)

    def _leave(self, number: int) -> None:
        self._restore()
        if signal.getsignal(number) is signal.SIG_IGN:  # another rank received it, and all ranks stop together
            raise KeyboardInterrupt
        signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class StepProgress(TrainerCallback):
    """Moves a bar at every optimizer step."""

    def __init__(self, advance: Advance) -> None:
        self.advance = advance

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Called by Trainer."""
        self.advance(state.global_step, state.max_steps)
