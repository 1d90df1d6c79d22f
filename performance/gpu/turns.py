"""Several trainings that take turns: each runs a few steps of its own loop, then the next one does.

Every training is a real one, in a thread of its own, that stops at the end of a step until it gets its next turn. One
thread runs at a time. So all sides meet the same moods of the machine within a second, and no turn pays for set-up. The
device is synchronised at both ends of a turn.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from material import synchronise
from record import failure
from transformers import TrainerCallback

#: A turn that takes longer hangs.
LONGEST_TURN_S = 40.0
#: That a ratio needs, even where the time is over before.
LEAST_ROUNDS = 3
EVERY_ROUND = 1_000_000


class Stop(Exception):
    """Ends a loop that has no flag to stop by."""


class Side(TrainerCallback):
    """One training, as a callback of its Trainer; other loops call `step_done` themselves.

    Args:
        name: of the side. device: what is synchronised. rounds: that it takes part in, the first ones.

    Attributes:
        seconds: of each turn. error: what ended the training too early, or None.
    """

    def __init__(self, name: str, device: torch.device, rounds: int = EVERY_ROUND) -> None:
        self.name, self.device, self.rounds = name, device, rounds
        self.seconds: list[float] = []
        self.error: dict[str, str] | None = None
        self._run: Callable[[], Any] | None = None
        self._thread = threading.Thread(target=self._body, name=name, daemon=True)
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._left, self._stop, self._start = 0, False, 0.0

    def trains_by(self, run: Callable[[], Any]) -> Side:
        """Set the function that trains, and return the side."""
        self._run = run
        return self

    @property
    def alive(self) -> bool:
        """True until the training ended or failed."""
        return self.error is None

    def turn(self, steps: int) -> float | None:
        """Run some steps and return their seconds; None where the training has ended."""
        if not self.alive:
            return None
        self._left = steps
        before = len(self.seconds)
        if self._thread.ident is None:
            self._thread.start()
        self._go.release()
        if not self._done.acquire(timeout=LONGEST_TURN_S):
            self.error = {"error": f"a turn of {steps} steps took more than {LONGEST_TURN_S:g} s"}
        return self.seconds[-1] if len(self.seconds) > before and self.alive else None

    def close(self) -> None:
        """End the training."""
        if self._thread.ident is None or not self._thread.is_alive():
            return
        self._stop = True
        self._go.release()
        self._thread.join(timeout=30)

    def step_done(self) -> bool:
        """Count a step; at the end of a turn wait for the next one. True: the training shall stop."""
        self._left -= 1
        if self._left > 0:
            return self._stop
        synchronise(self.device)
        self.seconds.append(time.perf_counter() - self._start)
        self._done.release()
        self._wait()
        return self._stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by Trainer."""
        control.should_training_stop = self.step_done() or control.should_training_stop

    def _wait(self) -> None:
        self._go.acquire()
        synchronise(self.device)
        self._start = time.perf_counter()

    def _body(self) -> None:
        self._wait()
        try:
            assert self._run is not None
            self._run()
            if not self._stop:
                self.error = {"error": "the training ended by itself"}
        except Stop:
            pass
        except BaseException as error:
            self.error = failure(error)
        finally:
            self._done.release()


def interleave(
    sides: list[Side], *, warm_turns: int, steps: int, deadline: float, most: int, order: Callable[[list[str]], Any]
) -> list[dict[str, float]]:
    """Let all sides take turns, the first ones to warm up, until a moment or a number of rounds.

    Returns:
        Of each round, the seconds of every side that took part and finished its turn.
    """
    rounds: list[dict[str, float]] = []
    by_name = {side.name: side for side in sides}
    try:
        for number in range(-warm_turns, most):
            if number == 0:  # what lives now lives on: a collection need not look at it in the middle of a turn
                gc.collect()
                gc.freeze()
            if number >= LEAST_ROUNDS and time.monotonic() >= deadline:
                break
            taken = {}
            for name in order([side.name for side in sides if side.alive and number < side.rounds]):
                seconds = by_name[name].turn(steps)
                if seconds is not None:
                    taken[name] = seconds
            if not taken:
                break
            if number >= 0:
                rounds.append(taken)
            for side in sides:
                if number + 1 == side.rounds:
                    side.close()
    finally:
        for side in sides:
            side.close()
        gc.unfreeze()
    return rounds
