"""When a small model may answer in place of a large one: a threshold on its confidence, with a promise.

The promise: among rows like the held-out ones on which the small model is at least so confident, it agrees with the
large one in at least the share that was asked for. It is broken for at most 5 % of the held-out sets that one may draw.

The threshold is chosen by fixed sequence testing, from the most confident rows down. The candidates are the n most
confident held-out rows, for numbers n that depend on the number of rows alone. Each is tested by the exact bound of
Clopper and Pearson at the full 5 %, in order, and the first that fails ends the search. Only the first candidate whose
true agreement is too low can break the promise, and it passes at most 5 % of the time. Sources: Clopper and Pearson
1934, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26, 404-413;
Angelopoulos, Bates, Candès, Jordan and Lei 2021, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
Control" (arXiv 2110.01052), which uses fixed sequences in this way.

Letters: N held-out rows, of which n are answered by the small model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from railkd.statistics import ALPHA

#: The search takes at most about so many steps.
STEPS = 50


@dataclass(frozen=True)
class Deferral:
    """A threshold that keeps the promise, and the held-out rows that show it.

    Attributes:
        threshold: the small model answers rows of at least this confidence.
        held_out: number of held-out rows N.
        answered: held-out rows at or above the threshold, n.
        agreed: rows among them on which both models agree.
        bound: true agreement at or above the threshold is at least this, with 95 % confidence, taken alone.
    """

    threshold: float
    held_out: int
    answered: int
    agreed: int
    bound: float

    @property
    def coverage(self) -> float:
        """The share of the held-out rows that the small model answers."""
        return self.answered / self.held_out


def lower_bound(successes: ArrayLike, rows: ArrayLike, alpha: float = ALPHA) -> NDArray[Any]:
    """Return the exact one-sided lower bound of a share, of Clopper and Pearson.

    Args:
        successes: (...) rows that count, from 0 to ``rows``.
        rows: (...) number of rows, at least 1.
        alpha: probability that the true share is below the bound, at most.

    Returns:
        (...) bounds. With k = n of n rows it is 0.05 ** (1 / n), with k = 0 it is 0.

    >>> round(float(lower_bound(10, 10)), 4), float(lower_bound(0, 10))
    (0.7411, 0.0)
    """
    k, n = np.asarray(successes, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    return np.where(k > 0, stats.beta.ppf(alpha, np.maximum(k, 1.0), n - k + 1), 0.0)


def fewest_rows(share: float) -> int:
    """Return the fewest rows that can show an agreement: all of them must agree.

    Args:
        share: of the rows, above 0 and below 1.

    >>> fewest_rows(0.98), fewest_rows(0.9)
    (149, 29)
    """
    return math.ceil(math.log(ALPHA) / math.log(share))


def candidates(rows: int, share: float) -> NDArray[Any]:
    """Return the numbers of answered rows that are tested, in order.

    The first is where a small model passes that disagrees half as often as it may: with fewer rows a single
    disagreement would end the search. It is at most half of the held-out rows, if that is enough to pass at all.

    Args:
        rows: number of held-out rows N.
        share: agreement that is asked for, above 0 and below 1.

    Returns:
        Growing numbers, the last is N; empty if N is below `fewest_rows`.

    >>> candidates(1000, 0.98)[:3].tolist(), len(candidates(1000, 0.98)), candidates(100, 0.98).tolist()
    ([386, 406, 426], 32, [])
    """
    fewest = fewest_rows(share)
    if rows < fewest:
        return np.empty(0, dtype=np.int64)
    start = min(_first(rows, share), max(fewest, rows // 2))
    return np.unique(np.append(np.arange(start, rows, max(1, rows // STEPS)), rows))


@cache
def _first(rows: int, share: float) -> int:
    """Return the fewest rows with which a model passes that disagrees half as often as it may; at most ``rows``."""
    n = np.arange(fewest_rows(share), rows + 1)
    passing = lower_bound(n - np.floor(n * (1 - share) / 2), n) >= share
    return int(n[passing][0]) if passing.any() else rows


def choose_threshold(confidence: ArrayLike, agrees: ArrayLike, share: float) -> Deferral | None:
    """Return the lowest threshold on the confidence that fixed sequence testing reaches.

    Args:
        confidence: (N,) of the small model in its answers.
        agrees: (N,) whether the large model gives the same answer.
        share: agreement that is asked for, above 0 and below 1.

    Returns:
        The threshold, halfway between the confidences of two rows, or 0 if all rows are answered. None if the first
        candidate fails, or if there are too few rows.

    >>> confidence = np.linspace(1.0, 0.5, 100)  # the first 60 rows agree, then every second one does
    >>> found = choose_threshold(confidence, (np.arange(100) < 60) | (np.arange(100) % 2 == 0), 0.9)
    >>> found.answered, found.agreed, round(found.bound, 4)
    (64, 62, 0.9049)
    """
    sure, same = np.asarray(confidence, dtype=np.float64), np.asarray(agrees, dtype=bool)
    order = np.argsort(-sure, kind="stable")
    sure, same = sure[order], same[order].cumsum()
    n = candidates(len(sure), share)
    n = np.unique(np.searchsorted(-sure, -sure[n - 1], side="right"))  # rows of equal confidence are answered alike
    bounds = lower_bound(same[n - 1], n)
    passed = int((bounds >= share).cumprod().sum())  # the candidates before the first that fails
    if not passed:
        return None
    answered = int(n[passed - 1])
    threshold = 0.0 if answered == len(sure) else float((sure[answered - 1] + sure[answered]) / 2)
    return Deferral(threshold, len(sure), answered, int(same[answered - 1]), float(bounds[passed - 1]))
