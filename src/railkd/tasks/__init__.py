"""Kinds of tasks: a table with one row for each, and the metrics.

A new kind of task is one file with one class, as `railkd.tasks.base.Task` describes it, and one row here.
"""

from __future__ import annotations

from collections.abc import Sequence

from railkd.data.reader import Cells
from railkd.errors import RailkdError
from railkd.tasks.base import Task
from railkd.tasks.classification import Classification
from railkd.tasks.metrics import METRICS
from railkd.tasks.multilabel import MultiLabel
from railkd.tasks.regression import Regression

__all__ = ["Cells", "TASKS", "Task", "task_named", "task_of", "task_of_labels", "task_of_metric"]

#: problem type, as transformers writes it -> the kind of task.
TASKS: dict[str, Task] = {task.problem_type: task for task in (Classification(), Regression(), MultiLabel())}


def task_of(problem_type: str | None, outputs: int | None = None) -> Task:
    """Return the kind of task of a problem type.

    Args:
        problem_type: as transformers writes it; None: the number of outputs decides.
        outputs: of the head.

    Raises:
        RailkdError: the problem type is unknown, or there are no outputs.

    Example:
        >>> task_of("regression").name, task_of(None, outputs=3).name
        ('regression', 'classification')
    """
    if problem_type is None:
        found = next((task for task in TASKS.values() if outputs and task.fits_outputs(outputs)), None)
        if found is None:
            raise RailkdError(f"expected a model with at least 1 output, got {outputs}.")
        return found
    if not isinstance(problem_type, str) or problem_type not in TASKS:  # a config may hold anything here
        raise RailkdError(f"unknown problem_type {problem_type!r:.40}. Expected one of {', '.join(TASKS)}.")
    return TASKS[problem_type]


def task_named(name: str) -> Task:
    """Return the kind of task with a name.

    Args:
        name: as ``--problem-type`` takes it.

    Raises:
        RailkdError: no kind of task has this name.
    """
    names = {task.name: task for task in TASKS.values()}
    if name not in names:
        *others, last = names
        raise RailkdError(f"--problem-type: expected {', '.join(others)} or {last}, got {name!r}.")
    return names[name]


def task_of_labels(cells: Cells, official: Sequence[str] = ()) -> Task:
    """Return the kind of task that labels are of, by how a file writes them.

    Args:
        cells: the label cells of the training rows.
        official: classes of the GLUE task that the file belongs to, if any.

    Example:
        >>> task_of_labels(Cells({"label": ["1", "2.5"]}, "train.tsv")).name
        'regression'
    """
    fitting = (task for task in TASKS.values() if task.fits_cells(cells, official))
    return next(fitting, next(iter(TASKS.values())))


def task_of_metric(metric: str) -> Task:
    """Return the kind of task that a metric scores.

    An unknown metric gets the kind whose answers are compared as whole cells, because it may not be about classes.

    Args:
        metric: its name.
    """
    return task_named(METRICS[metric].tasks[0]) if metric in METRICS else TASKS[MultiLabel.problem_type]
