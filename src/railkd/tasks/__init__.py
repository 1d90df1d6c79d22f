"""What is learned: a table with one row for each kind of task, and the metrics.

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
        problem_type: as transformers writes it; None: the number of outputs says it.
        outputs: of the head.

    Raises:
        RailkdError: an unknown problem type, or no outputs.

    >>> task_of("regression").name, task_of(None, outputs=3).name
    ('regression', 'classification')
    """
    if problem_type is None:
        found = next((task for task in TASKS.values() if outputs and task.claims_head(outputs)), None)
        if found is None:
            raise RailkdError(f"got a model with {outputs} outputs, wanted at least 1")
        return found
    if problem_type not in TASKS:
        raise RailkdError(f"unknown problem_type '{problem_type}'; known: {', '.join(TASKS)}")
    return TASKS[problem_type]


def task_named(name: str) -> Task:
    """Return the kind of task that ``--problem-type`` calls by this name.

    Raises:
        RailkdError: there is none of that name.
    """
    names = {task.name: task for task in TASKS.values()}
    if name not in names:
        *others, last = names
        raise RailkdError(f"--problem-type: got {name!r}; wanted {', '.join(others)} or {last}.")
    return names[name]


def task_of_labels(cells: Cells, official: Sequence[str] = ()) -> Task:
    """Return the kind of task that labels are of, by how a file writes them.

    Args:
        cells: the label cells of the training rows.
        official: classes of the GLUE task that the file belongs to, if any.

    >>> task_of_labels(Cells({"label": ["1", "2.5"]}, "train.tsv")).name
    'regression'
    """
    claims = (task for task in TASKS.values() if task.claims_labels(cells, official))
    return next(claims, next(iter(TASKS.values())))


def task_of_metric(metric: str) -> Task:
    """Return the kind of task that a metric scores.

    A metric that is unknown here promises no classes, so it gets the kind whose answers are compared as whole cells.
    """
    return task_named(METRICS[metric].task) if metric in METRICS else TASKS[MultiLabel.problem_type]
