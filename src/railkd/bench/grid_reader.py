"""Reads a grid file. Light: the command line reads it before anything heavy is imported.

Only a list for an option of a method loads the class of the method, which says whether the list is one value.

The reader is strict: it refuses unknown keys, names the nearest known one, and reports all problems together. The
settings of runs are checked later, by the same code as the flags of the command line (`railkd.bench.plan`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from railkd.bench.folders import find_ood_sets, find_splits
from railkd.bench.grid import Arm, Grid, Machine, Settings, Student, Task, Teacher
from railkd.bench.teacher_reader import OWNED, ROWS, TeacherReader, short_name
from railkd.data.spooled import STANDARD_INPUT
from railkd.errors import RailkdError, did_you_mean
from railkd.jobs import settings
from railkd.jobs.options import DataOptions, DistillOptions
from railkd.jobs.settings import Setting, convert, settings_of, shown
from railkd.records import Question

_OF_CACHE = ("dtype", "states_dim", "batch_size", "batch_tokens", "blocks", "teacher_dtype", "teacher_device_map")
_DATA = (*settings_of(DataOptions), *ROWS)
_MOST_ARMS = 1000
#: Of which runs the weights are kept.
KEPT = ("all", "best", "none")
_LISTS = {name for name, setting in settings_of(DistillOptions).items() if setting.many} | {"weights", "freeze"}
_TASK_KEYS = (*_DATA, "teacher", "settings")
_KEYS = (
    *("name", "data", "ood", "tasks", "teacher", "students", "methods", "seeds", "settings", "selection", "cache"),
    *("baseline", "contrasts", "keep_students", "executor", "processes", "threads", "retries", "resources"),
)


def load(path: str | Path, *, trusted: bool = True) -> Grid:
    """Read a grid file. All its problems are raised together, as one `RailkdError`.

    Args:
        path: of the YAML file.
        trusted: False runs no code of a method that the file names by an address.

    Returns:
        The grid.
    """
    return _GridReader(str(path), trusted).read_grid(settings.load(path, flag=""))


class _GridReader(TeacherReader):
    """Turns the mapping of a file into a `Grid`, and collects the problems."""

    def __init__(self, path: str, trusted: bool) -> None:
        super().__init__(path)
        self.trusted = trusted

    def read_grid(self, found: dict[str, Any]) -> Grid:
        self.check_known(found, _KEYS, "")
        self.check_missing(found, "name", "tasks", "students", "methods")
        teacher = self.read_teacher(found.get("teacher"), "teacher")
        selection = self.read_selection(found.get("selection"))
        arms = self.read_arms(found.get("methods"))
        grid = Grid(
            name=self.read_text(found.get("name"), "name") or "grid",
            tasks=self.read_tasks(found, teacher, selection),
            students=self.read_students(found.get("students")),
            arms=arms,
            seeds=self.read_seeds(found.get("seeds", 1)),
            settings=self.read_settings(found.get("settings"), "settings"),
            selection={} if "eval" in selection else selection,
            cache=self.read_mapping(found.get("cache"), "cache", _OF_CACHE),
            baseline=self.read_arm_name(found.get("baseline"), arms, "baseline"),
            contrasts=self.read_contrasts(found.get("contrasts"), arms),
            machine=self.read_machine(found),
            keep_students=self.read_kept(found.get("keep_students", "all")),
        )
        for student in grid.students:
            for task in grid.tasks:
                if student.teacher is None and task.teacher is None:
                    self.problems.add(f"tasks.{task.name}: no teacher is given. Fix: add teacher: {{finetune: MODEL}}")
        self.problems.report()
        return grid

    # ---- tasks -----------------------------------------------------------------------------------

    def read_tasks(self, found: Mapping[str, Any], teacher: Teacher | None, selection: Settings) -> tuple[Task, ...]:
        given = found.get("tasks")
        if isinstance(given, (list, tuple)):  # The short form: names of folders.
            names = self.unique_names([self.read_text(name, "tasks") for name in given], "tasks")
            given = dict.fromkeys(names)
        roots = {key: self.read_text(found[key], key) for key in ("data", "ood") if found.get(key) is not None}
        tasks = self.read_mapping(given, "tasks")
        self.unique_names(list(tasks), "tasks")
        return tuple(
            self.read_task(name, value, roots, teacher, selection)
            for name, value in tasks.items()
            if self.read_text(name, "tasks")
        )

    def read_task(
        self, name: str, value: Any, roots: Mapping[str, str], teacher: Teacher | None, selection: Settings
    ) -> Task:
        where = f"tasks.{name}"
        own = self.read_mapping(value, where, _TASK_KEYS)
        data = {key: own[key] for key in _DATA if own.get(key) is not None}
        if "train" not in data and "data" in roots:
            with self.problems.collect():
                data = find_splits(roots["data"], name, dev_selects="eval" in selection) | data
        elif "train" not in data:
            self.problems.add(f"{where}: expected train: FILE, or 'data: FOLDER' with a folder {name}, got neither")
        if "ood" not in data and "ood" in roots:
            with self.problems.collect():
                data["ood"] = find_ood_sets(roots["ood"], name)
        if "eval" in selection and "eval" not in data and "train" in data:
            self.problems.add(f"{where}: 'selection: {{eval: dev}}' needs an eval file. Fix: add eval: FILE")
        for key in ROWS:
            given = data.get(key)
            texts = given if isinstance(given, list | tuple) else [given]
            if any(str(text).rpartition("=")[2] == STANDARD_INPUT for text in texts):
                self.problems.add(f"{where}.{key}: expected a file, got - (the standard input, which one run can read)")
        if "train" in data and not data.get("test") and not data.get("ood"):
            self.problems.add(f"{where}: no test set to report on is given. Fix: add test: [NAME=FILE]")
        return Task(
            name=name,
            data=data,
            teacher=self.read_teacher(own.get("teacher"), f"{where}.teacher") or teacher,
            settings=self.read_settings(own.get("settings"), f"{where}.settings"),
        )

    def read_selection(self, value: Any) -> Settings:
        if value is None:
            return {"eval_share": 0.1, "eval_seed": 0}
        given = self.read_mapping(value, "selection", ("eval_share", "eval_seed", "eval"))
        if "eval" in given and (given["eval"] != "dev" or len(given) > 1):
            self.problems.add(f"selection: expected 'eval: dev' alone, or eval_share and eval_seed, got {shown(value)}")
        elif "eval" not in given and "eval_share" not in given:
            return {"eval_share": 0.1, **given}
        return given

    # ---- students, methods, seeds ----------------------------------------------------------------

    def read_students(self, value: Any) -> tuple[Student, ...]:
        students = []
        for number, item in enumerate(self.as_list(value), 1):
            where = f"students[{number}]"
            given = self.read_mapping(item, where, ("name", "layers", "keep", "model", "teacher"))
            if "layers" not in given and "model" not in given:
                self.problems.add(f"{where}: expected 'layers: N', or 'model: CHECKPOINT', got neither")
                continue
            parts = [short_name(given["model"])] if isinstance(given.get("model"), str) else []
            parts += [f"{given['layers']}-layers"] if "layers" in given else []
            parts += [f"keep={_in_words(given['keep'])}"] if "keep" in given else []
            name = self.read_text(given.get("name"), f"{where}.name") or " ".join(parts)
            if ", " in name:
                self.problems.add(f"{where}: the name '{name}' holds ', ', which separates names. Fix: rename it")
            fields = {"layers": "student_layers", "keep": "keep", "model": "student"}
            settings = {fields[key]: given[key] for key in fields if key in given}
            students.append(Student(name, settings, self.read_teacher(given.get("teacher"), f"{where}.teacher")))
        self.unique_names([student.name for student in students], "students")
        return tuple(students)

    def read_arms(self, value: Any) -> tuple[Arm, ...]:
        """Return the arms: each method with each combination of its options, in order."""
        found: list[tuple[str, Settings]] = []
        for number, item in enumerate(self.as_list(value), 1):
            where = f"methods[{number}]"
            given = {"name": item} if isinstance(item, str) else dict(self.read_mapping(item, where))
            method = given.pop("name", None)
            if not isinstance(method, str) or not method:
                self.problems.add(f"{where}: expected the name of a method, or {{name: METHOD, option: value, ...}}")
                continue
            self.check_owned(given, OWNED | set(settings_of(DistillOptions)) - {"class_weights"}, where)
            axes = [
                [(name, one) for one in self.list_choices(method, name, options)] for name, options in given.items()
            ]
            count = math.prod(map(len, axes))
            if not 1 <= count <= _MOST_ARMS:
                self.problems.add(f"{where}: expected 1 to {_MOST_ARMS} combinations of options, got {count:,}")
                continue
            found += [(method, dict(choice)) for choice in itertools.product(*axes)]
        methods = [method for method, _ in found]
        arms = [
            Arm(
                _arm_name(_short_address(method, methods), chosen, [other for name, other in found if name == method]),
                method,
                chosen,
            )
            for method, chosen in found
        ]
        self.unique_names([arm.name for arm in arms], "methods")
        return tuple(arms)

    def list_choices(self, method: str, name: str, value: Any) -> list[Any]:
        """Return the values of an option. Where it takes a list, only a list of lists holds several values."""
        if not isinstance(value, list):
            return [value]
        flat = not any(isinstance(item, list) for item in value)
        return [value] if flat and (name in _LISTS or self.takes_list(method, name)) else value

    def takes_list(self, method: str, name: str) -> bool:
        """Return whether an option of a method takes a list; False for a method that the plan will refuse."""
        from railkd.objectives import method_spec
        from railkd.runtime.addresses import is_address

        if is_address(method) and not self.trusted:
            return False
        try:
            option = method_spec(method).parameters.get(name)
        except RailkdError:
            return False
        return option is not None and option.many

    def read_settings(self, value: Any, where: str) -> Settings:
        given = self.read_mapping(value, where)
        self.check_owned(given, OWNED, where)
        return given

    def read_contrasts(self, value: Any, arms: Sequence[Arm]) -> tuple[Question, ...]:
        contrasts = []
        for number, item in enumerate(self.as_list(value), 1):
            where = f"contrasts[{number}]"
            given = self.read_mapping(item, where, ("name", "arm", "baseline", "domain"))
            self.check_missing(given, "name", "arm", "baseline", where=where)
            domain = given.get("domain", "in")
            if domain not in ("in", "out"):
                self.problems.add(f"{where}.domain: expected in or out, got {shown(domain)}")
            arm = self.read_arm_name(given.get("arm"), arms, f"{where}.arm") or ""
            baseline = self.read_arm_name(given.get("baseline"), arms, f"{where}.baseline") or ""
            name = self.read_text(given.get("name"), f"{where}.name")
            contrasts.append(Question(name, arm, baseline, str(domain)))
        self.unique_names([contrast.name for contrast in contrasts], "contrasts")
        return tuple(contrasts)

    def read_arm_name(self, value: Any, arms: Sequence[Arm], where: str) -> str | None:
        known = [arm.name for arm in arms]
        if value is not None and value not in known:
            near = did_you_mean(str(shown(value)), known)
            self.problems.add(f"{where}: expected an arm ({', '.join(known)}), got {shown(value)}.{near}")
        return value if isinstance(value, str) else None

    def read_kept(self, value: Any) -> str:
        if value not in KEPT:
            self.problems.add(f"keep_students: expected {', '.join(KEPT[:-1])} or {KEPT[-1]}, got {shown(value)}")
            return KEPT[0]
        return str(value)

    def read_machine(self, found: Mapping[str, Any]) -> Machine:
        resources = self.read_mapping(found.get("resources"), "resources", ("cpus", "gpus"))
        given = {key: found[key] for key in ("executor", "processes", "threads", "retries") if key in found}
        given |= {name: resources[key] for key, name in (("cpus", "threads"), ("gpus", "gpus")) if key in resources}
        values: dict[str, Any] = {}
        for name, value in given.items():
            kind = {"executor": str, "gpus": float}.get(name, int)
            choices = ("local", "ray") if name == "executor" else None
            least = 0 if name in ("retries", "gpus") else 1
            with self.problems.collect():
                values[name] = convert(Setting(name, kind, choices=choices), value, name)
                if kind is not str and not least <= values[name] < 10**6:
                    raise RailkdError(f"{name}: expected {least} or more, got {value}")
        return Machine(**values)


def _arm_name(method: str, chosen: Settings, siblings: Sequence[Settings]) -> str:
    """Return the method with the options in which this arm differs from its others."""
    differing = [
        f"{key}={_in_words(value)}"
        for key, value in chosen.items()
        if any(shown(other.get(key)) != shown(value) for other in siblings)
    ]
    return " ".join([method, *differing])


def _short_address(method: str, methods: Sequence[str]) -> str:
    """Return an address without the folders of its file, except those that tell it from other addresses."""
    place, _, attribute = method.rpartition(":")
    if not place:
        return method
    parts = Path(place).parts
    others = [Path(other.rpartition(":")[0]).parts for other in methods if other.endswith(f":{attribute}")]
    others = [other for other in others if other != parts]
    counts = range(1, len(parts) + 1)
    count = next((n for n in counts if all(other[-n:] != parts[-n:] for other in others)), len(parts))
    return f"{Path(*parts[-count:]).as_posix()}:{attribute}"


def _in_words(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else shown(value).strip("'")
