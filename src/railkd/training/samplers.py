"""Compute the order of rows from (seed, epoch), so that a resumed run has the batches of an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from railkd.errors import RailkdError
from railkd.training.mixing import BATCHES_PER_POOL, Mixture, draw_classes


def shuffled(rows: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return a random permutation of range(rows).

    Args:
        rows: number of rows.
        seed: seed of the order.
        epoch: number of finished epochs.

    Returns:
        Row indices, (rows,).
    """
    return np.random.default_rng([seed, epoch]).permutation(rows)


def length_grouped(lengths: Sequence[int] | np.ndarray, batch_size: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return a random permutation of the rows in which each batch holds rows of similar length.

    Rows are shuffled and divided into pools of several batches. Each pool is sorted by length and divided into batches,
    and the batches are shuffled. There are at least two pools if there are two full batches, so that the batches of a
    small set change between epochs. An incomplete batch stays at the end.

    Args:
        lengths: number of tokens of each row, (rows,).
        batch_size: number of rows in a batch.
        seed: seed of the order.
        epoch: number of finished epochs.

    Returns:
        Row indices, (rows,).

    Example:
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


def balanced(classes: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Draw as many rows as there are, with replacement, so that every class is equally likely.

    A row is drawn in inverse proportion to the size of its class. Rows without a class are not drawn but kept, each
    once, so that balancing the labelled rows does not change their share.

    Args:
        classes: class index of each row, (rows,); negative: the row has none.
        seed: seed of the draw.
        epoch: number of finished epochs.

    Returns:
        Row indices in random order, (rows,).

    Example:
        >>> drawn = balanced(np.array([0, 0, 0, 1] * 50 + [-100] * 2), seed=0, epoch=0)
        >>> bool(abs((drawn[drawn < 200] % 4 == 3).mean() - 0.5) < 0.1), sorted(drawn.tolist())[-2:]
        (True, [200, 201])
    """
    rng = np.random.default_rng([seed, epoch])
    drawn = draw_classes(classes, None, rng)
    return rng.permutation(np.concatenate([drawn, np.flatnonzero(classes < 0)]))


def epoch_order(
    rows: int, lengths: np.ndarray | None, batch_size: int, *, seed: int, classes: np.ndarray | None = None
) -> Callable[[int], np.ndarray]:
    """Return a function that maps an epoch to the row order of training.

    Args:
        rows: number of rows.
        lengths: number of tokens of each row, (rows,), for batches of similar length. None shuffles without lengths.
        batch_size: number of rows in a batch, over all ranks.
        seed: seed of the order.
        classes: class of each row, (rows,), for `balanced` draws, in batches without regard to length. None takes each
            row once.

    Returns:
        A function that takes the number of finished epochs and returns row indices, (rows,).
    """

    def order(epoch: int) -> np.ndarray:
        if classes is not None:  # sorted by length, the copies of a row would meet in one batch
            return balanced(classes, seed=seed, epoch=epoch)
        if lengths is None:
            return shuffled(rows, seed=seed, epoch=epoch)
        return length_grouped(lengths, batch_size, seed=seed, epoch=epoch)

    return order


def check_batches(rows: int, batch_size: int, *, drop_last: bool) -> None:
    """Refuse a training set that has no batch.

    Args:
        rows: number of rows.
        batch_size: number of rows in a batch, over all ranks.
        drop_last: leave out a batch that is not full.

    Raises:
        RailkdError: every row would be left out.
    """
    if drop_last and rows < batch_size:
        raise RailkdError(
            f"Expected at least {batch_size} training rows, one full batch, because of dataloader_drop_last, got "
            f"{rows}. Fix: use a smaller batch, or keep the last batch."
        )


def row_lengths(dataset: Any, rows: int) -> np.ndarray | None:
    """Return the column of lengths (rows,) of a prepared data set, or None if it has none or another number of rows."""
    names = getattr(dataset, "column_names", None) or []
    return np.asarray(dataset["length"][:]) if "length" in names and len(dataset) == rows else None


def row_classes(dataset: Any, rows: int) -> np.ndarray:
    """Return the class of each row of a prepared data set, (rows,), for balanced draws.

    Args:
        dataset: with the column ``labels``.
        rows: number of rows.

    Raises:
        RailkdError: the rows have no label, or not one class each.
    """
    wanted = "Balanced sampling needs rows with one class each"
    if "labels" not in (getattr(dataset, "column_names", None) or []) or len(dataset) != rows:
        raise RailkdError(f"{wanted}, got rows without labels. Fix: give labels, or leave out sampling.")
    labels = np.asarray(dataset["labels"][:])
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise RailkdError(f"{wanted}, got numbers or several labels a row. Fix: leave out sampling.")
    if not (labels >= 0).any():
        raise RailkdError(f"{wanted}, but no row has a label. Fix: give labels, or leave out sampling.")
    return labels


def training_sampler(dataset: Any, prepared: Any, args: Any, batch_size: int, epoch: Callable[[], int]) -> Any:
    """Return the sampler of the training rows.

    Args:
        dataset: the rows as Trainer passes them.
        prepared: the same rows with the columns that Trainer removes, such as the length.
        args: settings of the run.
        batch_size: number of rows in a batch, over all ranks.
        epoch: returns the current epoch.

    Returns:
        The sampler; None for a stream, which keeps its order.

    Raises:
        RailkdError: there is no batch, the rows have not one class each and the sampling is balanced, or the sources
            have another number of rows.
    """
    if dataset is None or not hasattr(dataset, "__len__"):
        return None
    rows, seed = len(dataset), args.seed if args.data_seed is None else args.data_seed
    check_batches(rows, batch_size, drop_last=args.dataloader_drop_last)
    lengths = row_lengths(prepared, rows) if args.length_groups == "pools" else None
    classes = row_classes(prepared, rows) if args.sampling == "balanced" else None
    if args.source_rows is not None:
        if sum(args.source_rows) != rows:
            raise RailkdError(f"Expected {rows:,} rows in all sources together, got {sum(args.source_rows):,}.")
        lengths = lengths if classes is None else None  # as in `epoch_order`
        ranks = args.world_size
        shares = args.source_rows, args.source_shares, batch_size // ranks, ranks, seed
        return EpochSampler(rows, Mixture(*shares, lengths, classes).order(), epoch)
    return EpochSampler(rows, epoch_order(rows, lengths, batch_size, seed=seed, classes=classes), epoch)


class EpochSampler(Sampler[int]):
    """Yield row indices in an order that depends on the epoch.

    Args:
        rows: number of rows.
        order: maps an epoch to row indices, (rows,).
        epoch: returns the current epoch. It is called when iteration starts.
    """

    def __init__(self, rows: int, order: Callable[[int], np.ndarray], epoch: Callable[[], int]) -> None:
        self.rows, self._order, self._epoch = rows, order, epoch

    def __iter__(self) -> Iterator[int]:
        yield from self.of(self._epoch()).tolist()

    def of(self, epoch: int) -> np.ndarray:
        """Return the row indices (rows,) of the epoch that follows so many finished ones."""
        return self._order(epoch)

    def __len__(self) -> int:
        return self.rows


def rows_seen(sampler: EpochSampler, rows: int, steps: int, per_step: int, bounds: Sequence[int]) -> list[int]:
    """Count the rows of each source that a run has trained on. They follow from the order, so they are not collected.

    Args:
        sampler: of the run.
        rows: of an epoch; fewer than there are if an incomplete batch is left out.
        steps: optimizer steps of the run.
        per_step: rows of a step on all ranks; the last step of an epoch may have fewer.
        bounds: numbers of the first rows of the sources but the first, ascending.

    Returns:
        The number of rows of each source, repeated ones included.

    Example:
        >>> rows_seen(EpochSampler(9, lambda epoch: np.arange(9), lambda: 0), rows=9, steps=4, per_step=4, bounds=[8])
        [12, 1]
    """
    found = np.zeros(len(bounds) + 1, dtype=np.int64)
    for epoch, done in enumerate(range(0, steps, -(-rows // per_step))):
        taken = sampler.of(epoch)[: min(rows, (steps - done) * per_step)]
        found += np.bincount(np.searchsorted(bounds, taken, side="right"), minlength=len(found))
    return list(map(int, found))
