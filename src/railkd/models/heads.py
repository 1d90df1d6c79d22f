"""Reads and writes what a config says of a classifier's head: class names and kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from railkd.tasks import Task, task_of


def head_config(names: Sequence[str], *, problem_type: str | None = None) -> dict[str, Any]:
    """Return the config entries of a head for these classes, in this order.

    Args:
        names: of the classes; none for regression.
        problem_type: as transformers writes it. None means single-label classification, or regression if no name is
            given.

    Returns:
        Name -> value of the config entries.
    """
    return task_of(problem_type, len(names) or 1).head(names)


def task_of_config(config: Any) -> Task:
    """Return the kind of task of a config, by its problem type or, if it has none, by its number of outputs.

    Args:
        config: of the model.

    Returns:
        The row of `railkd.tasks.TASKS`.
    """
    return task_of(config.problem_type, config.num_labels)


def problem_type_of(config: Any) -> str:
    """Return the problem type of a config, also if the config does not name it.

    Args:
        config: of the model.

    Returns:
        The problem type, as transformers writes it.
    """
    return task_of_config(config).problem_type


def label_names(config: Any) -> tuple[str, ...]:
    """Return the class names of a config.

    Args:
        config: of the model.

    Returns:
        The names, in the order of the outputs.
    """
    return tuple(str(config.id2label[i]) for i in range(config.num_labels))
