"""The teachers that the settings of a job name: checkpoints, their caches, further caches, and files of answers.

The n-th cache belongs to the n-th checkpoint. Caches beyond the checkpoints are teachers of their own. Light: the early
checks and the records read this before torch is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from railkd.errors import Problems, RailkdError, did_you_mean

#: Starts the name of one of several teachers among the contents of a record, before its number.
PART = "teacher "


@dataclass(frozen=True)
class NamedTeacher:
    """One teacher, as the user names it.

    Attributes:
        model: a checkpoint; None: there is none.
        cache: of the checkpoint, or a teacher of its own without one; None: there is none.
        labels: a file of answers in place of both.
    """

    model: str | None = None
    cache: str | None = None
    labels: str | None = None

    @property
    def name(self) -> str:
        """The checkpoint, otherwise the cache or the file."""
        return str(self.model or self.cache or self.labels)


def as_list(value: Any) -> list[str]:
    """Return the values of a setting that takes one or several, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def named_teachers(settings: Mapping[str, Any] | Any) -> list[NamedTeacher]:
    """Return the teachers in the order of their weights: checkpoints, further caches, files of answers.

    Args:
        settings: options of a job, or its settings by name as a record holds them.
    """
    found = settings if isinstance(settings, Mapping) else vars(settings)
    models, caches, files = (as_list(found.get(name)) for name in ("teacher", "cache", "teacher_labels"))
    own = [*caches[: len(models)], *[None] * (len(models) - len(caches))]
    teachers = [NamedTeacher(model, cache) for model, cache in zip(models, own, strict=True)]
    teachers += [NamedTeacher(cache=cache) for cache in caches[len(models) :]]
    return teachers + [NamedTeacher(labels=file) for file in files]


def states_number(settings: Any, teachers: list[NamedTeacher]) -> int | None:
    """Return the number, from 0, of the teacher that ``--states-from`` names; None: the flag is not given.

    Args:
        settings: options of a job.
        teachers: those that they name.

    Raises:
        RailkdError: no teacher has this name or number, or it is a file of answers.
    """
    asked = getattr(settings, "states_from", None)  # a teacher pass has one teacher
    if asked is None:
        return None
    names = [teacher.name for teacher in teachers]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    known = names if asked in names else numbers
    if asked not in known:
        raise RailkdError(
            f"--states-from: expected one of the teachers ({', '.join(names)}) or its number, got '{asked}'."
            f"{did_you_mean(asked, names)}"
        )
    if teachers[known.index(asked)].labels:
        raise RailkdError(
            f"--states-from: '{asked}' is a file of answers, which has no states of blocks. Fix: name a checkpoint or "
            "a cache"
        )
    return known.index(asked)


def start_model(settings: Any) -> str | None:
    """Return the checkpoint that a student without its own starts from: that of the states, or else the first.

    Args:
        settings: options of a job.
    """
    teachers = named_teachers(settings)
    try:
        number = states_number(settings, teachers) or 0
    except RailkdError:  # `check_teachers` reports it
        number = 0
    found = (teacher.model for teacher in (*teachers[number : number + 1], *teachers))
    return next((model for model in found if model is not None), None)


def check_teachers(problems: Problems, options: Any) -> None:
    """Check that the teachers of a distillation or a check fit together, as far as names and numbers tell.

    Args:
        problems: collects what is wrong.
        options: of the job.
    """
    teachers = named_teachers(options)
    models, caches = as_list(options.teacher), as_list(options.cache)
    if len(teachers) < 2:
        for name in ("teacher_weights", "states_from"):
            if getattr(options, name) is not None:
                problems.add(f"--{name.replace('_', '-')} has no effect on one teacher. Fix: leave it out")
        return
    for flag, texts in (("--teacher", models), ("--cache", caches), ("--teacher-labels", options.teacher_labels)):
        check_once(problems, flag, as_list(texts), "--teacher-weights")
    if 0 < len(caches) < len(models):
        problems.add(
            f"--cache: expected one for each of {len(models)} --teacher, in their order, or none, got {len(caches)}"
        )
    for cache in caches[len(models) :]:
        if not Path(cache).is_dir():
            problems.add(f"--cache: no folder '{cache}'. Fix: check the path, or give --teacher to build the cache")
    if getattr(options, "live", False):
        problems.add(
            f"--live runs one teacher at every step, got {len(teachers)} teachers. Fix: leave it out, so that each "
            "runs once, into its cache"
        )
    check_weights(problems, "--teacher-weights", options.teacher_weights, [teacher.name for teacher in teachers])
    with problems.collect():
        states_number(options, teachers)


def check_once(problems: Problems, flag: str, names: Sequence[str], weights: str) -> None:
    """Check that no teacher, cache or model is given twice.

    Args:
        problems: collects what is wrong.
        flag: that gave them.
        names: of them.
        weights: the flag that says which of them counts more.
    """
    places = [os.path.realpath(name) for name in names]
    for name in sorted({name for name in names if places.count(os.path.realpath(name)) > 1}):
        problems.add(f"{flag}: '{name}' is given twice. Fix: name it once, and give {weights}")


def check_weights(problems: Problems, flag: str, weights: Sequence[float] | None, names: Sequence[str]) -> None:
    """Check the weights of several teachers or models.

    Args:
        problems: collects what is wrong.
        flag: that gave them.
        weights: None: equal.
        names: of the teachers or models, in the order of the weights.
    """
    if weights is None:
        return
    if len(weights) != len(names):
        problems.add(f"{flag}: expected {len(names)} numbers, in the order {', '.join(names)}, got {len(weights)}")
    if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
        shown = ", ".join(f"{weight:g}" for weight in weights)
        problems.add(f"{flag}: expected finite numbers of 0 or more, not all 0, got {shown}")
