"""Turns a grid into a plain list of jobs: each names what it runs, where it writes, and which jobs it needs.

A job's settings are those of ``railkd finetune``, ``evaluate``, ``cache`` or ``distill``. The code of the command line
reads and checks them (`Verbs`), so a grid that would fail is refused before the first teacher is trained.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from railkd.bench.grid import Arm, Grid, Settings, Student, Task, Teacher
from railkd.bench.yaml_reader import slugify
from railkd.data.shares import split_share
from railkd.errors import Problems, RailkdError
from railkd.jobs import settings
from railkd.jobs.options import (
    CacheOptions,
    DataOptions,
    DistillOptions,
    EvaluateOptions,
    FinetuneOptions,
)
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.models.named_teachers import as_list
from railkd.objectives import method_spec, stored_poolings
from railkd.records import TEACHER_PART
from railkd.runtime import typed
from railkd.signals import NO_POOLING
from railkd.training.pairing import check_components

#: Kind of a job -> its options.
OPTIONS: Mapping[str, type] = {
    "finetune": FinetuneOptions,
    "evaluate": EvaluateOptions,
    "cache": CacheOptions,
    "distill": DistillOptions,
}
Layers = Sequence[tuple[str, Settings]]
"""Settings with the place where each was given, such as ``tasks.RTE: ``. Later ones override earlier ones."""


@dataclass(frozen=True)
class Job:
    """One job: a teacher to train or score, a teacher pass, or a student to train.

    Attributes:
        folder: where it writes, relative to the bench's folder; also the name of the job.
        kind: a key of `OPTIONS`.
        task: the name of its task.
        student: the name of its student. Of a teacher: the students it teaches, or empty if it teaches all.
        arm: the name of its arm; "teacher" for teachers, empty for teacher passes.
        seed: of the run.
        request: options, of the class that `OPTIONS` has for the kind, and training arguments.
        needs: folders of the jobs that must finish before it starts.
    """

    folder: str
    kind: str
    task: str
    student: str
    arm: str
    seed: int
    request: Request[Any]
    needs: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the job as values that JSON can hold; `from_plain` reads them."""
        return settings.plain(dataclasses.asdict(self)) | {"needs": list(self.needs)}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Job:
        """Return the job that `plain` was called on.

        Args:
            values: from `plain`.

        Returns:
            The job.

        Raises:
            ValueError: a field is missing, unknown or of another type. The message names it.
        """
        job = cast(Job, typed.from_plain(cls, values))
        if job.kind not in OPTIONS:
            raise ValueError(f"kind: expected one of {', '.join(OPTIONS)}, got {job.kind!r:.40}")
        options = typed.from_plain(OPTIONS[job.kind], job.request.options)
        return dataclasses.replace(job, request=Request(options, job.request.training))

    @property
    def config(self) -> dict[str, Any]:
        """The settings, as the job's record keeps them."""
        return self.request.as_dict()


@dataclass(frozen=True)
class Verbs:
    """How the command line reads and checks settings.

    Attributes:
        read: takes a kind of job and `Layers`, returns the request.
        check: takes a kind of job and its request, and raises if the job would fail. A teacher that is not trained yet
            is represented by the checkpoint that it will be fine-tuned from.
    """

    read: Callable[[str, Layers], Request[Any]]
    check: Callable[[str, Request[Any]], None]


def make_jobs(grid: Grid, output: str, verbs: Verbs) -> list[Job]:
    """Make the jobs of a grid, task by task: teachers, teacher passes, then students.

    If some jobs would fail or write to the same folder, all problems are raised together, as one `RailkdError`.

    Args:
        grid: what to compare.
        output: the bench's folder.
        verbs: read and check the settings of the jobs.

    Returns:
        The jobs, each after the jobs that it needs.
    """
    problems = Problems(grid.name)
    methods = {}
    for arm in grid.arms:
        with problems.collect():
            methods[arm.name] = spec = method_spec(arm.method)
            if spec.pooling:
                check_components(spec.name, spec.objective, grid.cache.get("states_dim"))
    problems.report()
    poolings = stored_poolings(methods.values())
    cached = any(spec.needs_teacher for spec in methods.values())
    jobs: list[Job] = []
    for task in grid.tasks:
        plans: list[_TeacherPlan] = []
        for name, teacher in list_teachers(grid, task).items():
            parts = [next(plan for plan in plans if plan.teacher == part) for part in teacher.parts]
            plans.append(_TeacherPlan(grid, output, verbs, task, teacher, name, parts))
            with problems.collect():
                jobs += plans[-1].make_teacher_jobs(poolings if cached else [])
        for student in grid.students:
            plan = next(plan for plan in plans if plan.teacher == (student.teacher or task.teacher))
            for arm in grid.arms:
                with problems.collect():
                    jobs += plan.make_student_jobs(student, arm, methods[arm.name].needs_teacher)
    for folder, count in Counter(job.folder.casefold() for job in jobs).items():
        if count > 1:
            problems.add(f"{count} jobs would write to '{folder}'. Fix: rename tasks or students")
    problems.report()
    return jobs


