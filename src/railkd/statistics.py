"""The numbers behind every claim of a report: pure functions on arrays, with scipy's distributions.

Two kinds of chance are kept apart. *Over seeds*: what another seed would have given on the same test rows. *Over
examples*: what other test rows would have given the same trained models. A statement about methods in general is
*over tasks*: each task counts once, however many seeds and students it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
#: A difference is called shown when its p-value is under this.
ALPHA = 1 - LEVEL
RESAMPLES = 2000
BINS = 15


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; ``sd``, ``low``, ``high`` and ``p`` (of mean 0) are None where nothing can be
    said: one value, or values without any spread.
    """

    mean: float
    n: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Contrast:
    """A difference over tasks; over seeds where there is one task only: ``over`` says which."""

    estimate: Estimate
    over: str
    tasks: int
    pairs: int


@dataclass(frozen=True)
class Bin:
    """Answers given with about the same confidence: how many, how sure, how often right."""

    rows: int
    confidence: float
    accuracy: float


def t_test(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Low and high of the t interval of the mean, and the p-value of mean 0, along the last axis: (..., n) -> (...).

    Values without spread give nan: seeds that agree to the last test row would make a small difference look certain.
    """
    spread = values.std(axis=-1) > 1e-9 * np.maximum(1.0, np.abs(values.mean(axis=-1)))
    low, high, p = (np.full(spread.shape, np.nan) for _ in range(3))
    result = stats.ttest_1samp(values[spread], 0.0, axis=-1)
    low[spread], high[spread] = result.confidence_interval(LEVEL)
    p[spread] = result.pvalue
    return low, high, p


def estimate(values: ArrayLike) -> Estimate:
    """Mean, standard deviation (n - 1) and t interval.

    >>> estimate([1.0, 2.0, 3.0]).sd
    1.0
    >>> estimate([0.5, 0.5]).p is None
    True
    """
    x = np.asarray(values, dtype=np.float64)
    mean, n = float(x.mean()), len(x)
    if n < 2:
        return Estimate(mean, n)
    low, high, p = (float(number[0]) for number in t_test(x[None]))
    if np.isnan(p):
        return Estimate(mean, n, sd=0.0)
    return Estimate(mean, n, float(x.std(ddof=1)), low, high, p)


def paired(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> dict[Any, float]:
    """Ours minus theirs, on the keys (seeds, say) that both have."""
    return {key: value - theirs[key] for key, value in ours.items() if key in theirs}


def contrast(differences: Mapping[str, Mapping[Any, float]]) -> Contrast:
    """Pool paired differences, task -> seed -> difference, with clustering by task.

    Each task gives one number, the mean of its differences, and these go through a t interval of G - 1 degrees of
    freedom. With few clusters that is exact where sandwich errors are too small, and it stays valid, on the safe side,
    where tasks differ in noise or in number of seeds (Ibragimov & Müller 2010, J. Business & Economic Statistics 28).
    One task has no spread over tasks: then the seeds are the units, and the statement is about that task.

    Raises:
        ValueError: no difference at all.
    """
    pairs = sum(map(len, differences.values()))
    if len(differences) == 1:
        (values,) = differences.values()
        return Contrast(estimate(list(values.values())), "seeds", 1, pairs)
    means = [float(np.mean(list(values.values()))) for values in differences.values()]
    return Contrast(estimate(means), "tasks", len(means), pairs)


def holm(p: ArrayLike) -> NDArray[Any]:
    """p-values adjusted for a family by Holm's step-down method, along the last axis.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    x = np.asarray(p, dtype=np.float64)
    order = np.argsort(x, axis=-1, kind="stable")
    factors = np.arange(x.shape[-1], 0, -1)
    stepped = np.maximum.accumulate(np.take_along_axis(x, order, -1) * factors, axis=-1).clip(max=1.0)
    adjusted = np.empty_like(x)
    np.put_along_axis(adjusted, order, stepped, -1)
    return adjusted


def shown_best(means: ArrayLike, p: ArrayLike) -> NDArray[Any]:
    """Which of A arms is shown to be the best: higher than every other, each by a paired test. None may be.

    The highest is picked by looking, but it must win all A - 1 tests, so chance alone marks an arm in less than 5 % of
    columns, and the more arms the rarer.

    Args:
        means: (..., A), higher is better. p: (..., A, A) of the paired tests; nan: no test, nothing shown.
    """
    m, q = np.asarray(means, dtype=np.float64), np.asarray(p, dtype=np.float64)
    itself = np.eye(m.shape[-1], dtype=bool)
    wins = (m[..., :, None] > m[..., None, :]) & (q < ALPHA)
    return (wins | itself).all(axis=-1) & (m.shape[-1] > 1)


def average_ranks(scores: ArrayLike) -> NDArray[Any]:
    """Mean rank of A arms over G tasks, 1 the highest, ties shared: (G, A) -> (A,).

    >>> average_ranks([[3.0, 1.0, 1.0], [2.0, 3.0, 1.0]]).tolist()
    [1.5, 1.75, 2.75]
    """
    ranks: NDArray[Any] = stats.rankdata(-np.asarray(scores, dtype=np.float64), axis=-1).mean(axis=0)
    return ranks


def bootstrap(differences: ArrayLike) -> tuple[float, float]:
    """95 % percentile interval of the mean over N examples, resampled as a whole: all seeds of an example go together.

    Few values are distinct (an example is right or wrong), so a resample is drawn as how often each value comes: the
    same distribution as drawing rows, without N numbers for every resample.

    Args:
        differences: (N,), one an example, already the mean over seeds.
    """
    values, counts = np.unique(np.asarray(differences, dtype=np.float64), return_counts=True)
    n = counts.sum()
    drawn = np.random.default_rng(0).multinomial(n, counts / n, size=RESAMPLES) @ values / n
    low, high = np.quantile(drawn, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def mcnemar(differences: ArrayLike) -> tuple[int, int, float]:
    """Examples that speak for the one, for the other, and McNemar's exact two-sided p-value.

    Args:
        differences: (N,), how many more of the one's seeds are right on an example than of the other's. With one seed
            this is McNemar's test; with several an example still counts once: pooling seeds as if they were further
            examples would make any test set look larger than it is.

    >>> mcnemar([1, 1, 1, 1, 1, 0, -1])
    (5, 1, 0.21875)
    """
    x = np.asarray(differences)
    more, fewer = int((x > 0).sum()), int((x < 0).sum())
    p = stats.binomtest(more, more + fewer, 0.5).pvalue if more + fewer else 1.0
    return more, fewer, float(p)


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """(N, C) -> (N, C) probabilities."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[Any] = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def reliability(confidence: NDArray[Any], right: NDArray[Any]) -> tuple[float, list[Bin]]:
    """Expected calibration error and the bins behind it (Guo et al. 2017, arXiv 1706.04599: 15 of equal width).

    Args:
        confidence: (N,) probability of the answer given. right: (N,) whether it was right.

    >>> error, bins = reliability(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False]))
    >>> round(error, 6), len(bins)
    (0.1, 2)
    """
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [
        Bin(int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean()))
        for inside in (which == number for number in range(BINS))
        if inside.any()
    ]
    error = sum(found.rows * abs(found.accuracy - found.confidence) for found in bins) / max(1, len(confidence))
    return error, bins


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """For bands and times: the standard deviation of one value is None."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
