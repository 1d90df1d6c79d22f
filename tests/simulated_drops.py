"""Check the coverage and the error rate of the one-sided bounds of a drop, on simulated pairs of models.

python tests/simulated_drops.py        100,000 pairs of each design; part of make statistics
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from scipy import stats

from railkd.statistics import ALPHA
from railkd.statistics.paired import score_statistic


@dataclass(frozen=True)
class Design:
    """Two models on the same rows.

    Attributes:
        rows: number of rows.
        drop: the true drop, a share.
        disagreement: share of rows that exactly one model gets right.
    """

    rows: int
    drop: float
    disagreement: float


DESIGNS = tuple(
    Design(rows, drop, max(disagreement, 1.5 * abs(drop)))
    for rows in (400, 1000, 3000)
    for drop in (0.01, 0.03, 0.0, -0.02)
    for disagreement in (0.05, 0.1, 0.25)
)


def coverage(design: Design, pairs: int, seed: int = 0) -> float:
    """The share of simulated pairs whose 95 % bound is above the true drop: one minus the share that wrongly pass."""
    lost, won = (design.disagreement + design.drop) / 2, (design.disagreement - design.drop) / 2
    found = np.random.default_rng(seed).multinomial(design.rows, [lost, won, 1 - lost - won], size=pairs)
    # The bound is below the true drop exactly if the test of the true drop rejects.
    statistic = score_statistic(found[:, 0], found[:, 1], design.rows, design.drop)
    return float((statistic >= -stats.norm.ppf(1 - ALPHA)).mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000)
    pairs, wrong = parser.parse_args().pairs, 0
    for design in DESIGNS:
        found = coverage(design, pairs)
        wrong += not 0.94 <= found <= 0.97
        print(f"{design}: a 95 % bound covers {found:.2%}; worse by the margin and passed: {1 - found:.2%}")
    print("all within 94 to 97 %" if not wrong else f"{wrong} designs outside of 94 to 97 %")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
