"""Heads of sequence classifiers, as their configs describe them: class names, kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from railkd.tasks import Task, task_of


def head_config(names: Sequence[str], *, problem_type: str | None = None) -> dict[str, Any]:
    """Return the config entries of a head for these classes, in this order.

    Args:
        names: of the classes; none for regression.
        problem_type: as transformers writes it; None: single-label classification, or regression where no name is
            given.
    """
    return task_of(problem_type, len(names) or 1).head(names)


def task_of_config(config: Any) -> Task:
    """Return the kind of task that a config is for: by its problem type, or by its outputs where it names none."""
    return task_of(config.problem_type, config.num_labels)


def problem_type_of(config: Any) -> str:
    """Return what a config predicts, as transformers writes it."""
    return task_of_config(config).problem_type


def label_names(config: Any) -> tuple[str, ...]:
    """Return the class names of a config in output order."""
    return tuple(str(config.id2label[i]) for i in range(config.num_labels))
