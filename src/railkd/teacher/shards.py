"""A shard: some thousand rows of teacher signals in one safetensors file, read through the page cache, row by row.

Tensors of a shard of R rows:
    keys    (R, 2) int64            example keys
    logits  (R, C) float32
    <pool>  (R, n, d) float16|32    one for each pooling
    <pool>.wide  (R, k, d) float32  blocks that overflow half precision (zeros above; their numbers are in the metadata)
    crc     (R, 1 + poolings) uint32: of key and logits, of key and each pooling

Its metadata is one entry of sorted JSON, "railkd": with several, the writer's hash seed would order them, and equal
rows would make unlike files.

A row's checksum takes in its key, so a row that stands where another belongs is found like a flipped byte.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from railkd.errors import RailkdError

SUFFIX = ".safetensors"
_DTYPES = {"F16": "<f2", "F32": "<f4", "I64": "<i8", "U32": "<u4"}


def row_checksums(keys: np.ndarray, arrays: list[list[np.ndarray]]) -> np.ndarray:
    """(R, len(arrays)) CRC-32 of each row's key followed by its share of each group of arrays."""
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
    """The bytes of a shard file.

    Args:
        keys: (R, 2). logits: (R, C). states: pooling -> float32 parts (some rows, n, d), R rows together.
        dtype: ``float16`` or ``float32``, of the stored states; a block that overflows half precision is kept wide.
        identity: digest of the teacher.
    """
    tensors: dict[str, np.ndarray] = {
        "keys": np.ascontiguousarray(keys, dtype="<i8"),
        "logits": np.ascontiguousarray(logits, dtype="<f4"),
    }
    wide_blocks: dict[str, list[int]] = {}
    groups = [[tensors["logits"]]]
    for pooling, parts in states.items():
        group = []
        if dtype == "float16":
            largest = np.max([np.abs(part).max(axis=(0, 2)) for part in parts], axis=0)  # (n,)
            wide = np.flatnonzero(largest > np.finfo(np.float16).max)
            if len(wide):
                # In rows, which are what is summed and read: numpy would keep the order in which it picked the blocks.
                tensors[f"{pooling}.wide"] = np.ascontiguousarray(
                    np.concatenate([part[:, wide] for part in parts], dtype="<f4")
                )
                wide_blocks[pooling] = wide.tolist()
                group.append(tensors[f"{pooling}.wide"])
            parts = [_half(part, wide) for part in parts]
        whole = np.concatenate(parts, dtype={"float16": "<f2", "float32": "<f4"}[dtype])
        tensors[pooling] = np.ascontiguousarray(whole)
        groups.append([tensors[pooling], *group])
    tensors["crc"] = row_checksums(tensors["keys"], groups)
    metadata = {"identity": identity, "poolings": list(states), "wide": wide_blocks}
    return bytes(save(tensors, metadata={"railkd": json.dumps(metadata, sort_keys=True)}))


def _half(states: np.ndarray, without: np.ndarray) -> np.ndarray:
    """In half precision, some blocks zero. By torch, whose conversion is five times as fast as numpy's."""
    if len(without):
        states = states.copy()
        states[:, without] = 0
    return torch.from_numpy(states).half().numpy()


class Shard:
    """Reads one shard file through a memory map.

    Args:
        path: of the file. header_crc: known checksum of its header, if any.

    Attributes:
        poolings: stored in it, in checksum order. identity: digest of its teacher. rows: how many.

    Raises:
        RailkdError: the file is no shard, or its header is not the one that was written.
    """

    def __init__(self, path: Path, header_crc: int | None = None) -> None:
        self.path = path
        try:
            data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # its own class is slow at small reads
            length = int(data[:8].view("<u8")[0])
            raw = data[8 : 8 + length].tobytes()
            self.header_crc = zlib.crc32(data[:8].tobytes() + raw)
            if header_crc is not None and header_crc != self.header_crc:
                raise ValueError("its header was altered")
            header: dict[str, Any] = json.loads(raw)
            metadata = json.loads(header.pop("__metadata__")["railkd"])
            body = data[8 + length :]
            self.arrays = {
                name: body[entry["data_offsets"][0] : entry["data_offsets"][1]]
                .view(_DTYPES[entry["dtype"]])
                .reshape(entry["shape"])
                for name, entry in header.items()
            }
            self.keys, self._crc = self.arrays["keys"], self.arrays["crc"]
            self.rows = len(self.keys)
            self.identity: str = metadata["identity"]
            self.poolings: tuple[str, ...] = tuple(metadata["poolings"])
            self._wide: dict[str, list[int]] = metadata["wide"]
            self._checked = np.zeros((self.rows, 1 + len(self.poolings)), dtype=bool)
            for name in ("logits", *self.poolings):
                self.arrays[name]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise RailkdError(
                f"cache file '{path}' cannot be read ({error}); delete the cache and build it again"
            ) from error

    def logits(self, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """(len(rows), C), checked at first touch."""
        self._check(rows, keys, 0)
        return np.asarray(self.arrays["logits"][rows])

    def states(self, rows: np.ndarray, keys: np.ndarray, pooling: str) -> np.ndarray:
        """(len(rows), n, d) in the stored precision, or float32 where blocks are kept wide; checked at first touch."""
        self._check(rows, keys, 1 + self.poolings.index(pooling))
        states = np.asarray(self.arrays[pooling][rows])
        if pooling in self._wide:
            states = states.astype(np.float32)
            states[:, self._wide[pooling]] = self.arrays[f"{pooling}.wide"][rows]
        return states

    def verify(self) -> None:
        """Read everything and compare every checksum."""
        rows = np.arange(self.rows)
        self._checked[:] = False
        for column in range(1 + len(self.poolings)):
            self._check(rows, np.asarray(self.keys), column)

    def _check(self, rows: np.ndarray, keys: np.ndarray, column: int) -> None:
        fresh = ~self._checked[rows, column]
        if not fresh.any():
            return
        names = ["logits"] if column == 0 else [self.poolings[column - 1]]
        names += [f"{name}.wide" for name in names if f"{name}.wide" in self.arrays]
        taken = rows[fresh]
        group = [np.ascontiguousarray(self.arrays[name][taken]) for name in names]
        got = row_checksums(np.ascontiguousarray(keys[fresh]), [group])[:, 0]
        wrong = taken[got != self._crc[taken, column]]
        if len(wrong):
            raise RailkdError(
                f"cache file '{self.path}' was altered: checksum of {names[0]}, row {int(wrong[0])} does not fit; "
                "delete the cache and build it again"
            )
        self._checked[taken, column] = True
