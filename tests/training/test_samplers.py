"""The order of rows: a permutation, a pure function of (seed, epoch), like lengths together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from datasets import Dataset

from railkd.errors import RailkdError
from railkd.training.samplers import EpochSampler, balanced, epoch_order, length_grouped, row_classes, shuffled

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


# ---- balanced draws -------------------------------------------------------------------------------------------------

CLASSES = np.array(([0] * 97 + [2] * 3 + [-100] * 20) * 10)


def test_balanced_draws_give_every_class_the_same_chance_and_keep_rows_without_one() -> None:
    """A row comes in inverse proportion to the size of its class; a class that does not occur has no part."""
    drawn = np.concatenate([balanced(CLASSES, seed=0, epoch=epoch) for epoch in range(20)])
    counts = {label: int((CLASSES[drawn] == label).sum()) for label in (0, 2, -100)}
    spread = np.sqrt(20 * 1000 / 4)
    assert counts[-100] == 20 * 200 and counts[0] + counts[2] == 20 * 1000
    assert abs(counts[2] - 20 * 500) < 4 * spread
    alone = balanced(CLASSES, seed=0, epoch=0)
    assert sorted(alone[CLASSES[alone] < 0].tolist()) == np.flatnonzero(CLASSES < 0).tolist()
    of_rare = np.bincount(drawn, minlength=len(CLASSES))[CLASSES == 2]
    assert len(of_rare) == 30 and abs(of_rare - 20 * 500 / 30).max() < 6 * np.sqrt(20 * 500 / 30)


def test_balanced_draws_depend_on_seed_and_epoch_alone_and_copies_are_spread_over_batches() -> None:
    lengths = np.arange(len(CLASSES))
    order = epoch_order(len(CLASSES), lengths, 8, seed=1, classes=CLASSES)
    np.random.seed(7)
    again = epoch_order(len(CLASSES), lengths, 8, seed=1, classes=CLASSES)
    assert order(2).tolist() == again(2).tolist() != order(3).tolist()
    assert sorted(order(2).tolist()) == sorted(balanced(CLASSES, seed=1, epoch=2).tolist())
    batches = order(2).reshape(-1, 8)
    kinds = np.mean([len(set(CLASSES[batch][CLASSES[batch] >= 0])) == 1 for batch in batches])
    assert kinds < 0.08  # of 5 to 8 labelled rows one class by chance: 2 * 0.5 ** 7 to 2 * 0.5 ** 5
    plain = epoch_order(len(CLASSES), None, 8, seed=1, classes=CLASSES)
    assert plain(2).tolist() == balanced(CLASSES, seed=1, epoch=2).tolist()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", "b"]}, "got rows without labels"),
        ({"labels": [0.5, 1.0]}, "got numbers or several labels a row"),
        ({"labels": [[1.0, 0.0], [0.0, 1.0]]}, "got numbers or several labels a row"),
        ({"labels": [-100, -100]}, "no row has a label"),
    ],
)
def test_rows_without_one_class_each_cannot_be_balanced(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(RailkdError, match=f"Balanced sampling needs rows with one class each, .*{message}"):
        row_classes(Dataset.from_dict(columns), 2)
