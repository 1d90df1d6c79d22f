"""From a grid to a plain list of jobs: each says what it runs, where it writes and what it waits for.

A job's settings are those of ``railkd finetune``, ``evaluate``, ``cache`` or ``distill``, read and checked by the code
of the command line, which hands it in as `Verbs`: a grid that would fail is refused before the first teacher is made.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from railkd.bench.grid import Arm, Grid, Settings, Student, Task, Teacher
from railkd.bench.yaml_reader import slug
from railkd.errors import Problems, RailkdError
from railkd.jobs import settings
from railkd.jobs.options import (
    DEFAULT_MAX_LENGTH,
    CacheOptions,
    DataOptions,
    DistillOptions,
    EvaluateOptions,
    FinetuneOptions,
)
from railkd.objectives import method_spec

#: Kind of a job -> its options.
OPTIONS: Mapping[str, type] = {
    "finetune": FinetuneOptions,
    "evaluate": EvaluateOptions,
    "cache": CacheOptions,
    "distill": DistillOptions,
}
Layers = Sequence[tuple[str, Settings]]


@dataclass(frozen=True)
class Job:
    """One teacher made or scored, teacher pass or student.

    Attributes:
        folder: where it writes, relative to the bench's; also its name. kind: of `OPTIONS`, with that class of
            ``options``. training: training arguments. needs: folders of the jobs that come before.
    """

    folder: str
    kind: str
    task: str
    student: str
    arm: str
    seed: int
    options: Any
    training: dict[str, Any]
    needs: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it; `from_plain` reads it."""
        return settings.plain(dataclasses.asdict(self)) | {"needs": list(self.needs)}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Job:
        """What `plain` made."""
        options = OPTIONS[values["kind"]](**values["options"])
        return cls(**{**values, "options": options, "needs": tuple(values["needs"])})

    @property
    def config(self) -> dict[str, Any]:
        """Its settings, as its record keeps them."""
        return settings.as_dict(self.options, self.training)


@dataclass(frozen=True)
class Verbs:
    """The command line's part.

    Attributes:
        read: (kind, layers of settings with the place each was found) -> options and training arguments.
        check: raises on settings that would fail; told the checkpoint that stands for a teacher not made yet.
    """

    read: Callable[[str, Layers], tuple[Any, dict[str, Any]]]
    check: Callable[[str, Any, dict[str, Any]], None]


def jobs_of(grid: Grid, output: str, verbs: Verbs) -> list[Job]:
    """Every job, task by task: teachers, teacher passes, then students.

    Raises:
        RailkdError: all that is wrong with any of them.
    """
    problems = Problems(grid.name)
    methods = {}
    for arm in grid.arms:
        with problems.collect():
            methods[arm.name] = method_spec(arm.method)
    problems.report()
    poolings = sorted({"mean"} | {spec.pooling for spec in methods.values() if spec.pooling})
    cached = any(spec.needs_teacher for spec in methods.values())
    jobs: list[Job] = []
    for task in grid.tasks:
        makers = {}
        for name, teacher in teachers_of(grid, task).items():
            makers[name] = made = _Teaching(grid, output, verbs, task, teacher, name)
            with problems.collect():
                jobs += made.jobs(poolings if cached else [])
        for student in grid.students:
            made = next(m for m in makers.values() if m.teacher == (student.teacher or task.teacher))
            for arm in grid.arms:
                with problems.collect():
                    jobs += made.students(student, arm, methods[arm.name].needs_teacher)
    for folder, count in Counter(job.folder.casefold() for job in jobs).items():
        if count > 1:
            problems.add(f"{count} jobs would write to '{folder}'; name tasks or students otherwise")
    problems.report()
    return jobs


def teachers_of(grid: Grid, task: Task) -> dict[str, Teacher]:
    """The teachers that the students of a task have, each once, by a name that no other has."""
    found: dict[str, Teacher] = {}
    for student in grid.students:
        teacher = student.teacher or task.teacher
        assert teacher is not None  # the reader of the grid has seen to it
        if teacher not in found.values():
            name = teacher.name if teacher.name not in found else f"{teacher.name}-{len(found) + 1}"
            found[name] = teacher
    return found


