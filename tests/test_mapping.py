"""Laws of the draws: pure functions, uniform, in depth order, and the property of each strategy."""

from __future__ import annotations

import collections
import itertools
import json
import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from railkd import mapping
from railkd.errors import RailkdError

SRC = Path(__file__).resolve().parents[1] / "src"


def test_a_draw_depends_on_seed_and_index_alone_also_in_another_process() -> None:
    wanted = [
        [list(mapping.draw(3, 11, seed=s, epoch=e, strategy=k, ordered=o)) for e in range(6)]
        for s in (0, 7)
        for k in mapping.STRATEGIES
        for o in (True, False)
    ]
    script = (
        "import json, random; from railkd import mapping; random.seed(5);"
        "print(json.dumps([[mapping.draw(3, 11, seed=s, epoch=e, strategy=k, ordered=o)"
        " for e in reversed(range(6))][::-1] for s in (0, 7) for k in mapping.STRATEGIES for o in (True, False)]))"
    )
    env = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == wanted


def test_seeds_and_indices_give_different_draws() -> None:
    by_epoch = {mapping.draw(6, 12, seed=0, epoch=e) for e in range(50)}
    by_seed = {mapping.draw(6, 12, seed=s, epoch=0) for s in range(50)}
    assert len(by_epoch) > 40 and len(by_seed) > 40  # of 924


@pytest.mark.parametrize("over", ["epochs", "seeds"])
def test_uniform_draws_take_every_subset_equally_often(over: str) -> None:
    draws = 8000
    counts = collections.Counter(
        mapping.draw(3, 6, seed=0 if over == "epochs" else i, epoch=i if over == "epochs" else 0) for i in range(draws)
    )
    assert set(counts) == set(itertools.combinations(range(1, 7), 3))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_sorted_draws_follow_the_law_of_order_statistics() -> None:
    m, n, draws = 3, 7, 8000
    drawn = np.array([mapping.draw(m, n, seed=3, epoch=e) for e in range(draws)])
    for i, law in enumerate(mapping.order_statistics(m, n)):
        seen = np.bincount(drawn[:, i], minlength=n + 1)[1:]
        expected = np.array([float(p) * draws for p in law])
        assert (seen[expected == 0] == 0).all()
        assert stats.chisquare(seen[expected > 0], expected[expected > 0]).pvalue > 1e-3


def test_unsorted_draws_put_every_block_in_every_place_equally_often() -> None:
    drawn = np.array([mapping.draw(3, 6, seed=1, epoch=e, ordered=False) for e in range(6000)])
    for place in range(3):
        assert stats.chisquare(np.bincount(drawn[:, place], minlength=7)[1:]).pvalue > 1e-3


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 5), (2, 5), (5, 5), (5, 11), (6, 12)])
def test_order_statistics_sum_to_one_and_have_the_known_mean(m: int, n: int) -> None:
    law = mapping.order_statistics(m, n)
    assert len(law) == m
    for i, row in enumerate(law, start=1):
        assert sum(row) == 1
        assert sum(t * p for t, p in enumerate(row, start=1)) == Fraction(i * (n + 1), m + 1)


@pytest.mark.parametrize(("n", "m", "share"), [(12, 6, 0.125), (11, 5, 0.162), (5, 2, 0.216)])
def test_three_uniform_draws_miss_a_block_as_often_as_derived(n: int, m: int, share: float) -> None:
    runs = 3000
    missed = sum(n - len({b for e in range(3) for b in mapping.draw(m, n, seed=s, epoch=e)}) for s in range(runs))
    assert missed / (runs * n) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("n", range(1, 25))
def test_every_cycle_of_cyclic_draws_uses_every_block_and_no_draw_one_twice(n: int) -> None:
    for m in range(1, n + 1):
        cycle = math.ceil(n / m)
        for start in (0, cycle, 7 * cycle):
            draws = [mapping.draw(m, n, seed=n, epoch=e, strategy="cyclic") for e in range(start, start + cycle)]
            assert all(len(set(draw)) == m for draw in draws)
            assert set().union(*draws) == set(range(1, n + 1))
            dealt = list(itertools.chain(*draws[:-1]))
            assert len(set(dealt)) == len(dealt)  # only the last draw of a cycle may hold a block again


def test_each_cycle_has_a_deck_of_its_own() -> None:
    assert len({mapping.draw(6, 12, seed=0, epoch=2 * cycle, strategy="cyclic") for cycle in range(20)}) > 15


@pytest.mark.parametrize(("m", "n"), [(1, 4), (2, 5), (3, 12), (5, 11), (4, 4)])
def test_stratified_draws_take_one_block_out_of_each_depth_quantile(m: int, n: int) -> None:
    drawn = [mapping.draw(m, n, seed=0, epoch=e, strategy="stratified") for e in range(200)]
    strata = [sorted({draw[i] for draw in drawn}) for i in range(m)]
    assert list(itertools.chain(*strata)) == list(range(1, n + 1))  # a partition, in depth order
    assert max(map(len, strata)) - min(map(len, strata)) <= 1


def test_even_draws_are_evenly_spaced_and_never_change() -> None:
    for n in range(1, 25):
        for m in range(1, n + 1):
            kept = {mapping.draw(m, n, seed=s, epoch=e, strategy="even") for s in (0, 1) for e in (0, 9)}
            assert len(kept) == 1
            (draw,) = kept
            gaps = [b - a for a, b in itertools.pairwise((0, *draw, n + 1))]
            assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("strategy", mapping.STRATEGIES)
