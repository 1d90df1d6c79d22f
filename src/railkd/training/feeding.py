"""Read the stored signals of a batch while the batch before it trains, or keep the states of all rows on the device.

The loader of accelerate makes each batch one step early. The collator then starts to read the teacher's signals of
that batch on a thread, which also copies them to the device. Neither way changes a number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from railkd.data.collator import Batch
from railkd.data.keys import KEY
from railkd.errors import RailkdError
from railkd.runtime import hardware
from railkd.runtime.words import size
from railkd.signals import Signals
from railkd.teacher import StoredTeacher
from railkd.training import finite

logger = logging.getLogger(__name__)
#: The states may take one of so many parts of the free memory of a device.
_PARTS = 4
#: Rows that are read and copied at a time.
_ROWS = 2048


@dataclass(frozen=True)
class KeptStates:
    """The states of all training rows, on the device of training.

    Attributes:
        teacher: it finds the rows.
        rows: (N,) numbers of the rows in the teacher, sorted.
        states: (N, n, d), in the precision in which the teacher returns them; whole numbers of a cache are float32.
    """

    teacher: StoredTeacher
    rows: np.ndarray
    states: Tensor

    @classmethod
    def read(
        cls, teacher: StoredTeacher, keys: np.ndarray, pooling: str, where: torch.device, *, always: bool
    ) -> Self | None:
        """Read the states of training rows from the teacher, and copy them to a device.

        Args:
            teacher: it must hold the rows.
            keys: (N, 2) of the rows; a text may be repeated.
            pooling: of the states.
            where: the device.
            always: keep the states however large they are. False: where they take a quarter of the free memory at
                most, and the memory of the device is not that of the host.

        Returns:
            The states, or None if they are not kept. States that are not finite are not kept: the step that reads
            them reports them.
        """
        free = hardware.free_memory(where)
        if free is None and not always:
            return None
        rows, first = np.unique(teacher.find(keys), return_index=True)
        keys = keys[first]
        states = torch.from_numpy(_states(teacher, keys[:1], pooling))
        if not always and states.nbytes * len(keys) > (free or 0) // _PARTS:
            return None
        kept = torch.empty((len(keys), *states.shape[1:]), dtype=states.dtype, device=where)
        for start in range(0, len(keys), _ROWS):
            part = _states(teacher, keys[start : start + _ROWS], pooling)
            if not finite.all_finite(part):
                return None
            moved = hardware.to_device(part, where)
            if moved.element_size() > kept.element_size():  # a block that overflows half precision is stored in single
                kept = kept.to(moved.dtype)
            kept[start : start + len(part)] = moved
        return cls(teacher, rows, kept)

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Return the place of each key (B, 2) among the rows that are kept, (B,)."""
        return np.searchsorted(self.rows, self.teacher.find(keys))

    def at(self, places: Tensor) -> Tensor:
        """Return the states (B, n, d) at places (B,) on the device."""
        return self.states.index_select(0, places)

    def __call__(self, keys: np.ndarray) -> Tensor:
        """Return the states (B, n, d) of keys (B, 2)."""
        return self.at(hardware.to_device(self.places(keys), self.states.device))


def _states(teacher: StoredTeacher, keys: np.ndarray, pooling: str) -> np.ndarray:
    states = teacher.gather(keys, pooling)[1]
    assert states is not None
    return states


@dataclass(frozen=True)
class _Read:
    """What a teacher stores for a batch: arrays in main memory, and the same on its way to the device."""

    logits: np.ndarray
    states: np.ndarray | None
    finite: bool
    received: Callable[[], Sequence[Tensor | None]]


