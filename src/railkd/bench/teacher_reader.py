"""Reads the teachers of a grid file: one, or several whose mean is the teacher."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from railkd.bench.grid import Teacher
from railkd.bench.yaml_reader import YamlReader, slugify
from railkd.jobs import settings
from railkd.jobs.settings import shown

#: Settings that name rows.
ROWS = ("train", "test", "ood", "eval", "unlabelled")
_MODELS = (
    *("teacher", "teacher_labels", "teacher_weights", "states_from", "student", "student_layers", "keep"),
    *("cache", "cache_dtype", "states_dim", "pooling", "live"),
)
_RUN = ("method", "seed", "eval_share", "eval_seed", "output", "overwrite", "resume", "quiet")
#: Settings that the grid decides, so that ``settings`` must not hold them.
OWNED = frozenset((*ROWS, *_MODELS, *_RUN)) | settings.FLAGS_ONLY
_TEACHER = (
    "expected the folder of a finished teacher, 'finetune: MODEL' and its settings, or 'labels: FILE' with its answers"
)


class TeacherReader(YamlReader):
    """Reads teachers and seeds, and collects the problems."""

    def read_teacher(self, value: Any, where: str) -> Teacher | None:
        """Return the teacher that a value gives; None if there is none, or if it cannot be read."""
        if value is None:
            return None
        if isinstance(value, (list, tuple)):
            return self.read_mean({"mean": value}, where)
        if isinstance(value, Mapping) and "mean" in value:
            return self.read_mean(self.read_mapping(value, where, ("mean", "weights", "states_from")), where)
        return self.read_one(value, where)

    def read_one(self, value: Any, where: str) -> Teacher | None:
        """Return one teacher, or the mean of those of several seeds."""
        if isinstance(value, str):
            return Teacher(short_name(value), value)
        found = dict(self.read_mapping(value, where))
        if "labels" in found:
            file = self.read_text(self.read_mapping(value, where, ("labels",)).get("labels"), f"{where}.labels")
            return Teacher(short_name(file), file, labels=True) if file else None
        model, seeds = found.pop("finetune", None), found.pop("seeds", None)
        if not isinstance(model, str) or not model:
            self.problems.add(f"{where}: {_TEACHER}")
            return None
        self.check_owned(found, OWNED - {"seed"}, where)
        name = short_name(model)
        if seeds is None:
            return Teacher(name, model, found)
        if "seed" in found:
            self.problems.add(f"{where}: 'seed' and 'seeds' exclude each other. Fix: keep one")
        numbers = self.read_seeds(seeds, f"{where}.seeds")
        every = [Teacher(f"{name}-seed-{seed}", model, {**found, "seed": seed}) for seed in numbers]
        return Teacher(name, "", parts=tuple(every)) if every[1:] else every[0]

    def read_mean(self, given: Mapping[str, Any], where: str) -> Teacher | None:
        """Return the mean of several teachers. Those of several seeds share the weight of their line."""
        lines = self.as_list(given["mean"])
        read = [self.read_one(line, f"{where}[{number}]") for number, line in enumerate(lines, 1)]
        weights = self.read_weights(given.get("weights"), len(lines), f"{where}.weights")
        states = self.read_states(given.get("states_from"), lines, f"{where}.states_from")
        if len(lines) < 2:
            self.problems.add(f"{where}: expected two teachers or more in a list, got {len(lines)}")
        if None in read or len(lines) < 2:
            return None
        parts = [
            (part, weight / len(teacher.parts or (teacher,)), number)
            for number, (teacher, weight) in enumerate(zip(filter(None, read), weights, strict=True))
            for part in teacher.parts or (teacher,)
        ]
        parts.sort(key=lambda part: part[0].labels)  # checkpoints first, as --teacher and --teacher-labels stand
        self.unique_names([part.model + str(part.settings) for part, _, _ in parts], where)
        lead = next((place for place, part in enumerate(parts) if part[2] == states), 0)
        shares = tuple(weight for _, weight, _ in parts)
        shares = shares if len(set(shares)) > 1 else ()
        return Teacher("mean", "", parts=tuple(part for part, _, _ in parts), weights=shares, states=lead)

    def read_weights(self, value: Any, count: int, where: str) -> list[float]:
        """Return one weight for each teacher; equal ones if none are given."""
        if value is None:
            return [1.0] * count
        given = value if isinstance(value, list) else [value]
        numbers = [one for one in given if isinstance(one, (int, float)) and not isinstance(one, bool)]
        if len(numbers) == len(given) == count and all(0 <= one < math.inf for one in numbers) and any(numbers):
            return [float(one) for one in numbers]
        self.problems.add(
            f"{where}: expected {count} finite numbers of 0 or more, not all 0, as many as teachers, got {shown(value)}"
        )
        return [1.0] * count

    def read_states(self, value: Any, lines: list[Any], where: str) -> int | None:
        """Return the number of the line, from 0, that gives the states; None if none is named."""
        if value is None:
            return None
        named = [place for place, line in enumerate(lines) if value == line or str(value) == str(place + 1)]
        if not named or (isinstance(lines[named[0]], Mapping) and "labels" in lines[named[0]]):
            self.problems.add(
                f"{where}: expected one of the teachers as it is given, or its number from 1, and no file of answers, "
                f"got {shown(value)}"
            )
            return None
        return named[0]

    # ---- what other readers need -----------------------------------------------------------------

    def read_seeds(self, value: Any, where: str = "seeds") -> tuple[int, ...]:
        """Return the seeds that a number or a list gives."""
        if is_seed(value) and 1 <= value <= 1000:
            return tuple(range(1, value + 1))
        if not isinstance(value, list) or not value or not all(map(is_seed, value)):
            self.problems.add(
                f"{where}: expected the number of seeds, or a list of whole numbers from 0, got {shown(value)}"
            )
            return (1,)
        self.unique_names([str(seed) for seed in value], where)
        return tuple(value)

    def check_owned(self, given: Mapping[str, Any], names: Iterable[str], where: str) -> None:
        """Report settings that have a key of their own in the grid, or that all arms share."""
        for key in given:
            if settings.SPELLINGS.get(key, key) not in names:
                continue
            if key in settings.FLAGS_ONLY:
                self.problems.add(f"{where}.{key}: it has no effect in a file. Fix: remove it")
            elif where.startswith("methods"):
                self.problems.add(f"{where}.{key}: not an option of a method. Fix: give it under settings")
            else:
                self.problems.add(f"{where}.{key}: the grid decides this. Fix: see tasks, students, methods and seeds")

    # ---- comparisons, machine --------------------------------------------------------------------


def is_seed(value: Any) -> bool:
    """Return whether a value can be a seed."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def short_name(model: str) -> str:
    """Return the last part of a hub name or path; of a model in a run folder, the name of the run."""
    path = Path(model)
    parts = [part for part in path.parts if part not in ("/", ".", "..", "model", "student")]
    return slugify(parts[-1] if parts else model)
