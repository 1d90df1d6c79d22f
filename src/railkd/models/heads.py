"""Heads of sequence classifiers, as their configs describe them: class names, problem type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from railkd.errors import RailkdError
from railkd.functional import ProblemType


def head_config(names: Sequence[str], *, multi: bool = False) -> dict[str, Any]:
    """Config entries of a head for these classes, in this order; no names: regression; multi: any number a row."""
    if not names:
        return {"num_labels": 1, "problem_type": "regression"}
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": "multi_label_classification" if multi else "single_label_classification",
    }


def problem_type_of(config: Any) -> ProblemType:
    """What a sequence-classification config predicts: its own word, or regression when there is one output."""
    if config.problem_type is not None:
        kind: ProblemType = config.problem_type
        return kind
    if config.num_labels < 1:
        raise RailkdError(f"got a model with {config.num_labels} outputs, wanted at least 1")
    return "regression" if config.num_labels == 1 else "single_label_classification"


def label_names(config: Any) -> tuple[str, ...]:
    """Class names of a config in output order."""
    return tuple(str(config.id2label[i]) for i in range(config.num_labels))
