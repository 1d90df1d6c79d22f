"""A shard: some thousand rows of teacher signals in one safetensors file, read row by row through a memory map.

Tensors of a shard of R rows:
    keys    (R, 2) int64            example keys
    logits  (R, C) float32
    <pool>  (R, n, d) float16|32    one for each pooling; int8 with
    <pool>.scale (R, n) float32     the number by which the block of a row is multiplied
    <pool>.wide  (R, k, d) float32  blocks that overflow half precision (zeros above; their numbers are in the metadata)
    crc     (R, 1 + poolings) uint32: of key and logits, of key and each pooling

The metadata is one entry "railkd" of sorted JSON. With several entries their order would depend on the hash seed, and
equal rows would give different files.

The checksum of a row includes its key, so that a row in the place of another one is detected like a flipped byte.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from railkd.errors import RailkdError
from railkd.runtime import typed
from railkd.teacher.number_formats import SCALE, WIDE, pack_states, unpack_states

SUFFIX = ".safetensors"
_DTYPES = {"F16": "<f2", "F32": "<f4", "I8": "<i1", "I64": "<i8", "U32": "<u4"}


def row_checksums(keys: np.ndarray, arrays: list[list[np.ndarray]]) -> np.ndarray:
    """Return the CRC-32 of every row: of its key, followed by its part of a group of arrays.

    Args:
        keys: (R, 2).
        arrays: groups of arrays of R rows.

    Returns:
        (R, number of groups) uint32.
    """
    crc = np.empty((len(keys), len(arrays)), dtype=np.uint32)
    for row in range(len(keys)):
        start = zlib.crc32(keys[row].tobytes())
        for column, group in enumerate(arrays):
            value = start
            for array in group:
                value = zlib.crc32(array[row].data, value)
            crc[row, column] = value
    return crc


def pack(
    keys: np.ndarray, logits: np.ndarray, states: Mapping[str, Sequence[np.ndarray]], dtype: str, identity: str
) -> bytes:
    """Return the bytes of a shard file.

    Args:
        keys: (R, 2).
        logits: (R, C).
        states: pooling -> float32 parts (some rows, n, d) with R rows in all.
        dtype: of the stored states; see `railkd.teacher.number_formats`.
        identity: digest of the teacher.
    """
    tensors: dict[str, np.ndarray] = {
        "keys": np.ascontiguousarray(keys, dtype="<i8"),
        "logits": np.ascontiguousarray(logits, dtype="<f4"),
    }
    wide_blocks: dict[str, list[int]] = {}
    groups = [[tensors["logits"]]]
    for pooling, parts in states.items():
        stored, wide = pack_states(pooling, parts, dtype)
        tensors |= stored
        groups.append(list(stored.values()))
        if wide:
            wide_blocks[pooling] = wide
    tensors["crc"] = row_checksums(tensors["keys"], groups)
    metadata = {"identity": identity, "poolings": list(states), "wide": wide_blocks}
    return bytes(save(tensors, metadata={"railkd": json.dumps(metadata, sort_keys=True)}))


@dataclass(frozen=True)
class _Metadata:
    """The part of the header that is not about tensors: identity of the teacher, poolings, and wide blocks of each."""

    identity: str
    poolings: tuple[str, ...]
    wide: dict[str, list[int]]


def _check_shapes(arrays: Mapping[str, np.ndarray], poolings: Sequence[str], wide: Mapping[str, list[int]]) -> None:
    """Raise ValueError or KeyError unless the tensors are those of a shard."""
    rows, columns = len(arrays["keys"]), 1 + len(poolings)
    for name, shape in (("keys", (rows, 2)), ("crc", (rows, columns))):
        if arrays[name].shape != shape:
            raise ValueError(f"expected {name} of shape {shape}, got {arrays[name].shape}")
    for name in ("logits", *poolings):
        if len(arrays[name]) != rows or arrays[name].ndim != (2 if name == "logits" else 3):
            raise ValueError(f"{name} has shape {arrays[name].shape}, which does not fit {rows} rows")
    for name in poolings:
        scaled = arrays[name].dtype == np.int8
        if scaled and (name in wide or arrays[name + SCALE].shape != arrays[name].shape[:2]):
            raise ValueError(f"the scales of {name} do not fit its shape {arrays[name].shape}")
    for name, blocks in wide.items():
        n, *width = arrays[name].shape[1:]
        if arrays[name + WIDE].shape != (rows, len(blocks), *width) or not set(blocks) <= set(range(n)):
            raise ValueError(f"the wide blocks of {name} do not fit its shape {arrays[name].shape}")


class Shard:
    """Reads one shard file through a memory map.

    Args:
        path: of the file.
        header_crc: the checksum that its header must have; None: any.

    Attributes:
        poolings: stored in it, in the order of the checksums.
        identity: digest of its teacher.
        rows: how many.
        arrays: the tensors by name, not read yet.

    Raises:
        RailkdError: the file is no shard, or its header was altered.
    """

    def __init__(self, path: Path, header_crc: int | None = None) -> None:
        self.path = path
        try:
            if not path.is_file() or path.is_symlink():  # opening a named pipe would wait for ever
                raise ValueError("expected a regular file")
            data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # its class is slow at small reads
            length = int(data[:8].view("<u8")[0])
            raw = data[8 : 8 + length].tobytes()
            self.header_crc = zlib.crc32(data[:8].tobytes() + raw)
            if header_crc is not None and header_crc != self.header_crc:
                raise ValueError("its header was altered")
            # Not json.loads: deep nesting would end in a RecursionError.
            header = typed.from_json(dict[str, Any], raw.decode())
            metadata = typed.from_json(_Metadata, header.pop("__metadata__")["railkd"])
            body = data[8 + length :]
            self.arrays = {
                name: body[entry["data_offsets"][0] : entry["data_offsets"][1]]
                .view(_DTYPES[entry["dtype"]])
                .reshape(entry["shape"])
                for name, entry in header.items()
            }
            self.keys, self._crc = self.arrays["keys"], self.arrays["crc"]
            self.rows = len(self.keys)
            self.identity, self.poolings, self._wide = metadata.identity, metadata.poolings, metadata.wide
            _check_shapes(self.arrays, self.poolings, self._wide)
            self._checked = np.zeros((self.rows, 1 + len(self.poolings)), dtype=bool)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise RailkdError(
                f"Cannot read the cache file '{path}' ({error}). Fix: delete the cache and build it again."
            ) from error

    def logits(self, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return the logits of some rows; the checksum of a row is compared when it is first read.

        A row that was altered raises `RailkdError`.

        Args:
            rows: (R,) numbers of rows.
            keys: (R, 2), the keys that these rows must have.

        Returns:
            (R, C) float32.
        """
        self._check(rows, keys, 0)
        return np.asarray(self.arrays["logits"][rows])

    def states(self, rows: np.ndarray, keys: np.ndarray, pooling: str) -> np.ndarray:
        """Return the states of some rows; the checksum of a row is compared when it is first read.

        A row that was altered raises `RailkdError`.

        Args:
            rows: (R,) numbers of rows.
            keys: (R, 2), the keys that these rows must have.
            pooling: which states.

        Returns:
            (R, n, d) float16 or float32: float32 if int8 is stored, or if a block is too large for float16.
        """
        self._check(rows, keys, 1 + self.poolings.index(pooling))
        return unpack_states(self.arrays, pooling, rows, self._wide.get(pooling, ()))

    def verify(self) -> None:
        """Read everything and compare every checksum.

        A row that was altered raises `RailkdError`.
        """
        rows = np.arange(self.rows)
        self._checked[:] = False
        for column in range(1 + len(self.poolings)):
            self._check(rows, np.asarray(self.keys), column)

    def _check(self, rows: np.ndarray, keys: np.ndarray, column: int) -> None:
        """Compare the checksums in a column (0: logits, then the poolings) of the rows that were not read before."""
        fresh = ~self._checked[rows, column]
        if not fresh.any():
            return
        names = ["logits"] if column == 0 else [self.poolings[column - 1]]
        names += [names[0] + end for end in (WIDE, SCALE) if names[0] + end in self.arrays]
        taken = rows[fresh]
        group = [np.ascontiguousarray(self.arrays[name][taken]) for name in names]
        got = row_checksums(np.ascontiguousarray(keys[fresh]), [group])[:, 0]
        wrong = taken[got != self._crc[taken, column]]
        if len(wrong):
            raise RailkdError(
                f"The cache file '{self.path}' was altered: the checksum of {names[0]}, row {int(wrong[0])} does not "
                "match. Fix: delete the cache and build it again."
            )
        self._checked[taken, column] = True


def place(whole: np.ndarray | None, part: np.ndarray, at: np.ndarray, rows: int) -> np.ndarray:
    """Put the rows of one shard into their places in a batch, in the widest precision so far.

    Args:
        whole: the batch so far; None before the first shard.
        part: of the shard, (R, ...).
        at: (R,) places in the batch.
        rows: of the batch.

    Returns:
        (rows, ...).
    """
    if len(at) == rows:
        return part
    if whole is None:
        whole = np.empty((rows, *part.shape[1:]), dtype=part.dtype)
    elif part.dtype.itemsize > whole.dtype.itemsize:
        whole = whole.astype(part.dtype)
    whole[at] = part
    return whole