@dataclass
class _Teaching:
    """A teacher of a task, and the jobs that come of it."""

    grid: Grid
    output: str
    verbs: Verbs
    task: Task
    teacher: Teacher
    name: str
    needs: tuple[str, ...] = ()
    cache: str | None = None

    @property
    def model(self) -> str:
        """Where the teacher is, or will be."""
        return self.teacher.model if self.teacher.settings is None else self._at("teachers", "model")

    def jobs(self, poolings: Sequence[str]) -> list[Job]:
        """Its fine-tuning, or its scores where it is finished; its pass over the training rows, if anyone reads it."""
        made = []
        if self.teacher.settings is not None:
            base: dict[str, Any] = {
                "model": self.teacher.model,
                "output": self._at("teachers"),
                "keep_predictions": "texts",
            }
            layers = [*self._shared("bf16"), (f"tasks.{self.task.name}: ", self._tests() | self._selection())]
            options, training = self._read("finetune", [*layers, ("teacher: ", self.teacher.settings), ("", base)])
            made.append(self._job("teachers", "finetune", "teacher", int(training.get("seed", 42)), options, training))
            self.needs = (made[-1].folder,)
        else:
            made.append(self._scores())
        if poolings:
            self.cache = self._at("caches", "cache")
            base = {"teacher": self.model, "cache": self.cache, "pooling": list(poolings)}
            data = self.task.data
            rows = {"train": [data[key] for key in ("train", "unlabelled") if key in data]}
            layers = [
                *self._shared("bf16"),
                ("cache: ", self.grid.cache),
                (f"tasks.{self.task.name}: ", rows),
                ("", base),
            ]
            options, training = self._read("cache", layers)
            made.append(self._job("caches", "cache", "", 0, options, training))
        return made

    def _scores(self) -> Job:
        """The scores of a teacher that is there already: what its students are held against."""
        layers = [*self._shared(), (f"tasks.{self.task.name}: ", self._tests()), ("", {"model": self.teacher.model})]
        options, training = self._read("evaluate", layers)
        # As its students will read the rows, whatever length it was trained with.
        options = dataclasses.replace(options, max_length=options.max_length or DEFAULT_MAX_LENGTH)
        return self._job("teachers", "evaluate", "teacher", 0, options, training)

    def students(self, student: Student, arm: Arm, needs_teacher: bool) -> list[Job]:
        """The runs of one student by one arm: a job for each seed."""
        task = self.task.name
        base = {"teacher": self.model, "cache": self.cache if needs_teacher else None, "method": arm.method}
        layers: Layers = [
            ("", {"keep_predictions": "answers"}),
            ("settings: ", self.grid.settings),
            (f"tasks.{task}.settings: ", self.task.settings),
            (f"tasks.{task}: ", self._rows() | self._tests() | self._selection()),
            (f"students ({student.name}): ", student.settings),
            (f"methods ({arm.name}): ", arm.settings),
            ("", base),
        ]
        options, training = self._read("distill", layers)
        needs = (*self.needs, *([_folder("caches", task, self.name)] if base["cache"] else []))
        jobs = []
        for seed in self.grid.seeds:
            name = "_".join(slug(part) for part in (task, student.name, arm.name, str(seed)))
            placed = dataclasses.replace(options, output=str(Path(self.output) / "runs" / name))
            seeded = training | {"seed": seed}
            jobs.append(Job(f"runs/{name}", "distill", task, student.name, arm.name, seed, placed, seeded, needs))
        return jobs

    def _job(self, room: str, kind: str, arm: str, seed: int, options: Any, training: dict[str, Any]) -> Job:
        """A teacher's job belongs to the students it teaches; where it teaches all of them, none is named."""
        theirs = [s.name for s in self.grid.students if (s.teacher or self.task.teacher) == self.teacher]
        student = ", ".join(theirs) if len(theirs) < len(self.grid.students) else ""
        folder = _folder(room, self.task.name, self.name)
        return Job(folder, kind, self.task.name, student, arm, seed, options, training, self.needs)

    def _read(self, kind: str, layers: Layers) -> tuple[Any, dict[str, Any]]:
        """Settings, read and checked; a teacher that is not made yet is stood for by what it is fine-tuned from."""
        try:
            options, training = self.verbs.read(kind, layers)
            standing: dict[str, Any] = {}
            if kind in ("cache", "distill"):
                standing = {"teacher": self.teacher.model}
            if kind == "distill":
                standing |= {"cache": None, "output": self._at("runs")}
            self.verbs.check(kind, dataclasses.replace(options, **standing), training)
        except RailkdError as error:
            raise RailkdError(str(error).replace("; see --help for an example", "")) from None
        return options, training

    def _shared(self, *more: str) -> list[tuple[str, Settings]]:
        """What a teacher, its scores, its pass and its students have in common: how rows are read, and ``more``."""
        names = {field.name for field in dataclasses.fields(DataOptions)} | {"trust_remote_code", *more}
        given = [("settings: ", self.grid.settings), (f"tasks.{self.task.name}.settings: ", self.task.settings)]
        given.append((f"tasks.{self.task.name}: ", self.task.data))
        return [(where, {key: value for key, value in found.items() if key in names}) for where, found in given]

    def _rows(self) -> dict[str, Any]:
        return {key: value for key, value in self.task.data.items() if key not in ("train", "test", "ood", "eval")}

    def _tests(self) -> dict[str, Any]:
        return {key: self.task.data[key] for key in ("train", "test", "ood") if key in self.task.data}

    def _selection(self) -> dict[str, Any]:
        """What chooses the epoch: a file of the task's own, or else the grid's share of the training rows."""
        return {"eval": self.task.data["eval"]} if "eval" in self.task.data else dict(self.grid.selection)

    def _at(self, room: str, *parts: str) -> str:
        return str(Path(self.output, _folder(room, self.task.name, self.name), *parts))


def _folder(room: str, task: str, name: str) -> str:
    return f"{room}/{slug(task)}/{slug(name)}"
