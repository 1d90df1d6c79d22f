"""Runs a teacher over planned batches while a thread of its own writes the results."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from railkd.data.tokens import KeyedTokens
from railkd.errors import RailkdError
from railkd.runtime import hardware, ranks
from railkd.teacher.batches import Padder
from railkd.teacher.components import Components
from railkd.teacher.live import LiveTeacher
from railkd.teacher.writer import CacheWriter

logger = logging.getLogger(__name__)
#: Called with (rows done, rows to do).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Result:
    """The signals of some rows, on their way from the device to the writer."""

    keys: np.ndarray
    tensors: dict[str, Tensor]  # "" holds the logits (R, C), a pooling its states (R, n, d)
    copied: Callable[[], None]  # waits until the copies from the device are complete

    def arrays(self) -> dict[str, np.ndarray]:
        """Wait for the copies and return the numbers in single precision."""
        self.copied()
        return {name: tensor.float().numpy() for name, tensor in self.tensors.items()}


class WritingThread:
    """Adds results to a writer in the background, so that the next batch runs meanwhile.

    Inside the ``with`` block, and at its end, errors of the thread are raised in the caller's thread. At the end,
    after an error or an interruption too, everything that was handed over has been added.

    Args:
        writer: an open one; only the thread may use it inside the ``with`` block.
    """

    #: Results that may wait for the writer: a slow disk holds the teacher up instead of filling the memory.
    _WAITING = 4

    def __init__(self, writer: CacheWriter) -> None:
        self._writer = writer
        self._error: BaseException | None = None
        self._queue: queue.Queue[_Result | None] = queue.Queue(self._WAITING)
        self._thread = threading.Thread(target=self._work, name="railkd cache writer", daemon=True)

    def __enter__(self) -> WritingThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def add(self, result: _Result) -> None:
        """Hand results over. This waits while too many of them wait for the disk."""
        self._raise()
        self._queue.put(result)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (result := self._queue.get()) is not None:
            if self._error is None:
                try:
                    states = result.arrays()
                    self._writer.add(result.keys, states.pop(""), states)
                except BaseException as error:
                    self._error = error


class Runner:
    """Runs a teacher over rows. A batch that does not fit into memory is halved, down to one row.

    Args:
        live: the teacher.
        rows: as it reads them.
        padder: of these rows.
        components: that states are projected on; None: they stay whole.
    """

    def __init__(
        self, live: LiveTeacher, rows: KeyedTokens, padder: Padder, components: Components | None = None
    ) -> None:
        self._live, self._rows, self._padder, self._components = live, rows, padder, components
        self._lengths = rows.lengths
        #: The most tokens in a batch; halved when memory runs out, and then kept.
        self._most_tokens: int | None = None

    def results(self, batch: np.ndarray) -> Iterator[_Result]:
        """Run the rows of a batch, in one piece if it fits.

        `RailkdError` is raised if memory runs out on a single row.

        Args:
            batch: positions of its rows.

        Yields:
            The signals of each piece. The device may still be copying them.
        """
        pieces = [batch]
        while pieces:
            piece = pieces.pop()
            if len(piece) > 1 and self._is_too_large(piece):
                middle = (len(piece) + 1) // 2
                pieces += [piece[middle:], piece[:middle]]
                continue
            result = self._run(piece)
            if result is None:
                self._halve(piece)
                pieces.append(piece)
            else:
                yield result

    def _is_too_large(self, piece: np.ndarray) -> bool:
        return self._padder.alone or (self._most_tokens is not None and self._tokens(piece) > self._most_tokens)

    def _tokens(self, piece: np.ndarray) -> int:
        """Return the number of tokens of a batch, padding included."""
        return len(piece) * int(self._lengths[piece].max())

    def _run(self, piece: np.ndarray) -> _Result | None:
        """Return the signals of some rows, or None if memory runs out."""
        try:
            logits, states = self._live.run(self._padder.pad(piece), self._live.poolings)
        except (RuntimeError, MemoryError) as error:
            if not hardware.is_out_of_memory(error):
                raise
            return None
        if self._components is not None:
            states = self._components.project(states)
        tensors = {name: hardware.to_host(value) for name, value in {"": logits, **states}.items()}
        return _Result(self._rows.keys[piece], tensors, hardware.copies_from(logits.device))

    def _halve(self, piece: np.ndarray) -> None:
        """Allow half of the tokens of a batch that did not fit from now on."""
        if len(piece) == 1:
            raise RailkdError(
                f"Memory ran out while the teacher read one row of {self._tokens(piece):,} tokens. Fix: give a smaller "
                "--max-length, run it in half precision, or spread it over devices."
            )
        self._most_tokens = self._tokens(piece) // 2
        with contextlib.suppress(AttributeError, RuntimeError):
            torch.accelerator.empty_cache()
        logger.warning("Memory ran out: batches of the teacher have at most %d tokens from now on.", self._most_tokens)


def run_batches(runner: Runner, batches: Sequence[np.ndarray], writer: CacheWriter, advance: Progress) -> None:
    """Run the batches of this rank and write their results.

    Args:
        runner: of the rows.
        batches: of all ranks, which take turns.
        writer: an open one.
        advance: called with (rows done, rows to do), of all ranks as far as this one can tell.
    """
    ends = np.cumsum([len(batch) for batch in batches])
    first, ranks_in_all = ranks.rank(), ranks.world_size()
    with WritingThread(writer) as thread:
        for number in range(first, len(batches), ranks_in_all):
            for result in runner.results(batches[number]):
                thread.add(result)
            advance(int(ends[min(number - first + ranks_in_all, len(batches)) - 1]), int(ends[-1]))
