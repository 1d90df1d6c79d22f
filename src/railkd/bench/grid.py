"""The grid file: tasks x students x methods x seeds, as a user writes them. Light: read before anything heavy.

Strict: a key that is not known is refused with the nearest one that is, and all that is wrong is said together. What
stands among the settings is judged later, by the same code as the flags of the command line (`railkd.bench.plan`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from railkd.bench.folders import out_of_domain_sets, splits_of
from railkd.bench.yaml_reader import Reader, slug
from railkd.errors import RailkdError, did_you_mean
from railkd.jobs import settings
from railkd.jobs.options import DataOptions, DistillOptions
from railkd.jobs.settings import Setting, convert, settings_of, shown

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Teacher:
    """Of a task. ``model``: the checkpoint to fine-tune by ``settings``; without settings, a finished teacher."""

    name: str
    model: str
    settings: Settings | None = None


@dataclass(frozen=True)
class Task:
    """Data and teacher of a task. ``data``: where the rows are and how they are read. ``settings``: of its runs."""

    name: str
    data: Settings
    teacher: Teacher | None
    settings: Settings


@dataclass(frozen=True)
class Student:
    """What a run starts from. ``teacher``: its own; None: the task's."""

    name: str
    settings: Settings
    teacher: Teacher | None = None


@dataclass(frozen=True)
class Arm:
    """A method with its options."""

    name: str
    method: str
    settings: Settings


@dataclass(frozen=True)
class Contrast:
    """A comparison that was named before the runs."""

    name: str
    arm: str
    baseline: str
    domain: str = "in"


@dataclass(frozen=True)
class Machine:
    """Where the runs go, unless the command line says otherwise.

    Attributes:
        processes: runs at a time; None: one. threads: of each; None: the cores shared out.
        retries: how often a run is tried again whose process died. gpus: of a run, also a fraction.
    """

    executor: str = "local"
    processes: int | None = None
    threads: int | None = None
    retries: int = 2
    gpus: float = 0.0


