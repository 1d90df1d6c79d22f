"""Rehearses a grid: every job of one seed, small and in a temporary folder, in the calling process."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from railkd.bench import attempt
from railkd.bench.grid import Arm, Grid, Student, Task, Teacher
from railkd.bench.keeping import drop_weights
from railkd.bench.plan import Job, Verbs, make_jobs
from railkd.jobs.rehearsal import NARROW_DIM, STEPS, TinyCopies, small_training, stage
from railkd.jobs.settings import SPELLINGS
from railkd.runtime.progress import bar
from railkd.runtime.words import counted, duration, listed


@dataclass(frozen=True)
class Rehearsed:
    """The result of a rehearsal.

    Attributes:
        jobs: number of jobs that ran.
        seconds: that it took.
        failures: reason -> folders of the jobs that would have failed. Jobs that need one of them are not named.
    """

    jobs: int
    seconds: float
    failures: dict[str, list[str]]


def rehearse_grid(grid: Grid, verbs: Verbs, *, quiet: bool) -> Rehearsed:
    """Rehearse every job of the first seed of a grid.

    Args:
        grid: the real grid, whose plan has been checked.
        verbs: read and check the settings of the jobs.
        quiet: show no progress.

    Returns:
        What would have failed.
    """
    start = time.perf_counter()
    attempt.set_threads(1)  # tiny models gain nothing from more
    failures: dict[str, list[str]] = {}
    gc.freeze()  # each job collects its garbage, and need not look at all that was imported before
    with stage() as (folder, copies), bar("rehearsing", "jobs", quiet=quiet) as advance:
        output = folder / "bench"
        jobs = make_jobs(_shrink(grid, copies), str(output), verbs)
        failed: set[str] = set()
        for place, job in enumerate(jobs):
            if failed.intersection(job.needs):
                failed.add(job.folder)
            elif reason := _run(job, output):
                failed.add(job.folder)
                failures.setdefault(reason.replace(str(output), "OUTPUT"), []).append(job.folder)
            elif job.kind == "distill":
                drop_weights(output / job.folder)  # a temporary folder may be small
            advance(place + 1, len(jobs))
    gc.unfreeze()
    return Rehearsed(len(jobs), time.perf_counter() - start, failures)


def _run(job: Job, output: Path) -> str:
    """Run a job with its messages in its log. Return why it failed, or an empty text."""
    with attempt.logged(job, str(output)):
        return attempt.run(job, str(output))


def _shrink(grid: Grid, copies: TinyCopies) -> Grid:
    """Return the grid of the rehearsal: one seed, tiny models, few steps, and no guard that judges quality."""
    trust = bool(grid.settings.get("trust_remote_code"))

    def teacher(value: Teacher | None) -> Teacher | None:
        if value is None or value.labels:
            return value
        if value.parts:
            return dataclasses.replace(value, parts=tuple(filter(None, map(teacher, value.parts))))
        settings = value.settings if value.settings is None else {**_fields(value.settings), "max_steps": STEPS}
        return dataclasses.replace(value, model=copies.of(value.model, trust=trust), settings=settings)

    def student(value: Student) -> Student:
        settings = dict(value.settings)
        if settings.get("student"):
            settings["student"] = copies.of(str(settings["student"]), trust=trust)
        return dataclasses.replace(value, settings=settings, teacher=teacher(value.teacher))

    def task(value: Task) -> Task:
        return dataclasses.replace(value, teacher=teacher(value.teacher))

    def arm(value: Arm) -> Arm:
        given = _fields({**grid.settings, **value.settings})
        own = {**_fields(value.settings), **small_training(given, value.method), "allow_weak_teacher": True}
        return dataclasses.replace(value, settings=own)

    return dataclasses.replace(
        grid,
        tasks=tuple(map(task, grid.tasks)),
        students=tuple(map(student, grid.students)),
        arms=tuple(map(arm, grid.arms)),
        seeds=grid.seeds[:1],
        cache={
            name: min(int(value), NARROW_DIM) if name == "states_dim" else value for name, value in grid.cache.items()
        },
    )


def _fields(settings: Any) -> dict[str, Any]:
    """Return settings with one name for each; a grid may spell them in two ways."""
    return {SPELLINGS.get(name, name): value for name, value in settings.items()}


def describe(found: Rehearsed, seeds: int, say: Callable[[str], None]) -> None:
    """Print what a rehearsal found: each reason once, with the jobs.

    Args:
        found: by `rehearse_grid`.
        seeds: of the real grid.
        say: receives lines.
    """
    for reason, folders in found.failures.items():
        say(f"would fail: {listed(folders, most=3)}: {reason}")
    number = sum(map(len, found.failures.values()))
    result = f"{counted(number, 'job')} would fail, named above" if number else "nothing failed"
    one = f" (one of {seeds} seeds)" if seeds > 1 else ""
    say(f"{counted(found.jobs, 'job')} rehearsed{one} in {duration(found.seconds)}; {result}")
