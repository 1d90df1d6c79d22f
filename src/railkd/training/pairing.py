"""Check that data, student and teacher fit together before training starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from railkd.data.label_names import has_default_names
from railkd.errors import RailkdError
from railkd.models.heads import label_names, problem_type_of
from railkd.objectives import METHODS, Objective
from railkd.teacher import StoredTeacher, TeacherInfo


def check_rows(cache: StoredTeacher, keys: np.ndarray, pooling: str | None) -> None:
    """Check that a teacher holds the training rows and the pooling. A file of labels may lack some of the rows.

    Args:
        cache: the teacher.
        keys: example keys of the training rows, (N, 2).
        pooling: pooling of the states that the method reads. None if it reads no states.

    Raises:
        RailkdError: the teacher lacks rows or the pooling.
    """
    if pooling is not None:
        cache.check_pooling(pooling)
    missing = cache.missing(keys, states=pooling is not None)
    if cache.gaps and len(missing) == len(keys):
        raise RailkdError(
            f"Expected answers to the training rows in '{cache.path}', got none to {len(keys):,} rows. Fix: check that "
            "both files hold the same texts, letter by letter, and name their columns with --text-column."
        )
    if len(missing) and not cache.gaps:
        held = ((part, part.missing(keys)) for part in cache.parts if not part.gaps)
        path, missing = next(((part.path, found) for part, found in held if len(found)), (cache.path, missing))
        raise RailkdError(
            f"{len(missing)} of {len(keys)} training rows are not in the cache '{path}' (first: row "
            f"{int(missing[0]) + 1}); "
            "build it again with these rows"
        )


def check_components(method: str, objective: type[Objective] | Objective, dim: int | None) -> None:
    """Refuse principal components for a method that learns the teacher's states number by number.

    Args:
        method: its name.
        objective: of the method.
        dim: number of components that the cache keeps; None: whole states.

    Raises:
        RailkdError: the method needs whole states.
    """
    if dim is not None and objective.own_coordinates:
        fitting = [name for name, spec in METHODS.items() if spec.pooling and not spec.objective.own_coordinates]
        raise RailkdError(
            f"Expected whole states for {method}, which learns them number by number, got a cache of {dim} principal "
            f"components. Fix: build a cache without --states-dim, or take one of {', '.join(fitting)}."
        )


def check_labels(student: Any, teacher: TeacherInfo) -> None:
    """Check that the outputs of student and teacher have the same meaning.

    A student whose config has no problem type takes that of the teacher.

    Args:
        student: config of the student. Its ``problem_type`` may be changed.
        teacher: description of the teacher.

    Raises:
        RailkdError: the number of outputs, the problem types, the label names or their order differ.
    """
    ours = label_names(student)
    if len(ours) != len(teacher.labels):
        raise RailkdError(
            f"the student has {len(ours)} outputs, the teacher {len(teacher.labels)} ({', '.join(teacher.labels)}); "
            "make them equal"
        )
    if student.problem_type is None and problem_type_of(student) != teacher.problem_type:
        # The student's config leaves the problem type open. The number of outputs is equal, so take the teacher's.
        student.problem_type = teacher.problem_type
    if problem_type_of(student) != teacher.problem_type:
        raise RailkdError(
            f"got a student whose problem_type is {problem_type_of(student)} and a teacher whose is "
            f"{teacher.problem_type}; wanted the same; set the student's config.problem_type to the teacher's, or "
            "take another teacher"
        )
    if has_default_names(ours) or has_default_names(teacher.labels) or ours == teacher.labels:
        return
    what = "in another order" if sorted(ours) == sorted(teacher.labels) else "with other names"
    raise RailkdError(
        f"student and teacher have their labels {what}: student {', '.join(ours)}; teacher "
        f"{', '.join(teacher.labels)}; "
        "set the student's id2label and label2id to the teacher's"
    )
