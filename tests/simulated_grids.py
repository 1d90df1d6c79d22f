"""Check the coverage of the report's intervals and the error rate of its tests on simulated grids.

A score is the sum of a task effect, the effect of the arm on this task, a seed effect and noise, rounded to whole test
rows. All arms share the seed effect, because a seed sets the initial head and the order of the rows. Arrays hold all
grids of a design at once. They go through the functions that a real report uses: `t_test`, `holm`, `best_arms`.

    make statistics        4,000 grids of each design
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from railkd.statistics import ALPHA, best_arms, holm, t_test

Array = NDArray[Any]


@dataclass(frozen=True)
class Design:
    """One kind of grid. Effects and noise are in points of accuracy.

    Attributes:
        name: name in the printed table.
        tasks: number of tasks.
        seeds: seeds of each arm.
        effects: true mean difference of each arm to the baseline; 0 if there is none.
        spread: standard deviation of an arm's effect over tasks.
        seed: standard deviation of the seed effect that all arms share.
        noise: standard deviation of a run, on the least and on the most noisy task.
        missing: share of runs that fail.
        rows: size of each test set.
        wide: noise differs so much between tasks that intervals over tasks are too wide. Their coverage has no upper
            bound then.
    """

    name: str
    tasks: int
    seeds: int
    effects: tuple[float, ...] = (0.0, 0.0, 0.0)
    spread: float = 0.5
    seed: float = 0.5
    noise: tuple[float, float] = (0.6, 0.6)
    missing: float = 0.0
    rows: int = 2000
    wide: bool = False


DESIGNS = (
    Design("1 task, 5 seeds, no effect", 1, 5, spread=0.0),
    Design("2 tasks, 3 seeds, no effect", 2, 3),
    Design("3 tasks, 5 seeds, no effect", 3, 5),
    Design("9 tasks, 5 seeds, no effect", 9, 5),
    Design("9 tasks, 5 seeds, no effect on any task", 9, 5, spread=0.0),
    Design("9 tasks, 5 seeds, 7 arms, no effect", 9, 5, effects=(0.0,) * 7),
    Design("9 tasks, noise from 0.3 to 1.5, no effect", 9, 5, noise=(0.3, 1.5)),
    Design("1 task, 5 seeds, effects", 1, 5, effects=(1.0, 0.3, 0.0), spread=0.0),
    Design("2 tasks, 3 seeds, effects", 2, 3, effects=(1.0, 0.3, 0.0)),
    Design("3 tasks, 5 seeds, effects", 3, 5, effects=(1.0, 0.3, 0.0)),
    Design("9 tasks, 5 seeds, effects", 9, 5, effects=(1.0, 0.3, 0.0)),
    Design("9 tasks, noise from 0.3 to 1.5, effects", 9, 5, effects=(1.0, 0.3, 0.0), noise=(0.3, 1.5)),
    Design("9 tasks, one run in ten failed, effects", 9, 5, effects=(1.0, 0.3, 0.0), missing=0.1),
    Design("3 tasks, noise from 0.1 to 3, no effect on any", 3, 5, spread=0.0, noise=(0.1, 3.0), wide=True),
    Design("6 tasks, test sets of 277 rows, effects", 6, 5, effects=(1.0, 0.3, 0.0), noise=(1.5, 1.5), rows=277),
)


@dataclass(frozen=True)
class Outcome:
    """Coverage and error rates on the grids of one design, as shares from 0 to 1.

    Attributes:
        mean: intervals of an arm's mean on a task that contain the true mean.
        pairs: intervals of its difference to the baseline over seeds that contain the true difference.
        pooled: intervals of a contrast over tasks that contain the true effect.
        family: grids in which at least one true effect of 0 is reported as a difference.
        power: true effects that are reported as a difference; None if the design has none.
        best: columns that mark a best arm although all arms are equal; None if they are not equal.
    """

    mean: float
    pairs: float
    pooled: float
    family: float
    power: float | None
    best: float | None


def simulate(design: Design, grids: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the scores and the true means of simulated grids.

    Args:
        design: the kind of grid.
        grids: number of grids.
        rng: source of randomness.

    Returns:
        Scores (grids, tasks, 1 + arms, seeds), nan if the run failed, and true means (grids, tasks, 1 + arms). The
        first arm is the baseline.
    """
    arms = 1 + len(design.effects)
    level = rng.uniform(60, 90, (grids, design.tasks, 1))
    effect = np.array([0.0, *design.effects]) + design.spread * rng.standard_normal((grids, design.tasks, arms))
    effect[..., 0] = 0.0  # effects are differences to the baseline
    truth = level + effect
    noise = np.linspace(*design.noise, design.tasks)[:, None, None]
    scores = truth[..., None] + noise * rng.standard_normal((grids, design.tasks, arms, design.seeds))
    scores += design.seed * rng.standard_normal((grids, design.tasks, 1, design.seeds))
    scores = np.round(scores * design.rows / 100) * 100 / design.rows
    failed = rng.random(scores.shape) < design.missing
    failed[..., :2] = False  # two seeds never fail, so every task has a mean
    return np.where(failed, np.nan, scores), truth


