"""Compare the one-sided statistics of two models with published values, numbers by hand, and simulated pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from railkd.statistics import paired
from simulated_drops import DESIGNS, SPARSE, Design, passes


@pytest.mark.parametrize(
    ("lost", "won", "rows", "low", "high"),
    [
        (1, 7, 21, -0.517, -0.026),  # Bentur et al. 2009, as Fagerland et al. 2014 report it
        (6, 16, 161, -0.124, -0.005),  # Cavo et al. 2012, likewise
    ],
)
def test_published_intervals(lost: int, won: int, rows: int, low: float, high: float) -> None:
    z = stats.norm.ppf(0.975)
    assert paired.score_statistic(lost, won, rows, low) == pytest.approx(z, abs=0.02)
    assert paired.score_statistic(lost, won, rows, high) == pytest.approx(-z, abs=0.03)


def test_a_drop_of_zero_is_mcnemars_test() -> None:
    rows = np.array([[6, 2], [0, 9], [40, 41], [5, 5]])
    by_hand = (rows[:, 0] - rows[:, 1]) / np.sqrt(rows.sum(axis=1))
    np.testing.assert_allclose(paired.score_statistic(rows[:, 0], rows[:, 1], 200, 0.0), by_hand, atol=1e-12)


def test_a_candidate_that_wins_no_row_is_judged_exactly() -> None:
    """Without a lost row the bound is 1 - 0.05 ** (1 / n); with some, as many or fewer are one in twenty there."""
    for rows in (1, 20, 300, 5000):
        assert paired.drop_of_shares(0, 0, rows, 0.01).bound == pytest.approx(1 - 0.05 ** (1 / rows))
    for lost, rows in ((1, 5), (3, 300), (40, 41)):
        assert stats.binom.cdf(lost, rows, paired.drop_of_shares(lost, 0, rows, 0.01).bound) == pytest.approx(0.05)
    assert paired.drop_of_shares(9, 0, 9, 0.01).bound == 1.0


@pytest.mark.parametrize("counts", [(0, 0), (3, 0), (0, 3), (7, 5), (300, 0), (0, 300), (150, 150), (299, 1)])
def test_bound_and_p_value_decide_alike(counts: tuple[int, int]) -> None:
    for margin in (0.005, 0.01, 0.05, 0.4, 0.9):
        drop = paired.drop_of_shares(*counts, 300, margin)
        assert (drop.bound < margin) == (drop.p < 0.05)
        assert drop.drop <= drop.bound <= 1.0
        # The tails of the binomial test both hold the outcome itself.
        both = 0.0 if counts[1] else stats.binom.pmf(counts[0], 300, margin)
        assert drop.p + drop.p_worse == pytest.approx(1 + both)


def test_the_bound_grows_with_every_lost_row_and_shrinks_with_every_won_one() -> None:
    for lost in range(5):
        bounds = [paired.drop_of_shares(lost, won, 100, 0.1).bound for won in range(5)]
        assert bounds == sorted(bounds, reverse=True) and len(set(bounds)) == 5
    for won in range(5):
        bounds = [paired.drop_of_shares(lost, won, 100, 0.1).bound for lost in range(5)]
        assert bounds == sorted(bounds) and len(set(bounds)) == 5


@pytest.mark.parametrize("margin", [0.005, 0.01, 0.03, 0.2])
def test_the_rows_needed_are_the_fewest_that_let_an_equal_model_pass(margin: float) -> None:
    fewest = paired.rows_needed(0.0, margin)
    assert paired.drop_of_shares(0, 0, fewest, margin).p < 0.05
    assert paired.drop_of_shares(0, 0, fewest - 1, margin).p >= 0.05


def test_with_the_rows_needed_an_equal_model_passes_four_times_out_of_five() -> None:
    rows = paired.rows_needed(0.04, 0.01)
    found = np.random.default_rng(0).multinomial(rows, [0.02, 0.02, 0.96], size=20_000)
    passed = paired.score_statistic(found[:, 0], found[:, 1], rows, 0.01) < stats.norm.ppf(0.05)
    assert passed.mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("design", [Design(1000, 0.01, 0.05), Design(3000, 0.03, 0.1), Design(400, 0.0, 0.25)])
def test_a_bound_covers_as_often_as_it_says(design: Design) -> None:
    """A model that is worse by exactly the margin passes at most 5.5 % of the time, by summing all outcomes."""
    assert design in DESIGNS and 0.03 <= passes(design) <= 0.055


@pytest.mark.parametrize("design", [one for one in SPARSE if one.rows in (88, 268, 400)])
def test_a_model_that_wins_few_rows_passes_no_more_often(design: Design) -> None:
    assert passes(design) <= 0.055


def test_the_bootstrap_of_a_share_agrees_with_the_score_method() -> None:
    right = np.zeros((2, 1000))
    right[0, :900], right[1, 20:910] = 1, 1  # 20 rows lost, 10 won
    found = paired.drop_of_scores(lambda rows: tuple(right[:, rows].mean(axis=1)), 1000, 0.03)
    wanted = paired.drop_of_shares(20, 10, 1000, 0.03)
    assert found.drop == pytest.approx(wanted.drop) == pytest.approx(0.01)
    assert found.bound == pytest.approx(wanted.bound, abs=0.0015)
    assert found.p < 0.05 and wanted.p < 0.05 and found.lost is None


def test_resamples_without_a_score_do_not_count() -> None:
    assert paired.drop_of_scores(lambda rows: (math.nan, math.nan), 5, 0.01).p == 1.0


def test_the_smallest_margin_is_the_largest_bound() -> None:
    worse, better = paired.drop_of_shares(9, 1, 500, 0.01), paired.drop_of_shares(0, 90, 500, 0.01)
    assert better.bound < 0 and paired.smallest_margin([better]) == 0.0
    assert paired.smallest_margin([better, worse]) == worse.bound
    assert (
        paired.drop_of_shares(9, 1, 500, worse.bound + 1e-9).p
        < 0.05
        < paired.drop_of_shares(9, 1, 500, worse.bound - 1e-9).p
    )
