"""The exact bound against published values, the search by hand, and the promise on simulated held-out sets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from railkd.statistics.deferral import candidates, choose_threshold, fewest_rows, lower_bound
from simulated_deferrals import DESIGNS, lowest_coverage, simulate


@pytest.mark.parametrize(
    ("successes", "rows", "low", "high"),
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_published_bounds(successes: int, rows: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 5: two sides of 2.5 % each."""
    assert float(lower_bound(successes, rows, 0.025)) == pytest.approx(low, abs=5e-5)
    assert 1 - float(lower_bound(rows - successes, rows, 0.025)) == pytest.approx(high, abs=5e-5)


def test_the_bound_is_the_share_at_which_so_many_agreements_are_one_in_twenty() -> None:
    for k, n in ((7, 9), (148, 150), (990, 1000)):
        assert stats.binom.sf(k - 1, n, float(lower_bound(k, n))) == pytest.approx(0.05)
    for share in (0.5, 0.9, 0.98, 0.999):
        n = fewest_rows(share)
        assert float(lower_bound(n, n)) >= share > float(lower_bound(n - 1, n - 1))


def test_the_exact_bound_covers_at_least_95_percent() -> None:
    assert min(lowest_coverage(rows) for rows in (30, 150)) >= 0.95


def test_the_candidates_depend_on_the_number_of_rows_alone_and_end_with_all_of_them() -> None:
    for rows, share in ((149, 0.98), (700, 0.98), (5000, 0.9), (40, 0.9)):
        found = candidates(rows, share)
        assert found[-1] == rows and (np.diff(found) > 0).all() and found[0] >= fewest_rows(share)
    assert not len(candidates(148, 0.98))


def test_the_first_candidate_that_fails_ends_the_search() -> None:
    """Twenty disagreements in a row after 500 rows: what comes later cannot make up for them.

    The candidates are 386, 406, ... 486, 506, ...; with 6 disagreements of 506 the bound is below 98 %.
    """
    confidence = np.linspace(1.0, 0.2, 1000)
    agrees = np.ones(1000, dtype=bool)
    everything = choose_threshold(confidence, agrees, 0.98)
    assert everything is not None and (everything.threshold, everything.coverage) == (0.0, 1.0)
    agrees[500:520] = False
    found = choose_threshold(confidence, agrees, 0.98)
    assert found is not None and found.answered == 486 and found.bound >= 0.98 > float(lower_bound(500, 506))
    assert ((confidence >= found.threshold).sum(), agrees[: found.answered].sum()) == (found.answered, found.agreed)
    agrees[:9] = False
    assert choose_threshold(confidence, agrees, 0.98) is None
    assert choose_threshold(confidence[:148], np.ones(148, dtype=bool), 0.98) is None


def test_rows_of_equal_confidence_are_answered_alike() -> None:
    confidence = np.repeat([0.9, 0.8, 0.3], [100, 250, 250])
    found = choose_threshold(confidence, confidence > 0.5, 0.95)
    assert found is not None and found.answered in (100, 350)
    assert found.answered == (confidence >= found.threshold).sum()
    same = choose_threshold(np.full(200, 0.7), np.ones(200, dtype=bool), 0.95)
    assert same is not None and same.answered == 200 and same.threshold == 0.0


@pytest.mark.parametrize("design", [DESIGNS[0], DESIGNS[3]], ids=lambda design: design.name)
def test_the_promise_is_broken_in_at_most_one_set_in_twenty(design: object) -> None:
    sets = 400
    broken, coverage = simulate(design, sets)  # type: ignore[arg-type]
    assert broken <= 0.05 + 3 * (0.05 * 0.95 / sets) ** 0.5
    assert 0 <= coverage < 1