def evaluate(design: Design, grids: int, rng: np.random.Generator) -> Outcome:
    """Return how often the intervals and tests of simulated grids are right."""
    scores, truth = simulate(design, grids, rng)
    effects = np.array(design.effects)
    differences = scores[:, :, 1:] - scores[:, :, :1]
    true_differences = truth[:, :, 1:] - truth[:, :, :1]
    complete = ~np.isnan(differences).any(axis=-1)
    finished = ~np.isnan(scores).any(axis=-1)
    mean = covers(scores[finished], truth[finished])
    pairs = covers(differences[complete], true_differences[complete])
    units = np.nanmean(differences, axis=-1).swapaxes(1, 2) if design.tasks > 1 else differences[:, 0]
    low, high, p = t_test(units)
    tested = ~np.isnan(p)  # equal values, which rounding to rows can give, have no test
    significant = holm(np.where(tested, p, 1.0)) < ALPHA
    real = np.broadcast_to(effects != 0, significant.shape)
    return Outcome(
        mean=mean,
        pairs=pairs,
        pooled=float(((low <= effects) & (effects <= high))[tested].mean()),
        family=float((significant & ~real).any(axis=-1).mean()),
        power=float(significant[real].mean()) if real.any() else None,
        best=_share_marked(scores) if not effects.any() and not design.spread and not design.missing else None,
    )


def covers(values: Array, truth: Array) -> float:
    """Return the share of t intervals over the last axis that contain the true mean."""
    low, high, p = t_test(values)
    return float(((low <= truth) & (truth <= high))[~np.isnan(p)].mean())


def _share_marked(scores: Array) -> float:
    """Return the share of columns (one per task) in which an arm is marked as best."""
    p = t_test(scores[..., :, None, :] - scores[..., None, :, :])[2]
    return float(best_arms(scores.mean(axis=-1), p).any(axis=-1).mean())


def main() -> None:
    """Print a line for each design, and exit with an error if a figure is out of its bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grids", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    outcomes = {design.name: evaluate(design, arguments.grids, rng) for design in DESIGNS}
    print(f"{arguments.grids:,} grids of each design; coverage of 95 % intervals and error rates, %")
    print(f"{'':48}{'means':>7}{'pairs':>7}{'tasks':>7}{'family':>8}{'power':>7}{'best':>7}")
    for name, o in outcomes.items():
        rest = "".join(
            f"{100 * value:{w}.1f}" if value is not None else " " * w for value, w in ((o.power, 7), (o.best, 7))
        )
        print(f"{name:48}{100 * o.mean:7.1f}{100 * o.pairs:7.1f}{100 * o.pooled:7.1f}{100 * o.family:8.1f}{rest}")
    bad = [design.name for design in DESIGNS if not within_bounds(design, outcomes[design.name])]
    raise SystemExit(f"out of bounds: {'; '.join(bad)}" if bad else 0)


def within_bounds(design: Design, outcome: Outcome) -> bool:
    """Return True for a coverage of 94 to 96 %, at most 6 % of families with an error and 5 % of columns marked."""
    nominal = all(0.94 <= share <= 0.96 for share in (outcome.mean, outcome.pairs))
    nominal &= 0.94 <= outcome.pooled <= (1.0 if design.wide else 0.96)
    return nominal and outcome.family <= 0.06 and (outcome.best or 0.0) <= 0.05


if __name__ == "__main__":
    main()
