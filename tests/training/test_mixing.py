"""Shares of sources hold within each batch on every rank, over an epoch, and depend on seed and epoch alone."""

from __future__ import annotations

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from railkd.errors import RailkdError
from railkd.training.fields import check_shares
from railkd.training.mixing import Mixture, batch_counts
from railkd.training.samplers import EpochSampler, rows_seen

ROWS, SHARES = (40, 300, 11), (0.5, 0.375, 0.125)
SOURCE = np.repeat(np.arange(3), ROWS)
LENGTHS = np.random.default_rng(0).integers(1, 100, len(SOURCE))


def mixture(size: int = 8, ranks: int = 1, seed: int = 0, **more: np.ndarray) -> Mixture:
    return Mixture(ROWS, SHARES, size, ranks, seed, **more)


@given(
    parts=st.lists(st.integers(1, 100), min_size=2, max_size=6),
    size=st.integers(1, 40),
    batches=st.integers(1, 60),
    last=st.integers(1, 40),
)
def test_a_batch_has_its_shares_to_a_row_and_so_have_all_together(
    parts: list[int], size: int, batches: int, last: int
) -> None:
    shares, sizes = np.asarray(parts) / sum(parts), np.asarray([*[size] * batches, min(size, last)])
    counts = batch_counts(sizes.tolist(), shares.tolist())
    assert counts.sum(axis=1).tolist() == sizes.tolist() and counts.min() >= 0
    assert (abs(counts - np.outer(sizes, shares)) < 1).all()
    assert (abs(counts.cumsum(axis=0) - np.outer(sizes.cumsum(), shares)) < 1.5).all()


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("more", [{}, {"lengths": LENGTHS}, {"classes": np.where(SOURCE == 0, SOURCE, -100)}])
def test_shares_hold_in_the_batches_that_accelerate_gives_each_rank(ranks: int, more: dict[str, np.ndarray]) -> None:
    sampler = EpochSampler(len(SOURCE), mixture(ranks=ranks, **more).order(), lambda: 1)
    batches = BatchSampler(sampler, 8, drop_last=True)
    of_ranks = [list(BatchSamplerShard(batches, ranks, rank)) for rank in range(ranks)]
    assert len({len(found) for found in of_ranks}) == 1 and len(of_ranks[0]) >= len(SOURCE) // 8 // ranks
    for found in of_ranks:
        for rows in found:
            assert np.bincount(SOURCE[rows], minlength=3).tolist() == [4, 3, 1]


@pytest.mark.parametrize("more", [{}, {"lengths": LENGTHS}])
def test_each_row_of_a_source_comes_once_before_any_comes_twice(more: dict[str, np.ndarray]) -> None:
    order = mixture(**more).order()
    seen = np.zeros(len(SOURCE), dtype=int)
    for epoch in range(7):
        rows = order(epoch)
        assert len(rows) == len(SOURCE)
        seen += np.bincount(rows, minlength=len(SOURCE))
        for source in range(3):
            assert np.ptp(seen[source == SOURCE]) <= 1
    assert seen[SOURCE == 0].min() > 25 and seen[SOURCE == 1].max() == 4


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    one, two, other = (mixture(seed=seed, lengths=LENGTHS).order() for seed in (0, 0, 1))
    np.random.seed(5)
    assert [one(epoch).tolist() for epoch in (3, 0)] == [two(epoch).tolist() for epoch in (3, 0)]
    assert one(3).tolist() != one(4).tolist() and one(3).tolist() != other(3).tolist()


def test_lengths_keep_little_padding_and_no_rows_always_meet() -> None:
    lengths = np.random.default_rng(2).integers(1, 100, 1000)

    def batches(rows: tuple[int, int], *epochs: int, **more: np.ndarray) -> list[list[int]]:
        order = Mixture(rows, (0.5, 0.5), 8, 1, 0, **more).order()
        return [batch for epoch in epochs for batch in order(epoch).reshape(-1, 8).tolist()]

    def padding(found: list[list[int]]) -> int:
        return sum(int((lengths[rows].max() - lengths[rows]).sum()) for rows in found)

    grouped = batches((400, 600), 0, 1, lengths=lengths)
    assert padding(grouped) < 0.4 * padding(batches((400, 600), 0, 1))
    assert all(len(set(rows)) == 8 for rows in grouped)
    # 40 rows are a pool of their own. Sorted, each would have the same three others beside it in all batches.
    few = batches((40, 960), 0, lengths=lengths)
    beside = {other for rows in few if 0 in rows for other in rows if other < 40}
    assert len(beside) > 20


def test_balanced_draws_give_each_class_of_the_labelled_rows_the_same_chance() -> None:
    classes = np.where(SOURCE == 0, np.arange(len(SOURCE)) % 10 == 0, -100).astype(int)
    rows = np.concatenate([mixture(classes=classes).order()(epoch) for epoch in range(10)])
    labelled = classes[rows[SOURCE[rows] == 0]]
    assert abs(len(labelled) - 10 * 351 / 2) < 10
    assert abs(labelled.mean() - 0.5) < 4 * np.sqrt(0.25 / len(labelled))


def test_rows_seen_are_those_of_the_steps() -> None:
    order = mixture().order()
    sampler = EpochSampler(len(SOURCE), order, lambda: 0)
    for steps in (0, 1, 43, 44, 45, 100):  # 44 steps of 8 rows are an epoch of 351 rows
        rows = np.concatenate([order(epoch) for epoch in range(4)])
        until = steps // 44 * 351 + min(steps % 44 * 8, 351)
        wanted = np.bincount(SOURCE[rows[:until]], minlength=3).tolist()
        assert rows_seen(sampler, 351, steps, 8, [40, 340]) == wanted
    assert rows_seen(sampler, 344, 86, 8, [340])[0] + rows_seen(sampler, 344, 86, 8, [340])[1] == 688


@pytest.mark.parametrize(
    ("rows", "shares"),
    [([3], None), (None, [1.0]), ([3, 4], [1.0]), ([3, 0], [0.5, 0.5]), ([3, 4], [0.5, 0.6]), ([3, 4], [1.0, 0.0])],
)
def test_shares_that_do_not_fit_are_refused(rows: list[int] | None, shares: list[float] | None) -> None:
    with pytest.raises(RailkdError, match="Expected source_"):
        check_shares(rows, shares)
    check_shares([3, 4], [0.25, 0.75])
