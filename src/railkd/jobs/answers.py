"""The answers of a teacher in a file (``--teacher-labels``): which rows of a job have one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from railkd.data.keys import keys_of
from railkd.data.reading import Reading
from railkd.jobs.options import Say
from railkd.jobs.splits import Splits
from railkd.models.checkpoints import Checkpoint
from railkd.teacher import StoredTeacher, TeacherLabels


def read_teacher_labels(options: Any, file: str) -> TeacherLabels:
    """Read a file of answers as the options of a job say.

    Args:
        options: of a job with `railkd.jobs.options.AnswerOptions`. If its student has the labels of the file, the
            outputs are in the order of the student. In a job without labelled rows, the file must have the columns
            that the options name; elsewhere the rows must.
        file: its name.

    Returns:
        The teacher.
    """
    student = getattr(options, "student", None)
    return TeacherLabels.read(
        file,
        reading=Reading.parse(options.text_column, options.label_column, options.label_map),
        labels=options.labels or (),
        smoothing=options.label_smoothing,
        problem_type=options.problem_type,
        order=Checkpoint.find(student, trust=options.trust_remote_code).labels if student else (),
        beside=any(getattr(options, name, None) for name in ("train", "eval", "test")),
    )


def leave_out_unanswered(splits: Splits, teacher: StoredTeacher, say: Say) -> Splits:
    """Say how many training rows have no answer, and leave out those that have no label either.

    Args:
        splits: the tables of a distillation.
        teacher: a file of answers, or a cache of one.
        say: receives a line for each table with such rows.

    Returns:
        The tables.
    """
    missing = len(teacher.missing(keys_of(splits.train.rows)))
    if missing:
        say(
            f"{teacher.path}: no answer to {missing:,} of {len(splits.train):,} training rows; their labels alone teach"
        )
    if splits.unlabelled is None:
        return splits
    there = np.flatnonzero(teacher.find(keys_of(splits.unlabelled.rows)) >= 0)
    missing = len(splits.unlabelled) - len(there)
    if not missing:
        return splits
    say(f"{teacher.path}: no answer to {missing:,} of {len(splits.unlabelled):,} unlabelled texts; they are left out")
    rows = splits.unlabelled.rows.select(there)
    return replace(splits, unlabelled=replace(splits.unlabelled, rows=rows) if len(there) else None)
