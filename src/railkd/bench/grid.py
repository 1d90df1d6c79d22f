"""The values of a grid file: tasks x students x methods x seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from railkd.records import Question

Settings = Mapping[str, Any]
"""Settings by name, as a user wrote them. `railkd.bench.plan` checks them with the code of the command line."""


@dataclass(frozen=True)
class Teacher:
    """The teacher of a task.

    Attributes:
        name: of its folder.
        model: a checkpoint.
        settings: of the fine-tuning that turns ``model`` into the teacher. None: ``model`` is the teacher already.
        labels: ``model`` is a file of the teacher's answers.
        parts: the teachers whose mean is the teacher, checkpoints before files of answers; then ``model`` is empty.
            Empty: the teacher is one.
        weights: of the parts; empty: equal.
        states: number of the part, from 0, whose states layer methods read.
    """

    name: str
    model: str
    settings: Settings | None = None
    labels: bool = False
    parts: tuple[Teacher, ...] = ()
    weights: tuple[float, ...] = ()
    states: int = 0

    @property
    def lead(self) -> Teacher:
        """The teacher that students start from: the part whose states are read; itself if it is one."""
        return self.parts[self.states] if self.parts else self


@dataclass(frozen=True)
class Task:
    """The data and the teacher of a task.

    Attributes:
        name: as the user wrote it.
        data: where the rows are and how they are read.
        teacher: of all students without a teacher of their own.
        settings: of the runs on this task.
    """

    name: str
    data: Settings
    teacher: Teacher | None
    settings: Settings


@dataclass(frozen=True)
class Student:
    """The student of a run: the weights that it starts from.

    Attributes:
        name: given by the user, or made of the settings.
        settings: its number of blocks, which blocks it keeps, or its checkpoint.
        teacher: its own. None: the teacher of the task.
    """

    name: str
    settings: Settings
    teacher: Teacher | None = None


@dataclass(frozen=True)
class Arm:
    """A method with its options.

    Attributes:
        name: the method, with the options in which it differs from other arms of the same method.
        method: a name of `railkd.objectives.METHODS`.
        settings: the options.
    """

    name: str
    method: str
    settings: Settings


@dataclass(frozen=True)
class Machine:
    """Where the runs go. Flags of the command line override it.

    Attributes:
        executor: "local" or "ray".
        processes: runs at a time. None: one.
        threads: of each run. None: the cores, divided by ``processes``.
        retries: how often a run is retried whose process crashed.
        gpus: of each run, also a fraction.
    """

    executor: str = "local"
    processes: int | None = None
    threads: int | None = None
    retries: int = 2
    gpus: float = 0.0


@dataclass(frozen=True)
class Grid:
    """A grid file.

    Attributes:
        name: of the bench.
        tasks: what is learned.
        students: what the runs start from.
        arms: the methods that are compared.
        seeds: of the runs.
        settings: of all runs.
        selection: the share of the training rows that chooses the epoch. Empty: a file of each task does.
        cache: settings of the teacher passes.
        baseline: the arm that the report compares the others with.
        contrasts: further comparisons for the report.
        machine: where the runs go.
        keep_students: of which runs the weights are kept: all, best (of the seeds of each student and arm, by the rows
            that choose the epoch) or none. Predictions, scores and curves are always kept.
    """

    name: str
    tasks: tuple[Task, ...]
    students: tuple[Student, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    settings: Settings = field(default_factory=dict)
    selection: Settings = field(default_factory=dict)
    cache: Settings = field(default_factory=dict)
    baseline: str | None = None
    contrasts: tuple[Question, ...] = ()
    machine: Machine = Machine()
    keep_students: str = "all"

    def named_code(self) -> Iterator[tuple[str, Any]]:
        """Yield where methods and metrics stand in the file, and their names: each may be the address of code."""
        yield "methods", [arm.method for arm in self.arms]
        named = [owner.teacher for owners in (self.tasks, self.students) for owner in owners if owner.teacher]
        teachers = [one for teacher in named for one in (teacher, *teacher.parts)]
        given = [("settings", self.settings), *((f"tasks.{task.name}.settings", task.settings) for task in self.tasks)]
        given += [("teacher", teacher.settings) for teacher in teachers if teacher.settings is not None]
        for where, settings in given:
            yield f"{where}.metrics", settings.get("metrics")
