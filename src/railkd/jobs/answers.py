"""Reads the answers of a teacher in a file (``--teacher-labels``) as the options of a job say."""

from __future__ import annotations

from typing import Any

from railkd.data.first_rows import read_first_rows
from railkd.data.reading import Reading
from railkd.errors import RailkdError
from railkd.jobs.splits import Sources, TableReader
from railkd.models.checkpoints import Checkpoint
from railkd.tasks.target import Target
from railkd.teacher import TeacherLabels

#: Training rows of each class that say the kind of task.
_ROWS = 64


def read_teacher_labels(options: Any, file: str, problem_type: str | None = None) -> TeacherLabels:
    """Read a file of answers as the options of a job say.

    Args:
        options: of a job with `railkd.jobs.options.AnswerOptions`. If its student has the labels of the file, the
            outputs are in the order of the student. In a job without labelled rows, the file must have the columns
            that the options name; elsewhere the rows must.
        file: its name.
        problem_type: kind of task where the options do not name one; None: the training rows say whether several labels
            apply to a row, and the file decides the rest.

    Returns:
        The teacher.
    """
    student = getattr(options, "student", None)
    return TeacherLabels.read(
        file,
        reading=Reading.parse(options.text_column, options.label_column, options.label_map),
        labels=options.labels or (),
        smoothing=options.label_smoothing,
        problem_type=options.problem_type or problem_type or _kind_of_rows(options),
        order=Checkpoint.find(student, trust=options.trust_remote_code).labels if student else (),
        beside=any(getattr(options, name, None) for name in ("train", "eval", "test")),
    )


def _kind_of_rows(options: Any) -> str | None:
    """Return the kind of task of the training rows if several labels apply to a row, which logits do not tell."""
    if not getattr(options, "train", None) or not hasattr(options, "test"):  # a cache has no labelled rows
        return None
    try:
        with read_first_rows(_ROWS):
            rows = TableReader(options, lambda line: None).read_train(Sources.parse(options).train)
            task = Target.infer(rows).task
    except RailkdError:  # reported when the rows are read
        return None
    return task.name if task.several else None
