"""Composes each batch of several sources by their shares, as a function of (seed, epoch).

A source with a small share is not read to its end in an epoch, and goes on in the next one. A source with a large share
is read several times. Either way each of its rows comes once before any comes twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: Largest number of batches in a pool that is sorted by length. Pools of 50 save a tenth of the tokens, but the student
#: is worse by a quarter of a point and varies more with the seed (docs/performance.md).
BATCHES_PER_POOL = 10


def batch_counts(batches: Sequence[int], shares: Sequence[float]) -> np.ndarray:
    """Return how many rows of each source a batch has.

    Each count is the share of the batch, rounded up or down. The sources that were rounded down most so far are rounded
    up first, so that the shares hold over all batches too.

    Args:
        batches: the sizes of the B batches, in rows.
        shares: of the K sources; their sum is 1.

    Returns:
        (B, K).

    Example:
        >>> batch_counts([4, 4, 4], [0.7, 0.3]).tolist()
        [[3, 1], [3, 1], [2, 2]]
    """
    counts, owed = np.zeros((len(batches), len(shares)), dtype=np.int64), np.zeros(len(shares))
    for number, size in enumerate(batches):
        wanted = size * np.asarray(shares)
        counts[number] = np.floor(wanted + 1e-9)
        rest = wanted - counts[number]
        owed += rest
        left = size - int(counts[number].sum())
        raised = np.argsort(np.where(rest > 1e-9, -owed, np.inf), kind="stable")[:left]
        counts[number, raised] += 1
        owed[raised] -= 1
    return counts


def draw(rows: int, first: int, count: int, *, seed: int, source: int) -> np.ndarray:
    """Return some rows of a source out of its endless order, which is one permutation after the other.

    Args:
        rows: of the source.
        first: place in the order of the first row to return.
        count: how many are returned.
        seed: of the order.
        source: number of the source.

    Returns:
        (count,) numbers below ``rows``.
    """
    passes = range(first // rows, (first + count - 1) // rows + 1)
    orders = [np.random.default_rng([seed, source, number]).permutation(rows) for number in passes]
    start = first - passes.start * rows
    return np.concatenate([np.empty(0, dtype=np.int64), *orders])[start : start + count]


def draw_classes(classes: np.ndarray, count: int | None, rng: np.random.Generator) -> np.ndarray:
    """Draw rows with replacement, in inverse proportion to the size of their class, so that classes are equally likely.

    Args:
        classes: class index of each row, (rows,); negative: the row has none and is not drawn.
        count: rows to draw; None: as many as have a class.
        rng: draws them.

    Returns:
        (count,) row indices.
    """
    labelled = np.flatnonzero(classes >= 0)
    chances = 1 / np.bincount(classes[labelled])[classes[labelled]]
    return rng.choice(labelled, size=len(labelled) if count is None else count, p=chances / chances.sum())


@dataclass(frozen=True)
class Mixture:
    """The order of rows whose batches have shares of several sources; an epoch has as many rows as all of them.

    Attributes:
        rows: of the K sources, which lie one after the other.
        shares: of the sources; their sum is 1.
        batch_size: rows of one batch of one rank.
        ranks: whose batches are formed of rows of similar length together.
        seed: of the order.
        lengths: number of tokens of each row, for batches of similar length; None: without regard to length.
        classes: class of each row, (rows,), negative for none: of the first source, each class is drawn equally often.
    """

    rows: Sequence[int]
    shares: Sequence[float]
    batch_size: int
    ranks: int
    seed: int
    lengths: np.ndarray | None = None
    classes: np.ndarray | None = None

    def order(self) -> Callable[[int], np.ndarray]:
        """Return a function that maps the number of finished epochs to row indices, (rows,)."""
        total = sum(self.rows)
        batches = [min(self.batch_size, total - start) for start in range(0, total, self.batch_size)]
        counts = batch_counts(batches, self.shares)
        ends = np.cumsum(counts, axis=0)
        starts, firsts = ends - counts, np.cumsum(self.rows) - self.rows
        whole = len(batches) - (batches[-1] < self.batch_size)

        def order(epoch: int) -> np.ndarray:
            taken = [first + self._taken(source, epoch, int(ends[-1, source])) for source, first in enumerate(firsts)]
            self._group(taken, starts, ends)
            formed = [
                np.concatenate([part[start:end] for part, start, end in zip(taken, first, last, strict=True)])
                for first, last in zip(starts, ends, strict=True)
            ]
            units = whole // self.ranks
            turns = np.random.default_rng([self.seed, len(self.rows), epoch, 0]).permutation(units)
            turns = (turns[:, None] * self.ranks + np.arange(self.ranks)).reshape(-1)
            return np.concatenate([formed[number] for number in [*turns, *range(units * self.ranks, len(formed))]])

        return order

    def _taken(self, source: int, epoch: int, count: int) -> np.ndarray:
        """Return the rows of a source that an epoch has."""
        if source or self.classes is None:
            return draw(self.rows[source], epoch * count, count, seed=self.seed, source=source)
        rng = np.random.default_rng([self.seed, source, epoch])
        return draw_classes(self.classes[: self.rows[0]], count, rng)

    def _group(self, taken: Sequence[np.ndarray], starts: np.ndarray, ends: np.ndarray) -> None:
        """Sort the rows of each source by length inside of pools of batches, in place.

        A row that comes twice in a pool would meet itself in a batch, and the rows of a source that fits in two pools
        would meet again and again. There the order stays as it is.
        """
        if self.lengths is None:
            return
        batches = max(1, min(BATCHES_PER_POOL, len(starts) // self.ranks // 2)) * self.ranks
        for first in range(0, len(starts), batches):
            last = min(first + batches, len(starts)) - 1
            for source, rows in enumerate(taken):
                pool = rows[starts[first, source] : ends[last, source]]
                if 2 * len(pool) <= self.rows[source] and len(np.unique(pool)) == len(pool):
                    pool[:] = pool[np.argsort(-self.lengths[pool], kind="stable")]
