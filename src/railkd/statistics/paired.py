"""One-sided statistics of two models on the same rows: is one worse than the other by more than a margin?

Tango's score method serves shares of correct rows; where the candidate wins no row, the exact binomial test of the lost
rows takes its place, because the score method would then pass a model that is worse by the margin up to 6.9 % of the
time, instead of 5 %. Sources: Tango 1998, "Equivalence test and confidence interval for
the difference in proportions for the paired-sample design", Statistics in Medicine 17, 891-908; compared with eight
other intervals by Fagerland, Lydersen and Laake 2014, "Recommended tests and confidence intervals for paired binomial
proportions", Statistics in Medicine 33, 2850-2875. The bootstrap serves every other score (F1, correlations).

Letters: n rows, of which ``lost`` are right by the reference alone and ``won`` are right by the candidate alone. The
drop is (lost - won) / n, a share from -1 to 1; it is positive if the candidate is worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from railkd.statistics import ALPHA, RESAMPLES

#: Probability with which a candidate without a true drop should pass, where rows are planned.
POWER = 0.8


@dataclass(frozen=True)
class Drop:
    """How much worse a candidate is than a reference, on the same rows.

    Attributes:
        rows: number of rows n.
        drop: the observed drop, as a share; negative if the candidate is better.
        bound: the true drop is at most this, with 95 % confidence.
        p: one-sided p-value of the hypothesis that the true drop is the margin or more.
        p_worse: one-sided p-value of the hypothesis that the true drop is the margin or less.
        lost: rows that the reference alone gets right; None for scores that are no share of rows.
        won: rows that the candidate alone gets right; None likewise.
    """

    rows: int
    drop: float
    bound: float
    p: float
    p_worse: float
    lost: int | None = None
    won: int | None = None


def score_statistic(lost: ArrayLike, won: ArrayLike, rows: ArrayLike, drop: ArrayLike) -> NDArray[Any]:
    """Return Tango's score statistic of the hypothesis that the true drop has this value.

    It is a standard normal number under the hypothesis, and negative if the observed drop is smaller.

    Args:
        lost: (...) rows that the reference alone gets right.
        won: (...) rows that the candidate alone gets right.
        rows: (...) number of rows n.
        drop: (...) the hypothesis, from -1 to 1.

    Returns:
        (...) statistics. 0 where the observed drop equals the hypothesis.

    >>> round(float(score_statistic(6, 2, 100, 0.0)), 4)  # (lost - won) / sqrt(lost + won), as McNemar's
    1.4142
    """
    b, c, n, d = (np.asarray(value, dtype=np.float64) for value in (lost, won, rows, drop))
    # Most likely share of won rows if the drop is d: the positive root of 2n q^2 + linear q - c d (1 - d) = 0.
    linear = (2 * n - b + c) * d - b - c
    root = np.sqrt(np.maximum(linear**2 + 8 * n * c * d * (1 - d), 0.0))
    share = np.maximum((root - linear) / (4 * n), np.maximum(-d, 0.0))  # (...); share + d, the lost rows, is at least 0
    difference, variance = b - c - n * d, n * (2 * share + d * (1 - d))
    certain = variance <= 1e-12 * n  # the hypothesis allows a single outcome
    found = difference / np.sqrt(np.where(certain, 1.0, variance))
    beyond = np.where(np.abs(difference) < 1e-9 * n, 0.0, np.copysign(1e9, difference))
    return np.asarray(np.where(certain, beyond, found))


def p_value(lost: ArrayLike, won: ArrayLike, rows: ArrayLike, margin: ArrayLike) -> NDArray[Any]:
    """Return the one-sided p-value of the hypothesis that the true drop is the margin or more.

    Args:
        lost: (...) rows that the reference alone gets right.
        won: (...) rows that the candidate alone gets right.
        rows: (...) number of rows n.
        margin: (...) the drop that is tolerated; below 0 the score method decides alone.

    Returns:
        (...) p-values: of the binomial test if no row is won, else of Tango's score method.

    >>> round(float(p_value(0, 0, 100, 0.01)), 4)  # 0.99 ** 100
    0.366
    """
    by_score = stats.norm.cdf(score_statistic(lost, won, rows, margin))
    return np.where(
        (np.asarray(won) == 0) & (np.asarray(margin) > 0), stats.binom.cdf(lost, rows, np.maximum(margin, 0)), by_score
    )


def drop_of_shares(lost: int, won: int, rows: int, margin: float) -> Drop:
    """Return the drop of a share of correct rows, by Tango's score method, or exactly if the candidate wins no row.

    Args:
        lost: rows that the reference alone gets right.
        won: rows that the candidate alone gets right.
        rows: number of rows n, at least 1.
        margin: the drop that is tolerated, a share above 0 and below 1.

    Returns:
        The drop. Its p-value is below 5 % exactly if its bound is below the margin. A bound below 0, of a candidate
        that is shown to be better, holds in 91 % of cases or more where few rows are lost, and in about 95 % otherwise.

    >>> drop_of_shares(0, 0, 300, 0.01).p < 0.05, drop_of_shares(0, 0, 200, 0.01).p < 0.05
    (True, False)
    """
    observed, z, highest, bound = (lost - won) / rows, float(stats.norm.ppf(1 - ALPHA)), 1 - 1e-12, 1.0
    p, p_worse = float(p_value(lost, won, rows, margin)), float(stats.norm.sf(score_statistic(lost, won, rows, margin)))
    if won == 0:
        p_worse = float(stats.binom.sf(lost - 1, rows, margin))
        bound = float(stats.beta.ppf(1 - ALPHA, lost + 1, rows - lost)) if lost < rows else 1.0
    elif observed < highest:
        start = max(observed, -highest)  # the statistic is 0 there, and falls
        bound = optimize.brentq(lambda d: float(score_statistic(lost, won, rows, d)) + z, start, highest, xtol=1e-12)
    return Drop(rows, observed, bound, p, p_worse, int(lost), int(won))


def rows_needed(disagreement: float, margin: float) -> int:
    """Return how many rows a test needs to pass a candidate without a true drop, four times out of five.

    Args:
        disagreement: share of rows that exactly one of the two models gets right, from 0 to 1.
        margin: the drop that is tolerated, a share above 0 and below 1.

    Returns:
        Number of rows: at least the number with which a candidate passes that loses no row at all.

    >>> rows_needed(0.0, 0.01), rows_needed(0.0, 0.03), rows_needed(0.02, 0.01)
    (299, 99, 1237)
    """
    z, power = stats.norm.ppf(1 - ALPHA), stats.norm.ppf(POWER)
    least = math.floor(math.log(ALPHA) / math.log1p(-margin)) + 1
    return max(least, math.ceil((z + power) ** 2 * disagreement / margin**2))


def drop_of_scores(
    score: Callable[[NDArray[Any]], tuple[float, float]], rows: int, margin: float, seed: int = 0
) -> Drop:
    """Return the drop of any score of two models on the same rows, by the percentile bootstrap over rows.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.

    Args:
        score: takes (m,) row numbers, and returns the scores of the reference and of the candidate on these rows. Both
            scores are higher for a better model. A resample on which one is NaN (such as the correlation of equal
            numbers) does not count.
        rows: number of rows n.
        margin: the drop that is tolerated, in the unit of the score.
        seed: of the resamples.

    Returns:
        The drop. Its p-values are shares of resamples.
    """
    reference, candidate = score(np.arange(rows))
    rng = np.random.default_rng(seed)
    drops = np.array([np.subtract(*score(rng.integers(rows, size=rows))) for _ in range(RESAMPLES)])
    drops = drops[~np.isnan(drops)]
    if not len(drops):
        return Drop(rows, reference - candidate, math.inf, 1.0, 1.0)
    beyond, within = (float((1 + side.sum()) / (1 + len(drops))) for side in (drops >= margin, drops <= margin))
    return Drop(rows, reference - candidate, float(np.quantile(drops, 1 - ALPHA)), beyond, within)


def smallest_margin(drops: list[Drop]) -> float:
    """Return the smallest margin with which every one of these drops would have passed, each on its own.

    Args:
        drops: at least one.

    Returns:
        The largest bound, and 0 if all are below 0.
    """
    return max(0.0, *(drop.bound for drop in drops))