@dataclass(frozen=True)
class Grid:
    """A grid file, read."""

    name: str
    tasks: tuple[Task, ...]
    students: tuple[Student, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    settings: Settings = field(default_factory=dict)
    selection: Settings = field(default_factory=dict)
    cache: Settings = field(default_factory=dict)
    baseline: str | None = None
    contrasts: tuple[Contrast, ...] = ()
    machine: Machine = Machine()


_ROWS = ("train", "test", "ood", "eval", "unlabelled")
_MODELS = ("teacher", "student", "student_layers", "keep", "cache", "pooling", "live")
#: What the grid itself decides, and its settings may not.
OWNED = frozenset(
    (*_ROWS, *_MODELS, *("method", "seed", "eval_share", "eval_seed", "output", "overwrite", "resume", "quiet"))
)
_DATA = (*settings_of(DataOptions), *_ROWS)
_MOST_ARMS = 1000
_MANY = {name for name, setting in settings_of(DistillOptions).items() if setting.many} | {"weights"}
_TASK_KEYS = (*_DATA, "teacher", "settings")
_KEYS = (
    *("name", "data", "ood", "tasks", "teacher", "students", "methods", "seeds", "settings", "selection", "cache"),
    *("baseline", "contrasts", "executor", "processes", "threads", "retries", "resources"),
)


def names() -> list[str]:
    """The grids that come with railkd."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def text_of(name: str) -> str:
    """The text of a grid that comes with railkd."""
    if name not in names():
        raise RailkdError(f"--copy: no grid '{name}'; there: {', '.join(names())}.{did_you_mean(name, names())}")
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def load(path: str | Path) -> Grid:
    """Read a grid file.

    Raises:
        RailkdError: all that is wrong with it.
    """
    return _Reader(str(path)).grid(settings.load(path, flag=""))


def _folder() -> Any:
    return resources.files("railkd.bench") / "grids"


class _Reader(Reader):
    """Turns the mapping of a file into a `Grid`, collecting what is wrong."""

    def grid(self, found: dict[str, Any]) -> Grid:
        self.known(found, _KEYS, "")
        self.missing(found, "name", "tasks", "students", "methods")
        teacher = self.teacher(found.get("teacher"), "teacher")
        selection = self.selection(found.get("selection"))
        arms = self.arms(found.get("methods"))
        grid = Grid(
            name=self.text(found.get("name"), "name") or "grid",
            tasks=self.tasks(found, teacher, selection),
            students=self.students(found.get("students")),
            arms=arms,
            seeds=self.seeds(found.get("seeds", 1)),
            settings=self.settings(found.get("settings"), "settings"),
            selection={} if "eval" in selection else selection,
            cache=self.mapping(found.get("cache"), "cache", ("dtype", "batch_size", "blocks")),
            baseline=self.arm_name(found.get("baseline"), arms, "baseline"),
            contrasts=self.contrasts(found.get("contrasts"), arms),
            machine=self.machine(found),
        )
        for student in grid.students:
            for task in grid.tasks:
                if student.teacher is None and task.teacher is None:
                    self.problems.add(f"tasks.{task.name}: has no teacher; add teacher: {{finetune: MODEL}}")
        self.problems.report()
        return grid

    # ---- tasks -----------------------------------------------------------------------------------

    def tasks(self, found: Mapping[str, Any], teacher: Teacher | None, selection: Settings) -> tuple[Task, ...]:
        given = found.get("tasks")
        if isinstance(given, (list, tuple)):  # the short form: names of folders
            given = dict.fromkeys(self.unique([self.text(name, "tasks") for name in given], "tasks"))
        tasks = []
        roots = {key: self.text(found[key], key) for key in ("data", "ood") if found.get(key) is not None}
        named = self.mapping(given, "tasks")
        self.unique(list(named), "tasks")
        for name, value in named.items():
            if not self.text(name, "tasks"):
                continue
            where = f"tasks.{name}"
            own = self.mapping(value, where, _TASK_KEYS)
            data = {key: own[key] for key in _DATA if own.get(key) is not None}
            if "train" not in data and "data" not in roots:
                self.problems.add(f"{where}: has no train; wanted a file, or 'data: FOLDER' with a folder {name}")
            elif "train" not in data:
                with self.problems.collect():
                    data = splits_of(roots["data"], str(name), dev_selects="eval" in selection) | data
            if "ood" not in data and "ood" in roots:
                with self.problems.collect():
                    data["ood"] = out_of_domain_sets(roots["ood"], str(name))
            if "eval" in selection and "eval" not in data and "train" in data:
                self.problems.add(f"{where}: selection is 'eval: dev', but it has no eval; name a file")
            if "train" in data and not data.get("test") and not data.get("ood"):
                self.problems.add(f"{where}: has no test set to report on; add test: [NAME=FILE]")
            tasks.append(
                Task(
                    name=str(name),
                    data=data,
                    teacher=self.teacher(own.get("teacher"), f"{where}.teacher") or teacher,
                    settings=self.settings(own.get("settings"), f"{where}.settings"),
                )
            )
        return tuple(tasks)

    def teacher(self, value: Any, where: str) -> Teacher | None:
        if value is None:
            return None
        if isinstance(value, str):
            return Teacher(_name_of(value), value)
        settings = dict(self.mapping(value, where))
        model = settings.pop("finetune", None)
        if not isinstance(model, str) or not model:
            self.problems.add(
                f"{where}: wanted the folder of a finished teacher, or 'finetune: MODEL' and its settings"
            )
            return None
        self.owned(settings, OWNED - {"seed"}, where)
        return Teacher(_name_of(model), model, settings)

    def selection(self, value: Any) -> Settings:
        if value is None:
            return {"eval_share": 0.1, "eval_seed": 0}
        given = self.mapping(value, "selection", ("eval_share", "eval_seed", "eval"))
        if "eval" in given and (given["eval"] != "dev" or len(given) > 1):
            self.problems.add("selection: wanted 'eval: dev' alone, or eval_share and eval_seed")
        elif "eval" not in given and "eval_share" not in given:
            return {"eval_share": 0.1, **given}
        return given

    # ---- students, methods, seeds ----------------------------------------------------------------

    def students(self, value: Any) -> tuple[Student, ...]:
        found = []
        for number, item in enumerate(self.list_of(value, "students"), 1):
            where = f"students[{number}]"
            given = self.mapping(item, where, ("name", "layers", "keep", "model", "teacher"))
            if "layers" not in given and "model" not in given:
                self.problems.add(f"{where}: wanted 'layers: N', or 'model: CHECKPOINT'")
                continue
            parts = [_name_of(given["model"])] if isinstance(given.get("model"), str) else []
            parts += [f"{given['layers']}-layers"] if "layers" in given else []
            parts += [f"keep={_word(given['keep'])}"] if "keep" in given else []
            name = self.text(given.get("name"), f"{where}.name") or " ".join(parts)
            if ", " in name:
                self.problems.add(f"{where}: got the name '{name}', wanted one without ', ' (it parts names)")
            words = {"layers": "student_layers", "keep": "keep", "model": "student"}
            settings = {words[key]: given[key] for key in words if key in given}
            found.append(Student(name, settings, self.teacher(given.get("teacher"), f"{where}.teacher")))
        self.unique([student.name for student in found], "students")
        return tuple(found)

    def arms(self, value: Any) -> tuple[Arm, ...]:
        """Methods and their grids of options, in order; an arm is named by the options in which it differs."""
        found: list[tuple[str, Settings]] = []
        for number, item in enumerate(self.list_of(value, "methods"), 1):
            where = f"methods[{number}]"
            given = {"name": item} if isinstance(item, str) else dict(self.mapping(item, where))
            method = given.pop("name", None)
            if not isinstance(method, str) or not method:
                self.problems.add(f"{where}: wanted the name of a method, or {{name: METHOD, option: value, ...}}")
                continue
            self.owned(given, OWNED | set(settings_of(DistillOptions)), where)
            axes = [[(name, one) for one in _choices(name, options)] for name, options in given.items()]
            count = math.prod(map(len, axes))
            if not 1 <= count <= _MOST_ARMS:
                self.problems.add(f"{where}: got {count:,} combinations of options, wanted 1 to {_MOST_ARMS}")
                continue
            found += [(method, dict(choice)) for choice in itertools.product(*axes)]
        arms = []
        for method, chosen in found:
            siblings = [theirs for other, theirs in found if other == method]
            differing = [
                f"{key}={_word(value)}"
                for key, value in chosen.items()
                if any(shown(theirs.get(key)) != shown(value) for theirs in siblings)
            ]
            arms.append(Arm(" ".join([method, *differing]), method, chosen))
        self.unique([arm.name for arm in arms], "methods")
        return tuple(arms)

    def seeds(self, value: Any) -> tuple[int, ...]:
        if _is_seed(value) and 1 <= value <= 1000:
            return tuple(range(1, value + 1))
        if not isinstance(value, list) or not value or not all(map(_is_seed, value)):
            self.problems.add(f"seeds: got {shown(value)}, wanted a number of seeds, or a list of whole numbers from 0")
            return (1,)
        self.unique([str(seed) for seed in value], "seeds")
        return tuple(value)

    def settings(self, value: Any, where: str) -> Settings:
        given = self.mapping(value, where)
        self.owned(given, OWNED, where)
        return given

    def owned(self, given: Mapping[str, Any], names: Iterable[str], where: str) -> None:
        """Settings that have a place of their own in the grid, or are shared by all arms."""
        for key in given:
            meant = settings.SPELLINGS.get(key, key)
            if meant in names and where.startswith("methods"):
                self.problems.add(f"{where}.{key}: is no option of a method; it belongs to the grid or to its settings")
            elif meant in names:
                self.problems.add(f"{where}.{key}: is decided by the grid: see tasks, students, methods and seeds")

    # ---- comparisons, machine --------------------------------------------------------------------

    def contrasts(self, value: Any, arms: Sequence[Arm]) -> tuple[Contrast, ...]:
        found = []
        for number, item in enumerate(self.list_of(value, "contrasts") if value is not None else (), 1):
            where = f"contrasts[{number}]"
            given = self.mapping(item, where, ("name", "arm", "baseline", "domain"))
            self.missing(given, "name", "arm", "baseline", where=where)
            domain = given.get("domain", "in")
            if domain not in ("in", "out"):
                self.problems.add(f"{where}.domain: got {shown(domain)}, wanted in or out")
            arm = self.arm_name(given.get("arm"), arms, f"{where}.arm") or ""
            baseline = self.arm_name(given.get("baseline"), arms, f"{where}.baseline") or ""
            found.append(Contrast(self.text(given.get("name"), f"{where}.name"), arm, baseline, str(domain)))
        self.unique([contrast.name for contrast in found], "contrasts")
        return tuple(found)

    def arm_name(self, value: Any, arms: Sequence[Arm], where: str) -> str | None:
        known = [arm.name for arm in arms]
        if value is not None and value not in known:
            near = did_you_mean(str(shown(value)), known)
            self.problems.add(f"{where}: got {shown(value)}, wanted an arm: {', '.join(known)}.{near}")
        return value if isinstance(value, str) else None

    def machine(self, found: Mapping[str, Any]) -> Machine:
        resources_ = self.mapping(found.get("resources"), "resources", ("cpus", "gpus"))
        given = {key: found[key] for key in ("executor", "processes", "threads", "retries") if key in found}
        if "cpus" in resources_:
            given["threads"] = resources_["cpus"]
        if "gpus" in resources_:
            given["gpus"] = resources_["gpus"]
        values: dict[str, Any] = {}
        for name, value in given.items():
            kind = {"executor": str, "gpus": float}.get(name, int)
            choices = ("local", "ray") if name == "executor" else None
            with self.problems.collect():
                values[name] = convert(Setting(name, kind, choices=choices), value, name)
                if kind is not str and not (0 if name in ("retries", "gpus") else 1) <= values[name] < 10**6:
                    raise RailkdError(
                        f"{name}: got {value}, wanted {'0' if name in ('retries', 'gpus') else '1'} or more"
                    )
        return Machine(**values)


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _choices(name: str, value: Any) -> list[Any]:
    """One value, or a list of them; a list is one value of a setting that takes lists."""
    if not isinstance(value, list):
        return [value]
    if name in _MANY and not any(isinstance(item, list) for item in value):
        return [value]
    return value


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else shown(value).strip("'")


def _name_of(model: str) -> str:
    """``org/name`` -> ``name``; of a run's folder the name of the run."""
    path = Path(model)
    parts = [part for part in path.parts if part not in ("/", ".", "..", "model", "student")]
    return slug(parts[-1] if parts else model)
