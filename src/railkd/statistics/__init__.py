"""Statistics of the report: pure functions on arrays, built on scipy's distributions.

A statement can be about three sources of chance:

- *over seeds*: other seeds, the same test rows;
- *over examples*: other test rows, the same trained models;
- *over tasks*: other tasks. Each task counts once, however many seeds and students it has.

Letters: n values, N examples, A arms, G tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

#: Confidence level of every interval.
LEVEL = 0.95
#: A difference counts as shown if its p-value is below this.
ALPHA = 1 - LEVEL
#: Resamples of the bootstrap.
RESAMPLES = 2000
#: Bins of the expected calibration error.
BINS = 15


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    A single value has no ``sd``, interval or p-value (None). Equal values have an ``sd`` of 0 but no interval and no
    p-value.

    Attributes:
        mean: mean of the values.
        n: number of values.
        sd: standard deviation with divisor n - 1.
        low: lower end of the interval.
        high: upper end of the interval.
        p: two-sided p-value of the hypothesis that the true mean is 0.
    """

    mean: float
    n: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Contrast:
    """A pooled difference between two arms.

    Attributes:
        estimate: the difference.
        over: "tasks", or "seeds" if there is only one task.
        tasks: number of tasks.
        pairs: number of paired runs.
    """

    estimate: Estimate
    over: str
    tasks: int
    pairs: int


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence.

    Attributes:
        rows: number of predictions.
        confidence: their mean confidence, from 0 to 1.
        accuracy: share of them that is correct, from 0 to 1.
    """

    rows: int
    confidence: float
    accuracy: float


def t_test(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the t interval of the mean and the p-value of mean 0, along the last axis.

    Values without spread give nan: a standard deviation of 0 would make any difference look certain.

    Args:
        values: (..., n) samples.

    Returns:
        Low end of the interval, high end and p-value, each (...).
    """
    n, mean = values.shape[-1], values.mean(axis=-1)
    spread = values.std(axis=-1) > 1e-9 * np.maximum(1.0, np.abs(mean))  # (...)
    # A report makes thousands of these tests, and scipy.stats.ttest_1samp takes 50 times as long for the same numbers.
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(spread, values.std(axis=-1, ddof=1) / np.sqrt(n), np.nan)  # (...) standard error of the mean
    half = special.stdtrit(n - 1, (1 + LEVEL) / 2) * error
    return mean - half, mean + half, 2 * special.stdtr(n - 1, -np.abs(mean / error))


def estimate(values: ArrayLike) -> Estimate:
    """Return the mean of a sample with its standard deviation, t interval and p-value.

    Args:
        values: (n,) sample.

    Returns:
        The estimate.

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


def paired_differences(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> dict[Any, float]:
    """Return ours minus theirs for every key that both have.

    Args:
        ours: key (such as the seed) -> value.
        theirs: key -> value to subtract.

    Returns:
        Key -> difference.

    >>> paired_differences({1: 3.0, 2: 5.0}, {2: 1.0, 3: 0.0})
    {2: 4.0}
    """
    return {key: value - theirs[key] for key, value in ours.items() if key in theirs}


def contrast(differences: Mapping[str, Mapping[Any, float]]) -> Contrast:
    """Pool paired differences, with clustering by task.

    Each task contributes one number, the mean of its differences. These G numbers give a t interval with G - 1 degrees
    of freedom. For few tasks this interval is exact, where sandwich standard errors are too small. It stays valid, but
    wider than needed, if tasks differ in noise or in number of seeds. Source: Ibragimov and Müller 2010, "t-Statistic
    Based Correlation and Heterogeneity Robust Inference", Journal of Business & Economic Statistics 28, 453-468.

    A single task has no spread over tasks. Then the interval is over its seeds, and the statement is about that task.

    Args:
        differences: task -> seed -> difference. At least one task, and no task without a difference.

    Returns:
        The pooled difference.

    >>> pooled = contrast({"a": {1: 1.0, 2: 3.0}, "b": {1: 4.0}})
    >>> pooled.estimate.mean, pooled.over, pooled.pairs
    (3.0, 'tasks', 3)
    """
    pairs = sum(map(len, differences.values()))
    if len(differences) == 1:
        (values,) = differences.values()
        return Contrast(estimate(list(values.values())), "seeds", 1, pairs)
    means = [float(np.mean(list(values.values()))) for values in differences.values()]
    return Contrast(estimate(means), "tasks", len(means), pairs)


def holm(p: ArrayLike) -> NDArray[Any]:
    """Return p-values adjusted for multiple tests by Holm's step-down method, along the last axis.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
    65-70.

    Args:
        p: (..., m) p-values; the last axis is the family of m tests.

    Returns:
        (..., m) adjusted p-values, in the same order.

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


