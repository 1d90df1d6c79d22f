"""The order of rows: a permutation, a pure function of (seed, epoch), like lengths together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from railkd.training.samplers import EpochSampler, length_grouped, shuffled

LENGTHS = np.random.default_rng(0).integers(1, 100, 1003)


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 401, 1003])
@pytest.mark.parametrize("size", [1, 8, 2000])
def test_every_row_comes_exactly_once(rows: int, size: int) -> None:
    for order in (length_grouped(LENGTHS[:rows], size, seed=0, epoch=3), shuffled(rows, seed=0, epoch=3)):
        assert sorted(order.tolist()) == list(range(rows))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def orders(seed: int, epoch: int) -> list[list[int]]:
        grouped, plain = length_grouped(LENGTHS, 8, seed=seed, epoch=epoch), shuffled(1003, seed=seed, epoch=epoch)
        return [grouped.tolist(), plain.tolist()]

    first = orders(0, 5)
    np.random.seed(7)
    assert orders(0, 5) == first
    for other in (orders(0, 6), orders(1, 5)):
        assert other[0] != first[0] and other[1] != first[1]


def test_batches_hold_rows_of_like_length_and_keep_little_padding() -> None:
    def padding(order: np.ndarray) -> int:
        batches = [LENGTHS[order[start : start + 8]] for start in range(0, len(order), 8)]
        return sum(int(batch.max() * len(batch) - batch.sum()) for batch in batches)

    grouped, plain = length_grouped(LENGTHS, 8, seed=0, epoch=0), shuffled(1003, seed=0, epoch=0)
    assert padding(grouped) < 0.13 * padding(plain)


def test_only_the_last_batch_is_odd_and_batches_are_not_sorted_among_each_other() -> None:
    order = length_grouped(LENGTHS, 8, seed=0, epoch=0)
    means = [LENGTHS[order[start : start + 8]].mean() for start in range(0, 1000, 8)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3
    odd = {tuple(sorted(length_grouped(LENGTHS, 8, seed=0, epoch=e)[1000:].tolist())) for e in range(20)}
    assert len(odd) == 20  # the odd batch is not always the same rows


def test_hardly_a_batch_comes_again_in_the_next_epoch() -> None:
    def batches(epoch: int) -> set[frozenset[int]]:
        order = length_grouped(LENGTHS, 8, seed=0, epoch=epoch)
        return {frozenset(order[start : start + 8].tolist()) for start in range(0, 1000, 8)}

    assert len(batches(0) & batches(1)) < 5


@pytest.mark.parametrize("rows", [64, 128, 400, 1000])
def test_which_rows_share_a_batch_changes_by_epoch(rows: int) -> None:
    """This holds for small sets with unlike lengths too. Sorted as a whole, they would make the same batches again."""
    lengths = np.random.default_rng(1).permutation(rows) + 1

    def together(epoch: int) -> set[frozenset[int]]:
        batches = length_grouped(lengths, 8, seed=0, epoch=epoch).reshape(-1, 8)
        return {frozenset(pair) for batch in batches.tolist() for pair in itertools.combinations(batch, 2)}

    first, second = together(0), together(1)
    assert len(first & second) < 0.5 * len(first)


def test_the_sampler_asks_for_the_epoch_when_iteration_starts() -> None:
    epoch = 0
    sampler = EpochSampler(5, lambda e: shuffled(5, seed=0, epoch=e), lambda: epoch)
    zero = list(sampler)
    epoch = 3
    assert list(sampler) == shuffled(5, seed=0, epoch=3).tolist() != zero and len(sampler) == 5