def list_teachers(grid: Grid, task: Task) -> dict[str, Teacher]:
    """Return the teachers of a task's students, each once.

    Args:
        grid: the students.
        task: its teacher is that of the students without their own.

    Returns:
        A name that is unique within the task -> the teacher. The parts of a mean come before it.
    """
    found: dict[str, Teacher] = {}
    for student in grid.students:
        teacher = student.teacher or task.teacher
        assert teacher is not None  # The reader of the grid reports a missing teacher.
        for one in (*teacher.parts, teacher):
            if one not in found.values():
                name = one.name if one.name not in found else f"{one.name}-{len(found) + 1}"
                found[name] = one
    return found


@dataclass
class _TeacherPlan:
    """A teacher of a task, and the jobs that need it. A mean of several has the plans of its parts."""

    grid: Grid
    output: str
    verbs: Verbs
    task: Task
    teacher: Teacher
    name: str
    parts: Sequence[_TeacherPlan] = ()
    needs: tuple[str, ...] = ()
    cache: str | None = None

    @property
    def model(self) -> str:
        """Where the teacher is, or will be after its training."""
        if self.teacher.settings is None:
            return self.teacher.model
        return str(RunFolder(Path(self._path("teachers"))).model("finetune"))

    def make_teacher_jobs(self, poolings: Sequence[str]) -> list[Job]:
        """Return the teacher's fine-tuning (or scoring, if it is finished) and its pass, if any method needs it."""
        if self.teacher.labels:
            return []
        if self.parts:
            return self._make_scoring_of_mean()
        jobs = [self._make_scoring() if self.teacher.settings is None else self._make_finetuning(self.teacher.settings)]
        if poolings:
            jobs.append(self._make_pass(poolings if self._gives_states else [NO_POOLING]))
        return jobs

    def make_student_jobs(self, student: Student, arm: Arm, needs_teacher: bool) -> list[Job]:
        """Return the runs of one student with one arm: a job for each seed."""
        task = self.task.name
        base = {"method": arm.method, **self._named(needs_teacher)}
        layers: Layers = [
            ("", {"keep_predictions": "answers"}),
            ("settings: ", self.grid.settings),
            (f"tasks.{task}.settings: ", self.task.settings),
            (f"tasks.{task}: ", self._reading() | self._tests() | self._selection()),
            (f"students ({student.name}): ", student.settings),
            (f"methods ({arm.name}): ", arm.settings),
            ("", base),
        ]
        request = self._read("distill", layers)
        needs = [need for plan in self.parts or (self,) for need in plan.needs]
        if needs_teacher:
            needs += [_folder("caches", task, plan.name) for plan in self.parts or (self,) if plan.cache]
        jobs = []
        for seed in self.grid.seeds:
            name = "_".join(slugify(part) for part in (task, student.name, arm.name, str(seed)))
            seeded = request.with_options(output=str(Path(self.output) / "runs" / name)).with_training(seed=seed)
            jobs.append(Job(f"runs/{name}", "distill", task, student.name, arm.name, seed, seeded, tuple(needs)))
        return jobs

    def _named(self, needs_teacher: bool) -> dict[str, Any]:
        """Return the settings of a run that name its teacher, with its caches if the method needs a teacher."""
        plans = self.parts or (self,)
        models = [plan for plan in plans if not plan.teacher.labels]
        found: dict[str, Any] = {"teacher_labels": [plan.model for plan in plans if plan.teacher.labels] or None}
        found |= {"teacher": [plan.model for plan in models] or None}
        found |= {"cache": [plan.cache for plan in models] or None if needs_teacher else None}
        found["teacher_weights"] = list(self.teacher.weights) or None
        return found | {"states_from": str(self.teacher.states + 1) if self.teacher.states else None}

    def _make_finetuning(self, settings: Settings) -> Job:
        base = {"model": self.teacher.model, "output": self._path("teachers"), "keep_predictions": "texts"}
        data = self._tests() | self._selection()
        layers = [
            *self._common("bf16", "metrics"),
            (f"tasks.{self.task.name}: ", data),
            ("teacher: ", settings),
            ("", base),
        ]
        request = self._read("finetune", layers)
        job = self._make_job("teachers", "finetune", "teacher", int(request.training.get("seed", 42)), request)
        self.needs = (job.folder,)
        return job

    def _make_scoring(self) -> Job:
        """Return the job that scores a finished teacher, so that reports can compare its students with it."""
        layers = [
            *self._common("metrics"),
            (f"tasks.{self.task.name}: ", self._tests()),
            ("", {"model": self.teacher.model}),
        ]
        request = self._read("evaluate", layers)
        return self._make_job("teachers", "evaluate", "teacher", 0, request)

    def _make_scoring_of_mean(self) -> list[Job]:
        """Return the job that scores the mean of the parts; none if one is a file, which answers no test rows."""
        if any(plan.teacher.labels for plan in self.parts):
            return []
        base = {"model": [plan.model for plan in self.parts], "model_weights": list(self.teacher.weights) or None}
        layers = [*self._common("metrics"), (f"tasks.{self.task.name}: ", self._tests()), ("", base)]
        request = self._read("evaluate", layers)
        needs = tuple(need for plan in self.parts for need in plan.needs)
        return [replace(self._make_job("teachers", "evaluate", "teacher", 0, request), needs=needs)]

    def _make_pass(self, poolings: Sequence[str]) -> Job:
        self.cache = self._path("caches", "cache")
        stores = self._gives_states  # otherwise its cache holds outputs alone
        base = {"teacher": self.model, "cache": self.cache, "pooling": list(poolings)}
        given = {key: as_list(self.task.data.get(key)) for key in ("train", "unlabelled")}
        rows = {"train": [*given["train"], *(split_share(text)[0] for text in given["unlabelled"])]}
        layers = [
            *self._common("bf16"),
            ("cache: ", {key: value for key, value in self.grid.cache.items() if key != "states_dim" or stores}),
            (f"tasks.{self.task.name}: ", rows),
            ("", base),
        ]
        return self._make_job("caches", "cache", "", 0, self._read("cache", layers))

    def _make_job(self, room: str, kind: str, arm: str, seed: int, request: Request[Any]) -> Job:
        """Return a job of the teacher. It names the students that the teacher teaches, or none if it teaches all."""
        own = {s.name: s.teacher or self.task.teacher for s in self.grid.students}
        students = [name for name, one in own.items() if one and self.teacher in (one, *one.parts)]
        if arm and self.teacher not in own.values():
            arm = f"{TEACHER_PART}{self.name}"
        student = ", ".join(students) if len(students) < len(self.grid.students) else ""
        folder = _folder(room, self.task.name, self.name)
        return Job(folder, kind, self.task.name, student, arm, seed, request, self.needs)

    @property
    def _gives_states(self) -> bool:
        """True if a student of this task reads the states of this teacher."""
        taught = (student.teacher or self.task.teacher for student in self.grid.students)
        return any(teacher is not None and teacher.lead == self.teacher for teacher in taught)

    def _read(self, kind: str, layers: Layers) -> Request[Any]:
        # The checks read ``teacher.model`` in place of a teacher that is not trained yet.
        try:
            request = self.verbs.read(kind, layers)
            replaced: dict[str, Any] = {}
            if kind in ("cache", "distill") and not self.teacher.lead.labels:
                replaced = {"teacher": self.teacher.lead.model}
            if kind == "evaluate" and self.parts:  # teachers of several seeds start from one model
                replaced = {"model": list(dict.fromkeys(p.teacher.model for p in self.parts)), "model_weights": None}
            if kind == "distill":
                replaced |= {"cache": None, "teacher_weights": None, "states_from": None}
            if kind in ("finetune", "distill"):  # the folder of the job may hold a log of an earlier try
                replaced |= {"output": self._path("runs")}
            self.verbs.check(kind, request.with_options(**replaced))
        except RailkdError as error:
            raise RailkdError(str(error).replace(" Fix: see the example in --help.", "")) from None
        return request

    def _common(self, *more: str) -> list[tuple[str, Settings]]:
        """Return the settings that all jobs of a task share: how rows are read, and those named in ``more``."""
        names = {field.name for field in dataclasses.fields(DataOptions)} | {"trust_remote_code", *more}
        given = [("settings: ", self.grid.settings), (f"tasks.{self.task.name}.settings: ", self.task.settings)]
        given.append((f"tasks.{self.task.name}: ", self.task.data))
        return [(where, {key: value for key, value in found.items() if key in names}) for where, found in given]

    def _reading(self) -> dict[str, Any]:
        """Return the settings that say how rows are read, and the unlabelled rows."""
        return {key: value for key, value in self.task.data.items() if key not in ("train", "test", "ood", "eval")}

    def _tests(self) -> dict[str, Any]:
        return {key: self.task.data[key] for key in ("train", "test", "ood") if key in self.task.data}

    def _selection(self) -> dict[str, Any]:
        """Return what chooses the epoch: a file of the task, or else the grid's share of the training rows."""
        return {"eval": self.task.data["eval"]} if "eval" in self.task.data else dict(self.grid.selection)

    def _path(self, room: str, *parts: str) -> str:
        return str(Path(self.output, _folder(room, self.task.name, self.name), *parts))


def _folder(room: str, task: str, name: str) -> str:
    return f"{room}/{slugify(task)}/{slugify(name)}"
