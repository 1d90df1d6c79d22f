"""The protocol of an executor: start a job, return the next job that ended, stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from railkd.bench.plan import Job


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    An error of the job itself depends on its settings alone and would happen again, so the job is not retried. A crash
    of its process (out of memory, a lost machine) may not happen again, so the loop retries the job.

    Attributes:
        job: the job that ended.
        error: the reason in words; empty if the job finished.
        crashed: the process of the job ended, not only the job.
    """

    job: Job
    error: str = ""
    crashed: bool = False


class Executor(Protocol):
    """Runs jobs somewhere.

    Attributes:
        slots: the number of jobs it runs at a time.
    """

    slots: int

    def submit(self, job: Job) -> None:
        """Start a job. The loop never has more than ``slots`` jobs running.

        Args:
            job: what to run.
        """

    def next(self, seconds: float) -> Outcome | None:
        """Return the next job that ended.

        Args:
            seconds: how long to wait for one.

        Returns:
            The outcome, or None if no job ended in time.
        """

    def close(self) -> None:
        """Stop the running jobs and the processes that this executor started."""
