"""Options of the jobs that change what a model answers, or doubt labels; see `railkd.jobs.options`."""

from __future__ import annotations

from dataclasses import dataclass

from railkd.jobs.option import option


@dataclass
class ThresholdOptions:
    """Which thresholds answers follow."""

    thresholds: str | None = option(
        "answer by the thresholds of this file, which railkd calibrate wrote", metavar="FILE", group="models"
    )


@dataclass
class SuspectOptions:
    """What is written of the rows whose labels may be wrong."""

    suspects: str | None = option(
        "run the teacher over all training rows, and write those on which it and the label disagree to this .tsv file",
        metavar="FILE",
    )
