"""The index of a cache: from the key of an example to its row.

It is a sorted table in a .npy file, read through a memory map, so that its size does not change how long a start takes.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from railkd.errors import RailkdError
from railkd.teacher.manifest import INDEX_HEADER, REBUILD, File


class Index:
    """Finds the rows of keys by binary search.

    Args:
        path: the file.
        entry: its size and checksum, from the manifest.
        rows: how many rows the cache holds.

    Raises:
        RailkdError: the file was altered.
    """

    def __init__(self, path: Path, entry: File, rows: int) -> None:
        self._path, self._rows = path, rows
        try:
            with path.open("rb") as file:
                if zlib.crc32(file.read(INDEX_HEADER)) != entry.header_crc:
                    raise ValueError("the checksum of its header does not match")
            table = np.load(path, mmap_mode="r", allow_pickle=False)
            if table.shape != (3, rows) or table.dtype != np.int64:
                raise ValueError(f"expected shape (3, {rows}) of int64, got {table.shape} of {table.dtype}")
            # As plain arrays: the class of a memory map makes every small read slow.
            self._high, self._low, self._row = np.asarray(table)
        except (ValueError, OSError) as error:
            raise RailkdError(f"The cache file '{path}' was altered ({error}). {REBUILD}") from error

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key, or -1 if the cache does not hold it.

        An index that was altered raises `RailkdError`.

        Args:
            keys: (N, 2).

        Returns:
            (N,) int64.
        """
        found = search((self._high, self._low, self._row), keys)
        if (found >= self._rows).any() or (found < -1).any():
            raise self.altered()
        return found

    def keys(self) -> np.ndarray:
        """Return the keys (N, 2) in the order of the rows. An index that was altered raises `RailkdError`."""
        keys = np.empty((self._rows, 2), dtype=np.int64)
        if not np.array_equal(np.sort(self._row), np.arange(self._rows)):
            raise self.altered()
        keys[self._row] = np.stack([self._high, self._low], axis=1)
        return keys

    def check(self, keys: np.ndarray, first: int) -> None:
        """Compare the index with the keys of a shard.

        Keys that do not match raise `RailkdError`.

        Args:
            keys: (R, 2) of the shard.
            first: number of its first row in the cache.
        """
        if (self.find(keys) != np.arange(len(keys)) + first).any():
            raise self.altered()

    def altered(self) -> RailkdError:
        """Return the error for an index that does not match the shards."""
        return RailkdError(f"The cache file '{self._path}' or the keys of a shard were altered. {REBUILD}")


def search(table: Sequence[np.ndarray] | np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the row of each key, or -1 where a table lacks it.

    Args:
        table: three arrays (N,), as `sort` returns them.
        keys: (M, 2).

    Returns:
        (M,) int64.
    """
    high, low, row = table
    place = np.searchsorted(high, keys[:, 0])
    found = np.full(len(keys), -1, dtype=np.int64)
    todo = np.arange(len(keys))
    while len(todo):
        todo = todo[place[todo] < len(high)]
        todo = todo[high[place[todo]] == keys[todo, 0]]
        hit = low[place[todo]] == keys[todo, 1]
        found[todo[hit]] = row[place[todo[hit]]]
        todo = todo[~hit]  # the first 64 bits collide (practically never): compare the next entry
        place[todo] += 1
    return found


def sort(keys: np.ndarray) -> np.ndarray:
    """Return keys (N, 2) as a table (3, N) to search: sorted high halves, low halves and row numbers."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    return np.stack([keys[order, 0], keys[order, 1], order])


def pack(keys: np.ndarray) -> tuple[File, bytes]:
    """Return the entry and the bytes of the index over these keys.

    Args:
        keys: (N, 2), in the order of the rows.

    Returns:
        The entry for the manifest, and the content of the file: (3, N) int64, sorted by key. The three rows are the
        high half of the keys, the low half and the row number; each is contiguous, so that a search reads little.
    """
    table = sort(keys).astype("<i8")
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    data = buffer.getvalue()
    name = f"index-{hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()}.npy"
    return File(name, len(data), zlib.crc32(data[:INDEX_HEADER])), data
