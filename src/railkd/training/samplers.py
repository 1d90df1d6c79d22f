"""The order of rows: pure functions of (seed, epoch), so that a resumed run meets the batches it would have met."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

#: Batches that are sorted by length together, at most. Pools of fifty have a tenth fewer tokens, and a student that is
#: worse by a quarter of a point and more at the mercy of its seed (docs/performance.md).
BATCHES_PER_POOL = 10


def shuffled(rows: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(rows)."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def length_grouped(lengths: Sequence[int] | np.ndarray, batch_size: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the rows in which each run of ``batch_size`` holds rows of like length.

    Rows are shuffled, cut into pools of some batches, sorted within each pool, cut into batches, and the batches
    shuffled. There are two pools at least, so that of a small set, too, other rows share a batch at the next epoch. The
    odd batch at the end stays there: all others are full.

    >>> order = length_grouped([5, 1, 5, 1], 2, seed=0, epoch=0)
    >>> sorted(order.tolist()), order.tolist()[:2] in ([0, 2], [2, 0], [1, 3], [3, 1])
    ([0, 1, 2, 3], True)
    """
    lengths = np.asarray(lengths)
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    whole = len(order) - len(order) % batch_size
    body, rest = order[:whole], order[whole:]
    pool = batch_size * max(1, min(BATCHES_PER_POOL, whole // batch_size // 2))
    batches = [
        part[np.argsort(-lengths[part], kind="stable")].reshape(-1, batch_size)
        for part in (body[start : start + pool] for start in range(0, whole, pool))
    ]
    if batches:
        body = rng.permutation(np.concatenate(batches)).reshape(-1)
    return np.concatenate([body, rest])


def epoch_order(rows: int, lengths: np.ndarray | None, batch_size: int, *, seed: int) -> Callable[[int], np.ndarray]:
    """Return the function from an epoch to the row order of training.

    Args:
        rows: how many.
        lengths: (rows,), for batches of like length; None: plain shuffling.
        batch_size: of all ranks together.
        seed: of the order.
    """

    def order(epoch: int) -> np.ndarray:
        if lengths is None:
            return shuffled(rows, seed=seed, epoch=epoch)
        return length_grouped(lengths, batch_size, seed=seed, epoch=epoch)

    return order


def row_lengths(dataset: Any, rows: int) -> np.ndarray | None:
    """Return the column of lengths (rows,) of a prepared data set, or None if it has none or another number of rows."""
    names = getattr(dataset, "column_names", None) or []
    return np.asarray(dataset["length"][:]) if "length" in names and len(dataset) == rows else None


def longest_first(dataset: Any) -> np.ndarray:
    """Return the row order of evaluation: like lengths together, and a lack of memory shows in the first batch."""
    names = getattr(dataset, "column_names", [])
    lengths = [len(ids) for ids in dataset["input_ids"][:]] if "input_ids" in names else [0] * len(dataset)
    return np.argsort(-np.asarray(lengths), kind="stable")


def restored(values: Any, order: np.ndarray | None) -> Any:
    """Return arrays, one or a tuple, with their rows put back from ``order`` into that of the data set.

    >>> restored(np.array([30, 10]), np.array([1, 0])).tolist()
    [10, 30]
    """
    if values is None or order is None:
        return values
    if isinstance(values, tuple):
        return tuple(restored(part, order) for part in values)
    result = np.empty_like(values)
    result[order] = values
    return result


class EpochSampler(Sampler[int]):
    """Yields an order that depends on the epoch of the moment.

    Args:
        rows: how many. order: epoch -> permutation. epoch: tells the epoch when iteration starts.
    """

    def __init__(self, rows: int, order: Callable[[int], np.ndarray], epoch: Callable[[], int]) -> None:
        self.rows, self._order, self._epoch = rows, order, epoch

    def __iter__(self) -> Iterator[int]:
        yield from self._order(self._epoch()).tolist()

    def __len__(self) -> int:
        return self.rows
