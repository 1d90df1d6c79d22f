"""Check the promise of deferral on simulated held-out sets: how often is the true agreement below what was asked for?

python tests/simulated_deferrals.py        20,000 sets of each design; part of make statistics
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from railkd.statistics.deferral import choose_threshold, lower_bound

#: Fine enough for the true agreement above a threshold.
POINTS = 20_001


@dataclass(frozen=True)
class Design:
    """A small model beside a large one. Confidence is uniform from 0 to 1.

    Attributes:
        name: name in the printed table.
        rows: held-out rows.
        share: agreement that is asked for.
        agreement: confidence -> probability that both agree.
    """

    name: str
    rows: int
    share: float
    agreement: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def true_agreement(self, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the agreement among rows at or above each threshold."""
        grid = np.linspace(1.0, 0.0, POINTS)
        above = self.agreement(grid).cumsum() / np.arange(1, POINTS + 1)
        return np.interp(thresholds, grid[::-1], above[::-1])


def rising(low: float, power: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return an agreement that rises with the confidence from ``low`` to 1."""
    return lambda c: 1 - (1 - low) * (1 - c) ** power


def dip(c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an agreement that is too low among the most confident rows, and again among the least confident."""
    return np.where(c > 0.9, 0.96, np.where(c > 0.4, 0.999, 0.9))


DESIGNS = (
    Design("just too low everywhere, 300 rows", 300, 0.98, lambda c: np.full(len(c), 0.9799)),
    Design("just too low everywhere, 3,000 rows", 3000, 0.98, lambda c: np.full(len(c), 0.9799)),
    Design("rising, 300 rows", 300, 0.9, rising(0.5, 1.0)),
    Design("rising, 1,000 rows", 1000, 0.98, rising(0.8, 2.0)),
    Design("rising, 3,000 rows", 3000, 0.98, rising(0.5, 2.0)),
    Design("rising, 3,000 rows, 99.5 % asked", 3000, 0.995, rising(0.9, 3.0)),
    Design("a dip at the top, 1,000 rows", 1000, 0.98, dip),
    Design("a step at the start of the search", 1000, 0.98, lambda c: np.where(c > 0.7, 0.98, 0.9)),
)


def simulate(design: Design, sets: int, seed: int = 0) -> tuple[float, float]:
    """Return the share of held-out sets whose threshold breaks the promise, and the mean share of rows answered."""
    rng, thresholds, answered = np.random.default_rng(seed), [], 0
    for _ in range(sets):
        confidence = rng.random(design.rows)
        found = choose_threshold(confidence, rng.random(design.rows) < design.agreement(confidence), design.share)
        if found is not None:
            thresholds.append(found.threshold)
            answered += found.answered
    broken = design.true_agreement(np.array(thresholds)) < design.share
    return float(broken.sum() / sets), answered / design.rows / sets


def lowest_coverage(rows: int) -> float:
    """Return the lowest coverage of the exact bound over true shares from 50 to 99.9 %, by summing the binomial."""
    shares = np.linspace(0.5, 0.999, 500)
    bounds = lower_bound(np.arange(rows + 1), rows)
    chances = stats.binom.pmf(np.arange(rows + 1)[:, None], rows, shares)
    return float((chances * (bounds[:, None] <= shares)).sum(axis=0).min())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=20_000)
    sets, wrong = parser.parse_args().sets, 0
    for rows in (30, 150, 1000):
        found = lowest_coverage(rows)
        wrong += not found >= 0.95
        print(f"exact bound of {rows} rows: covers at least {found:.2%}")
    for design in DESIGNS:
        broken, coverage = simulate(design, sets)
        wrong += not broken <= 0.055
        print(f"{design.name}: the promise is broken in {broken:.2%} of sets; {coverage:.1%} of the rows are answered")
    print("all promises are kept" if not wrong else f"{wrong} figures are out of bounds")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
