"""Checks that data, student and teacher fit together before training starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from railkd.data.label_names import has_default_names
from railkd.errors import RailkdError
from railkd.models.heads import label_names, problem_type_of
from railkd.teacher import TeacherCache, TeacherInfo


def check_rows(cache: TeacherCache, keys: np.ndarray, pooling: str | None) -> None:
    """Refuse a cache that lacks rows or the pooling, before training starts."""
    if pooling is not None:
        cache.check_pooling(pooling)
    missing = cache.missing(keys, states=pooling is not None)
    if len(missing):
        raise RailkdError(
            f"{len(missing)} of {len(keys)} training rows are not in the cache '{cache.path}' (first: row "
            f"{int(missing[0]) + 1}); "
            "build it again with these rows"
        )


def check_labels(student: Any, teacher: TeacherInfo) -> None:
    """Refuse a pair whose outputs do not mean the same: other count, problem type, names, or another order of them.

    A student that does not say its problem type takes the teacher's.
    """
    ours = label_names(student)
    if len(ours) != len(teacher.labels):
        raise RailkdError(
            f"the student has {len(ours)} outputs, the teacher {len(teacher.labels)} ({', '.join(teacher.labels)}); "
            "make them equal"
        )
    if student.problem_type is None and problem_type_of(student) != teacher.problem_type:
        # A config that says nothing is no contradiction: with as many outputs the student is what its teacher is.
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
