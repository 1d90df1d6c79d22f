"""Weights of classes: rare classes count more in the task term and, if asked, in the logit term.

Equation: ``CE = 1/B sum_i w[y_i] ce_i`` over the labelled rows of a batch of B rows, and likewise ``KD = 1/B sum_i
w[y_i] kl_i``, where a row without a label has weight 1. With several labels a row, w is the factor of the positive half
of each label, as ``pos_weight`` of torch.

The sum is divided by B, not by the weights in the batch. With weights whose mean over the training rows is 1, as
`balanced` and `normalised` return them, the term keeps its scale, the gradient of a batch is an unbiased estimate of
that of all rows, and a step is the same for every split into micro-batches and ranks. Division by the weights in the
batch has none of these properties: a batch would weigh each rare row less, the more of them it has. Over all rows at
once both are equal.

Source of the balanced weights ``n / (k n_c)``: King and Zeng 2001, "Logistic Regression in Rare Events Data", Political
Analysis 9(2), as scikit-learn's ``compute_class_weight``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from railkd.errors import RailkdError
from railkd.tasks import task_of


def checked_class_weights(
    weights: Sequence[float] | None, on_logits: bool, terms: Mapping[str, float], problem_type: str | None
) -> Tensor | None:
    """Return the weights as a tensor (C,); None if every class has weight 1, so that such weights change nothing.

    Args:
        weights: of the C classes; None: 1.
        on_logits: they count in the logit term too.
        terms: term -> its weight in the loss.
        problem_type: of transformers; None: not known.

    Returns:
        The tensor, or None.

    Raises:
        RailkdError: a weight is not a finite number above 0, or the weights have no effect.
    """
    if weights is None:
        if on_logits:
            raise RailkdError("class_weights_on_logits has no effect without class_weights. Fix: give the weights too.")
        return None
    if not weights or not all(isinstance(w, int | float) and math.isfinite(w) and w > 0 for w in weights):
        raise RailkdError(
            f"Expected a finite number above 0 for each class as class_weights, got {list(weights)}. Fix: leave out a "
            "class by leaving out its rows; the command line alone computes 'balanced'."
        )
    task = task_of(problem_type) if problem_type else None
    if task is not None and task.width is not None:
        raise RailkdError(f"class_weights need classes, and {task.name} has none. Fix: leave the weights out.")
    if task is not None and on_logits and not task.one_class:
        raise RailkdError(
            f"class_weights_on_logits needs one class a row, and {task.name} has any number. Fix: leave it out."
        )
    if on_logits and not terms.get("kd"):
        raise RailkdError("class_weights_on_logits has no effect: the logit term has no weight. Fix: leave it out.")
    if not on_logits and not terms.get("ce"):
        raise RailkdError(
            "class_weights have no effect: the task term has no weight. Fix: give it one, or class_weights_on_logits."
        )
    return None if all(weight == 1 for weight in weights) else torch.tensor([float(weight) for weight in weights])


def weights_of_rows(class_weights: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) the weight of each row: that of its class, or 1 without a label.

    Args:
        class_weights: (C,).
        labels: (B,) class indices, -100 for a row without a label.

    Example:
        >>> weights_of_rows(torch.tensor([0.5, 3.0]), torch.tensor([1, -100, 0])).tolist()
        [3.0, 1.0, 0.5]
    """
    found = class_weights[labels.long().clamp(min=0)]
    return torch.where(labels >= 0, found, torch.ones_like(found))


def balanced(labels: np.ndarray, classes: int) -> list[float]:
    """Return the weights with which every class counts the same; 1 for a class without rows.

    Args:
        labels: (N,) class indices, or (N, C) of 0 and 1, where each label is balanced with its absence.
        classes: C.

    Returns:
        C weights: ``n / (k n_c)`` for n rows in k classes; of several labels a row ``(n - n_c) / n_c``.

    Example:
        >>> balanced(np.array([0, 0, 0, 1]), 3)
        [0.6666666666666666, 2.0, 1.0]
    """
    if labels.ndim == 2:
        positive, rows = labels.sum(axis=0), len(labels)
        return [float((rows - n) / n) if 0 < n < rows else 1.0 for n in positive]
    counts = np.bincount(labels, minlength=classes)
    occurring = int((counts > 0).sum())
    return [float(len(labels) / (occurring * n)) if n else 1.0 for n in counts]


def normalised(weights: Sequence[float], labels: np.ndarray) -> list[float]:
    """Return the weights divided by their mean over rows, so that the term keeps its scale.

    Args:
        weights: of C classes.
        labels: (N,) class indices.

    Example:
        >>> normalised([10.0, 30.0], np.array([0, 0, 0, 1]))
        [0.6666666666666666, 2.0]
    """
    mean = np.asarray(weights, dtype=float)[labels].mean()
    return [float(weight / mean) for weight in weights]
