"""Reads the answers of a teacher in a file (``--teacher-labels``) as the options of a job say."""

from __future__ import annotations

from typing import Any

from railkd.data.reading import Reading
from railkd.models.checkpoints import Checkpoint
from railkd.teacher import TeacherLabels


def read_teacher_labels(options: Any, file: str, problem_type: str | None = None) -> TeacherLabels:
    """Read a file of answers as the options of a job say.

    Args:
        options: of a job with `railkd.jobs.options.AnswerOptions`. If its student has the labels of the file, the
            outputs are in the order of the student. In a job without labelled rows, the file must have the columns
            that the options name; elsewhere the rows must.
        file: its name.
        problem_type: kind of task where the options do not name one; None: the file decides.

    Returns:
        The teacher.
    """
    student = getattr(options, "student", None)
    return TeacherLabels.read(
        file,
        reading=Reading.parse(options.text_column, options.label_column, options.label_map),
        labels=options.labels or (),
        smoothing=options.label_smoothing,
        problem_type=options.problem_type or problem_type,
        order=Checkpoint.find(student, trust=options.trust_remote_code).labels if student else (),
        beside=any(getattr(options, name, None) for name in ("train", "eval", "test")),
    )
