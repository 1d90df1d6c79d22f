"""What the loop asks of an executor: take a job, tell the next one that came to an end, stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from railkd.bench import attempt
from railkd.bench.plan import Job


@dataclass(frozen=True)
class Outcome:
    """How a job ended: well (no error), in an error of its own, or with its process (``died``), which is tried again.

    An error of the job itself is a function of its settings and would come again, so it is not retried.
    """

    job: Job
    error: str = ""
    died: bool = False


class Executor(Protocol):
    """Where jobs run."""

    slots: int

    def submit(self, job: Job) -> None:
        """Start a job; never more than ``slots`` at a time."""

    def next(self, seconds: float) -> Outcome | None:
        """The next job that came to an end; None: none did in these seconds."""

    def close(self) -> None:
        """Stop what runs, and leave nothing behind."""


class InProcess:
    """Jobs one after another in this very process: for tests and debuggers."""

    slots = 1

    def __init__(self, output: str) -> None:
        self._output = output
        self._job: Job | None = None

    def submit(self, job: Job) -> None:
        """Keep the job for `next`."""
        self._job = job

    def next(self, seconds: float) -> Outcome | None:
        """Run it."""
        job, self._job = self._job, None
        return Outcome(job, attempt.attempt(job, self._output)) if job else None

    def close(self) -> None:
        """Nothing is left running."""
