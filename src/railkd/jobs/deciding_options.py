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
class DeferOptions(ThresholdOptions):
    """Which rows a student leaves to a larger model."""

    defer: float | None = option(
        "share of the answers of this model that must agree with the larger model, e.g. 0.98; less certain rows are "
        "deferred",
        metavar="P",
        group="deferral",
    )
    defer_to: str | None = option("the larger model, which answers these rows", metavar="MODEL", group="deferral")
    against: str | None = option(
        "like --defer-to, but deferred rows are only marked", metavar="MODEL", group="deferral"
    )
    held_out: str | None = option(
        "rows that trained neither model, on which the agreement is shown; labels are not needed",
        metavar="FILE",
        group="deferral",
    )


@dataclass
class SuspectOptions:
    """Where the rows whose labels may be wrong are written."""

    suspects: str | None = option(
        "run the teacher over all training rows, and write those on which it and the label disagree to this .tsv file",
        metavar="FILE",
    )
