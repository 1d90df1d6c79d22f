"""Calibrated probabilities, and thresholds on them: pure functions on arrays.

A temperature divides all logits by one number, so that the probabilities fit the labels better and the order of the
classes stays. Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599).

Letters: N rows, C classes. Labels are (N,) class indices, or (N, C) of 0 and 1 where any number of classes applies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

#: The range in which a temperature is searched, and how near to its ends, in logarithms, one is taken for the end.
LOWEST, HIGHEST = 0.05, 20.0
_NEAR = 0.01


@dataclass(frozen=True)
class Counts:
    """How well one class is found, on some rows.

    Attributes:
        precision: share of the rows with this answer that have the class; 0 if no row has this answer.
        recall: share of the rows of the class that have this answer; 0 if no row has the class.
        f1: harmonic mean of both; 0 if both are 0.
        rows: number of rows that have the class.
    """

    precision: float
    recall: float
    f1: float
    rows: int


def log_loss(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean negative log-likelihood of labels: over rows, or over rows and classes where several may apply.

    Args:
        logits: (N, C).
        labels: (N,) class indices, or (N, C) of 0 and 1.

    Returns:
        The loss, in nats.

    >>> round(log_loss([[0.0, 0.0]], [1]), 4), round(log_loss([[0.0, 0.0]], [[1, 0]]), 4)  # ln 2, both
    (0.6931, 0.6931)
    """
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if y.ndim == 2:
        return float((np.logaddexp(0.0, z) - y * z).mean())
    return float((special.logsumexp(z, axis=1) - np.take_along_axis(z, y[:, None], axis=1)[:, 0]).mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float | None:
    """Return the temperature with the lowest log loss, from `LOWEST` to `HIGHEST`.

    The loss is convex in one over the temperature, so that there is one minimum.

    Args:
        logits: (N, C).
        labels: (N,) class indices, or (N, C) of 0 and 1.

    Returns:
        The temperature; above 1 if the model is too sure. None if there is no best one in this range: all answers are
        right, so that lower is always better, or the lowest loss is at an end of the range.

    >>> # Of four rows with odds 9 : 1 three are right. ln 9 / T = ln 3, so that the temperature is 2.
    >>> round(fit_temperature([[np.log(9), 0]] * 4, [0, 0, 0, 1]), 4)
    2.0
    """
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if bool(np.all((z > 0) == (y > 0.5) if y.ndim == 2 else z.argmax(axis=1) == y)):
        return None
    low, high = np.log(LOWEST), np.log(HIGHEST)
    found = optimize.minimize_scalar(
        lambda power: log_loss(z / np.exp(power), y),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return float(np.exp(found.x)) if low + _NEAR < found.x < high - _NEAR else None


def best_threshold(
    scores: ArrayLike, positive: ArrayLike, *, precision: float | None = None, recall: float | None = None
) -> float | None:
    """Return the threshold on the probability of one class that serves a goal best: the class is the answer above it.

    Without a goal it is the highest F1. With a least precision it is the highest recall, and with a least recall it is
    the highest precision, among the thresholds that reach it. Of thresholds that are equally good, the one with the
    better second figure is taken (precision for F1 and recall), and of equal ones the highest.

    Args:
        scores: (N,) probabilities of the class.
        positive: (N,) whether the row has the class.
        precision: the least precision.
        recall: the least recall.

    Returns:
        The threshold, halfway between two neighbouring scores, or half the lowest score if all rows get the class. None
        if no threshold reaches the goal, or if no row has the class.

    >>> scores, positive = [0.875, 0.75, 0.5, 0.25], [True, False, True, False]
    >>> best_threshold(scores, positive), best_threshold(scores, positive, precision=0.9)
    (0.375, 0.8125)
    >>> best_threshold(scores, positive, recall=0.4), best_threshold([0.9, 0.8], [False, True], precision=0.9)
    (0.8125, None)
    """
    s, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if not truth.any():
        return None
    order = np.argsort(-s, kind="stable")
    s, right = s[order], truth[order].cumsum()  # (N,) rows of the class among the first 1, 2, ... N
    lower = np.append(s[1:], 0.0)
    answered = np.arange(1, len(s) + 1)
    p, r = right / answered, right / truth.sum()
    first, second, reached = 2 * right / (answered + truth.sum()), p, s > lower  # equal scores are answered alike
    if precision is not None:
        first, second, reached = r, p, reached & (p >= precision)
    elif recall is not None:
        first, second, reached = p, r, reached & (r >= recall)
    if not reached.any():
        return None
    places = np.flatnonzero(reached)
    best = places[np.lexsort((places, -second[places], -first[places]))[0]]
    return float((s[best] + lower[best]) / 2)


def count(given: NDArray[Any], gold: NDArray[Any]) -> list[Counts]:
    """Return how well each class is found.

    Args:
        given: (N, C) bool, the answers.
        gold: (N, C) bool, the labels.

    Returns:
        Counts of each of the C classes.

    >>> count(np.array([[True], [True], [False], [False]]), np.array([[True], [False], [True], [False]]))
    [Counts(precision=0.5, recall=0.5, f1=0.5, rows=2)]
    """
    right, answered, rows = (part.sum(axis=0) for part in (given & gold, given, gold))
    return [
        Counts(float(k / max(1, a)), float(k / max(1, n)), float(2 * k / max(1, a + n)), int(n))
        for k, a, n in zip(right, answered, rows, strict=True)
    ]
