"""Puts the line of ``--rescale-teacher`` on the outputs of a teacher."""

from __future__ import annotations

import numpy as np

from railkd.data.keys import keys_of
from railkd.data.reader import Table
from railkd.data.tokens import some_rows
from railkd.errors import RailkdError
from railkd.models.inference import predict_logits
from railkd.tasks import Task
from railkd.tasks.scale import Line, fit_line
from railkd.teacher import LiveTeacher, StoredTeacher

#: Training rows on which a teacher without a cache runs for the fit.
_ROWS = 1000


def check_rescaling(task: Task, *, needs_teacher: bool = True) -> None:
    """Refuse ``--rescale-teacher`` where it has no effect.

    Args:
        task: of the teacher.
        needs_teacher: the method reads the outputs of a teacher.

    Raises:
        RailkdError: the labels are not numbers, or the method has no teacher.
    """
    if task.points:
        raise RailkdError(
            f"--rescale-teacher: expected a regression teacher, got {task.name}. Fix: leave the flag out, or use "
            "--temperature."
        )
    if not needs_teacher:
        raise RailkdError("--rescale-teacher: the method has no teacher. Fix: leave the flag out.")


def fit_on_training_rows(teacher: LiveTeacher | StoredTeacher, table: Table, max_length: int) -> tuple[Line, int]:
    """Fit the line from the outputs of a teacher to the labels.

    Args:
        teacher: a cache, which is read for all rows that it answers, or a model, which runs on a sample.
        table: the labelled training rows.
        max_length: length in tokens at which texts are cut.

    Returns:
        The line, and the number of rows.
    """
    rows = table.rows
    if isinstance(teacher, StoredTeacher):
        keys = keys_of(rows)
        if teacher.gaps:
            there = np.flatnonzero(teacher.find(keys) >= 0)
            rows, keys = rows.select(there), keys[there]
        outputs = teacher.gather(keys, None)[0]
    else:
        rows = rows.select(some_rows(len(rows), _ROWS))
        outputs = predict_logits(teacher.model, teacher.tokenizer, rows, max_length=max_length)
    return fit_line(outputs, np.asarray(rows["label"])), len(rows)