def best_arms(means: ArrayLike, p: ArrayLike) -> NDArray[Any]:
    """Mark the arm that is better than every other arm, each by a paired test at `ALPHA`. There may be none.

    The candidate is chosen after looking at the means. It must win all A - 1 tests, however, so chance marks an arm in
    less than 5 % of columns, and less often the more arms there are.

    Args:
        means: (..., A), higher is better.
        p: (..., A, A) p-values of the paired tests; nan means "not tested" and never counts as a win.

    Returns:
        (..., A) bool, True for the best arm. All False if there is a single arm.

    >>> best_arms([3.0, 2.0], [[np.nan, 0.01], [0.01, np.nan]]).tolist()
    [True, False]
    """
    m, q = np.asarray(means, dtype=np.float64), np.asarray(p, dtype=np.float64)
    diagonal = np.eye(m.shape[-1], dtype=bool)
    wins = (m[..., :, None] > m[..., None, :]) & (q < ALPHA)  # (..., A, A): row beats column
    return (wins | diagonal).all(axis=-1) & (m.shape[-1] > 1)


def average_ranks(scores: ArrayLike) -> NDArray[Any]:
    """Return each arm's mean rank over tasks. Rank 1 is the highest score; ties share their mean rank.

    Args:
        scores: (G, A) scores of A arms on G tasks, higher is better.

    Returns:
        (A,) mean ranks.

    >>> average_ranks([[3.0, 1.0, 1.0], [2.0, 3.0, 1.0]]).tolist()
    [1.5, 1.75, 2.75]
    """
    ranks: NDArray[Any] = stats.rankdata(-np.asarray(scores, dtype=np.float64), axis=-1).mean(axis=0)
    return ranks


def bootstrap(differences: ArrayLike) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean over examples.

    Examples are resampled, not seeds: all seeds of an example stay together. The differences take few distinct values,
    because a prediction is either correct or not. So a resample is drawn as the count of each value (a multinomial):
    the same distribution as drawing N rows, at a fraction of the memory.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.

    Args:
        differences: (N,) difference of each example, the mean over its seeds.

    Returns:
        Low and high end of the interval.

    >>> bootstrap([1.0, 1.0, 1.0])
    (1.0, 1.0)
    """
    values, counts = np.unique(np.asarray(differences, dtype=np.float64), return_counts=True)
    n = counts.sum()
    means = np.random.default_rng(0).multinomial(n, counts / n, size=RESAMPLES) @ values / n  # (RESAMPLES,)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def mcnemar(differences: ArrayLike) -> tuple[int, int, float]:
    """Return McNemar's exact two-sided test over examples.

    With one seed this is the ordinary test. With several seeds an example still counts once, for the arm with more
    correct seeds: to count every seed would make the test set look larger than it is.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12, 153-157; in its exact, binomial form.

    Args:
        differences: (N,) for each example: correct seeds of the first arm minus correct seeds of the second.

    Returns:
        Number of examples for the first arm, number for the second, and the p-value.

    >>> mcnemar([1, 1, 1, 1, 1, 0, -1])
    (5, 1, 0.21875)
    """
    x = np.asarray(differences)
    more, fewer = int((x > 0).sum()), int((x < 0).sum())
    p = stats.binomtest(more, more + fewer, 0.5).pvalue if more + fewer else 1.0
    return more, fewer, float(p)


def reliability(confidence: NDArray[Any], correct: NDArray[Any]) -> tuple[float, list[Bin]]:
    """Return the expected calibration error and its bins.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599), with 15 bins of equal width.

    Args:
        confidence: (N,) probability that the model gave to its prediction.
        correct: (N,) bool, whether the prediction is correct.

    Returns:
        The error, from 0 to 1, and the bins that hold at least one row, by confidence.

    >>> error, bins = reliability(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False]))
    >>> round(error, 6), len(bins)
    (0.1, 2)
    """
    numbers = np.minimum((confidence * BINS).astype(int), BINS - 1)  # (N,) bin of each row; 1.0 joins the last bin
    bins = [
        Bin(int(inside.sum()), float(confidence[inside].mean()), float(correct[inside].mean()))
        for inside in (numbers == number for number in range(BINS))
        if inside.any()
    ]
    error = sum(part.rows * abs(part.accuracy - part.confidence) for part in bins) / max(1, len(confidence))
    return error, bins


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the standard deviation (divisor n - 1), None for a single value.

    Args:
        values: at least one number.

    Returns:
        Mean and standard deviation.
    """
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