def test_ordered_is_sorted_and_unordered_is_the_same_blocks_as_drawn(strategy: str) -> None:
    blocks = (2, 3, 5, 7, 11, 13)
    for epoch in range(40):
        draw = mapping.draw(3, blocks, seed=0, epoch=epoch, strategy=strategy)
        loose = mapping.draw(3, blocks, seed=0, epoch=epoch, strategy=strategy, ordered=False)
        assert list(draw) == sorted(loose) and set(draw) <= set(blocks) and len(set(draw)) == 3


def test_drawing_all_candidates_in_order_is_the_identity() -> None:
    for strategy in mapping.STRATEGIES:
        assert mapping.draw(5, 5, seed=0, epoch=3, strategy=strategy) == (1, 2, 3, 4, 5)


def test_pkd_matches_are_the_papers() -> None:
    assert mapping.skip(6, 12) == (2, 4, 6, 8, 10)
    assert mapping.last(6, 12) == (7, 8, 9, 10, 11)
    assert mapping.skip(3, 6) == (2, 4)
    assert mapping.last(3, 6) == (4, 5)
    assert mapping.skip(5, 12) == (2, 4, 7, 9)
    assert mapping.skip(1, 6) == mapping.last(1, 6) == ()
    assert mapping.skip(4, 4) == mapping.last(4, 4) == (1, 2, 3)


def test_candidates_leave_out_the_last_block_unless_asked() -> None:
    assert mapping.candidates(4) == (1, 2, 3)
    assert mapping.candidates(4, include_last=True) == (1, 2, 3, 4)


def test_the_draw_index_is_the_epoch_the_step_or_nothing() -> None:
    assert [mapping.draw_index(name, epoch=2, step=31) for name in ("epoch", "step", "never")] == [2, 31, 0]


def test_coverage_counts_every_match_once() -> None:
    draws = [mapping.draw(3, 6, seed=0, epoch=e) for e in range(10)]
    table = mapping.coverage(draws, range(1, 7))
    assert [sum(row[i] for row in table.values()) for i in range(3)] == [10, 10, 10]
    assert sum(table[4]) == sum(4 in draw for draw in draws)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"m": 4, "candidates": 3}, "4 matched student blocks but only 3 candidate"),
        ({"m": 0, "candidates": 3}, "Expected at least 1"),
        ({"m": 2, "candidates": [1, 1, 2]}, "that differ"),
        ({"m": 2, "candidates": 3, "strategy": "unifrom"}, "Did you mean 'uniform'"),
    ],
)
def test_impossible_draws_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(RailkdError, match=message):
        mapping.draw(**arguments, seed=0, epoch=0)


def test_unknown_redraws_and_impossible_depths_are_refused() -> None:
    with pytest.raises(RailkdError, match="Did you mean 'epoch'"):
        mapping.draw_index("epochs", epoch=0, step=0)
    for match in (mapping.skip, mapping.last):
        for s, n in ((0, 3), (4, 3)):
            with pytest.raises(RailkdError, match="Expected 1 <= student blocks <= teacher blocks"):
                match(s, n)


def test_integers_of_another_type_draw_the_same_blocks() -> None:
    plain = mapping.draw(5, 11, seed=3, epoch=1)
    assert mapping.draw(np.int64(5), np.arange(1, 12), seed=np.int64(3), epoch=1.0) == plain  # type: ignore[arg-type]
    assert all(type(block) is int for block in mapping.draw(5, np.arange(1, 12), seed=3, epoch=1))  # type: ignore[arg-type]


# ---- Draws: the value of a run ----------------------------------------------------------------------


def test_the_draws_of_a_run_are_the_draws_of_its_moments_each_once() -> None:
    epochs, steps = 4, 12
    for strategy in mapping.STRATEGIES:
        for ordered in (True, False):
            moments = {
                redraw: mapping.Draws.between(4, 9, redraw=redraw, strategy=strategy, ordered=ordered)
                for redraw in mapping.REDRAWS
            }
            for redraw, count in (("epoch", epochs), ("step", steps), ("never", 1)):
                draws = moments[redraw]
                used = draws.schedule(3, steps=steps, epochs=epochs)
                assert len(used) == count
                for step in range(steps):
                    epoch = step * epochs // steps
                    index = mapping.draw_index(redraw, epoch=epoch, step=step)
                    wanted = mapping.draw(3, 8, seed=3, epoch=index, strategy=strategy, ordered=ordered)
                    assert draws.at(3, epoch=epoch, step=step) == used[index] == wanted


def test_draws_between_two_models_leave_out_the_last_blocks_unless_all_take_part() -> None:
    inner, everything = mapping.Draws.between(4, 9), mapping.Draws.between(4, 9, candidates="all")
    assert (inner.m, inner.candidates) == (3, tuple(range(1, 9)))
    assert (everything.m, everything.candidates) == (4, tuple(range(1, 10)))
    assert inner == mapping.Draws(3, tuple(range(1, 9))) and hash(inner) != hash(everything)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mapping.Draws(3, (1, 2)), "3 matched student blocks but only 2 candidate"),
        (lambda: mapping.Draws(2, (1, 2), redraw="steps"), "unknown redraw 'steps'.*Did you mean 'step'"),
        (lambda: mapping.Draws(2, (1, 2), strategy="cycle"), "unknown strategy 'cycle'.*Did you mean 'cyclic'"),
        (lambda: mapping.Draws.between(3, 6, candidates="al"), "unknown candidates 'al'.*Did you mean 'all'"),
        (lambda: mapping.Draws.between(1, 6), "candidates='all'"),
    ],
)
def test_impossible_rules_are_refused(make: Any, message: str) -> None:
    with pytest.raises(RailkdError, match=message):
        make()
