"""Compare the statistics with scipy, statsmodels and numbers worked out by hand, and check them on simulated grids."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from railkd import statistics
from railkd.statistics import Bin
from simulated_grids import DESIGNS, Design, evaluate, within_bounds


def test_an_estimate_by_hand() -> None:
    # mean 2, sd 1, standard error 1/sqrt(3); t(0.975, 2) = 4.302653
    result = statistics.estimate([1.0, 2.0, 3.0])
    assert (result.mean, result.n, result.sd) == (2.0, 3, 1.0)
    assert result.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-5)
    assert result.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-5)
    # t = 2 sqrt(3): p = 1 - t / sqrt(t^2 + 2) for two degrees of freedom
    assert result.p == pytest.approx(1 - 12**0.5 / 14**0.5)


def test_one_seed_and_seeds_that_agree_have_no_interval() -> None:
    one, same = statistics.estimate([3.0]), statistics.estimate([0.1, 0.1, 0.1])
    assert (one.mean, one.sd, one.low, one.p) == (3.0, None, None, None)
    assert (same.sd, same.low, same.high, same.p) == (0.0, None, None, None)


def test_only_equal_seeds_are_paired() -> None:
    assert statistics.paired_differences({1: 3.0, 2: 5.0, 4: 9.0}, {2: 1.0, 1: 2.0, 3: 0.0}) == {1: 1.0, 2: 4.0}


def test_a_task_counts_once_however_many_seeds_it_has() -> None:
    result = statistics.contrast({"a": {1: 1.0, 2: 3.0}, "b": {1: 4.0}, "c": dict.fromkeys(range(50), 6.0)})
    assert (result.over, result.tasks, result.pairs) == ("tasks", 3, 53)
    assert result.estimate == statistics.estimate([2.0, 4.0, 6.0])


def test_a_single_task_is_pooled_over_its_seeds() -> None:
    result = statistics.contrast({"a": {1: 1.0, 2: 3.0, 3: 2.0}})
    assert (result.over, result.estimate) == ("seeds", statistics.estimate([1.0, 3.0, 2.0]))


def test_holm_equals_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for size in (1, 5, 12):  # three sizes only: every call of multipletests runs the garbage collector
        p = rng.random(size).round(1) ** 2  # with ties
        np.testing.assert_allclose(statistics.holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_holm_adjusts_many_families_at_once() -> None:
    families = np.random.default_rng(0).random((5, 4))
    np.testing.assert_array_equal(statistics.holm(families), [statistics.holm(family) for family in families])


@pytest.mark.parametrize("table", [(10, 2), (3, 4), (0, 6), (25, 31)])
def test_mcnemar_with_one_seed_equals_statsmodels(table: tuple[int, int]) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    more, fewer = table
    rows = [1] * more + [-1] * fewer + [0] * 40
    wanted = mcnemar([[20, more], [fewer, 20]], exact=True).pvalue
    assert statistics.mcnemar(rows) == (more, fewer, pytest.approx(wanted))


def test_mcnemar_counts_a_row_once_whatever_the_seeds() -> None:
    assert statistics.mcnemar([3, 2, -1]) == statistics.mcnemar([1, 1, -1])
    assert statistics.mcnemar([0, 0]) == (0, 0, 1.0)


def test_the_bootstrap_agrees_with_scipy() -> None:
    rows = np.random.default_rng(1).choice([-1.0, 0.0, 0.5, 1.0], size=300, p=[0.1, 0.6, 0.1, 0.2])
    wanted = stats.bootstrap(
        (rows,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(2)
    ).confidence_interval
    low, high = statistics.bootstrap(rows)
    assert (low, high) == (pytest.approx(wanted.low, abs=0.01), pytest.approx(wanted.high, abs=0.01))
    assert statistics.bootstrap(np.ones(7)) == (1.0, 1.0)


def test_an_arm_is_best_only_if_it_wins_every_test() -> None:
    def p(ab: float, ac: float, bc: float) -> list[list[float]]:
        return [[np.nan, ab, ac], [ab, np.nan, bc], [ac, bc, np.nan]]

    means = [3.0, 2.0, 1.0]
    assert statistics.best_arms(means, p(0.01, 0.04, 0.9)).tolist() == [True, False, False]
    assert not statistics.best_arms(means, p(0.06, 0.01, 0.01)).any()  # the second arm is not beaten
    assert not statistics.best_arms(means, p(np.nan, 0.01, 0.01)).any()  # one seed gives no test
    assert not statistics.best_arms([1.0], [[np.nan]]).any()  # a single arm is never best


def test_ranks_share_ties_and_average_over_tasks() -> None:
    assert statistics.average_ranks([[90.0, 80.0, 70.0], [50.0, 60.0, 60.0]]).tolist() == [2.0, 1.75, 2.25]


def test_reliability_by_hand() -> None:
    confidence, correct = np.array([0.95, 0.95, 0.95, 0.95, 0.5, 1.0]), np.array([1, 1, 0, 0, 1, 1], dtype=bool)
    error, bins = statistics.reliability(confidence, correct)
    # The last of 15 bins holds 0.95 and 1.0: 5 rows, mean confidence 0.96, 3 correct. The row at 0.5 has its own bin.
    assert bins == [Bin(1, 0.5, 1.0), Bin(5, pytest.approx(0.96), 0.6)]
    assert error == pytest.approx((1 * 0.5 + 5 * 0.36) / 6)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_coverage_and_error_rates_are_nominal_on_simulated_grids(design: Design) -> None:
    outcome = evaluate(design, 4000, np.random.default_rng(0))
    assert within_bounds(design, outcome), outcome