class Feed:
    """Read the signals of a stored teacher for training batches, and copy them to the device of training.

    Args:
        teacher: holds the rows.
        keys: (N, 2) of all training rows; None for a stream.
        pooling: of the states that the method reads; None if it reads outputs alone.
        device: of training.
        keep: ``yes`` keeps the states of all training rows on the device, ``auto`` where they fit well, ``no`` never.

    Attributes:
        kept: the states on the device, or None. They are read when training begins.

    Raises:
        RailkdError: states of a stream are to be kept.
    """

    def __init__(
        self, teacher: StoredTeacher, keys: np.ndarray | None, pooling: str | None, device: torch.device, keep: str
    ) -> None:
        if keep == "yes" and pooling is not None and keys is None:
            raise RailkdError(
                "Expected a table of training rows for states_on_device yes, got a stream, whose rows are not known. "
                "Fix: leave states_on_device out."
            )
        self.kept: KeptStates | None = None
        self._teacher, self._keys, self._pooling, self._device, self._keep = teacher, keys, pooling, device, keep
        self._sender = hardware.Sender(device)
        self._thread: ThreadPoolExecutor | None = None

    def keep(self, say: Callable[[str], None]) -> None:
        """Read the states that are kept on the device.

        Args:
            say: receives a line if states are kept.
        """
        keys, pooling = self._keys, self._pooling
        if self.kept is not None or self._keep == "no" or keys is None or pooling is None:
            return
        self.kept = KeptStates.read(self._teacher, keys, pooling, self._device, always=self._keep == "yes")
        if self.kept is not None:
            say(
                f"The teacher's states of {len(self.kept.rows):,} rows stay on {self._device}: "
                f"{size(self.kept.states.nbytes)} (--states-on-device no reads them at each step)."
            )

    def close(self) -> None:
        """End the thread. `start` starts it again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(cancel_futures=True)

    def start(self, keys: np.ndarray) -> Future[_Read]:
        """Start to read the signals of a batch on the thread.

        Args:
            keys: (B, 2) of its examples.

        Returns:
            What `__call__` takes from ``Batch.ahead``.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "railkd reading ahead")
        return self._thread.submit(self._read, keys)

    def __call__(self, batch: Batch, step: int) -> Signals:
        """Return the signals of a batch on the device. Signals that are not finite raise `NotFinite`.

        Args:
            batch: holds the keys of its examples, and perhaps what `start` returned for them.
            step: number of finished optimizer steps.

        Raises:
            RailkdError: the batch has no keys.
        """
        keys = batch.on_host(KEY)
        if keys is None:
            raise RailkdError(
                f"a teacher cache is read by example keys: got a batch of {sorted(batch)}, wanted '{KEY}'"
            )
        read: _Read = self._read(keys) if batch.ahead is None else batch.ahead.result()
        if not read.finite:
            finite.check_arrays({"logits": read.logits, "states": read.states}, keys, step)
        logits, states, answered, places = read.received()
        assert logits is not None
        if self.kept is not None and places is not None:
            states = self.kept.at(places)
        return Signals(logits, states, answered=answered)

    def _read(self, keys: np.ndarray) -> _Read:
        logits, states, answered = self._teacher.answers(keys, None if self.kept is not None else self._pooling)
        places = None if self.kept is None else self.kept.places(keys)
        good = all(part is None or finite.all_finite(part) for part in (logits, states))
        return _Read(logits, states, good, self._sender.send((logits, states, answered, places)))


@contextmanager
def feeding(feed: Feed | None, say: Callable[[str], None] | None) -> Iterator[None]:
    """Read the states that are kept on the device before a training, and end the thread after it.

    Args:
        feed: of the training; None without a stored teacher.
        say: receives a line if states are kept. None uses the log.

    Yields:
        Nothing.
    """
    if feed is None:
        yield
        return
    feed.keep(say or logger.info)
    try:
        yield
    finally:
        feed.close()


def reading_ahead(collator: Callable[[Any], Any], feed: Feed | None, workers: int) -> Callable[[Any], Any]:
    """Return a collator that also starts to read the teacher's signals of each batch.

    Args:
        collator: makes the batches.
        feed: reads their signals. None returns the collator unchanged.
        workers: processes of the loader. With any, the collator is returned unchanged: a thread of this process cannot
            be started from them, and the signals are read at the step.
    """
    if feed is None or workers:
        return collator

    def collate(rows: Any) -> Any:
        batch = collator(rows)
        if isinstance(batch, Batch) and KEY in batch.host:
            batch.ahead = feed.start(batch.host[KEY])
        return batch

    return collate
