"""Runs jobs one after another in the calling process, without workers: for tests and debuggers."""

from __future__ import annotations

from railkd.bench import attempt
from railkd.bench.executors.protocol import Outcome
from railkd.bench.plan import Job


class InProcess:
    """Runs each job in the calling process, when the loop asks for its outcome.

    Args:
        output: the bench's folder.
    """

    slots = 1

    def __init__(self, output: str) -> None:
        self._output = output
        self._job: Job | None = None

    def submit(self, job: Job) -> None:
        """Keep the job for `next`.

        Args:
            job: what to run.
        """
        self._job = job

    def next(self, seconds: float) -> Outcome | None:
        """Run the submitted job to its end.

        Args:
            seconds: not used.

        Returns:
            The outcome, or None if no job was submitted.
        """
        job, self._job = self._job, None
        return Outcome(job, attempt.run(job, self._output)) if job else None

    def close(self) -> None:
        """Do nothing: no process was started."""
