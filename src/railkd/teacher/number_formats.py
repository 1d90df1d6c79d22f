"""The number formats of stored states: float32 as they are, float16, or int8 with a scale for each block of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from railkd.errors import RailkdError, did_you_mean

#: Bytes of a number by format.
NUMBER_BYTES = {"float16": 2, "float32": 4, "int8": 1}
#: Ends of the names of the tensors that stand beside the states of a pooling.
WIDE, SCALE = ".wide", ".scale"
_MOST = 127


def checked_format(dtype: str) -> str:
    """Return the name of a format.

    Args:
        dtype: its name.

    Raises:
        RailkdError: there is no such format.
    """
    if dtype not in NUMBER_BYTES:
        near = did_you_mean(str(dtype), NUMBER_BYTES)
        raise RailkdError(f"Expected {', '.join(NUMBER_BYTES)} as dtype of states, got {dtype!r}.{near}")
    return dtype


def states_bytes(dtype: str, blocks: int, width: int) -> int:
    """Return the bytes of the states of one example and one pooling.

    Args:
        dtype: a format; an unknown one counts as float32.
        blocks: n, of the teacher.
        width: d, of a block.

    >>> states_bytes("float16", 12, 768), states_bytes("int8", 12, 768)
    (18432, 9264)
    """
    return blocks * (width * NUMBER_BYTES.get(dtype, 4) + (4 if dtype == "int8" else 0))


def pack_states(pooling: str, parts: Sequence[np.ndarray], dtype: str) -> tuple[dict[str, np.ndarray], list[int]]:
    """Return the tensors that store the states of a pooling, and the blocks that stay in float32.

    Args:
        pooling: its name.
        parts: float32 states (some rows, n, d) with R rows in all.
        dtype: a format. In float16 a block that overflows half precision stays float32.

    Returns:
        Name -> tensor, the states (R, n, d) first; and the numbers of the blocks in the tensor ``<pooling>.wide``.
    """
    if dtype == "int8":
        numbers, scales = _whole_numbers(np.concatenate(parts, dtype="<f4"))
        return {pooling: numbers, pooling + SCALE: scales}, []
    wide = np.asarray([], dtype=np.int64)
    beside: dict[str, np.ndarray] = {}
    if dtype == "float16":
        largest = np.max([np.abs(part).max(axis=(0, 2)) for part in parts], axis=0)  # (n,)
        wide = np.flatnonzero(largest > np.finfo(np.float16).max)
        if len(wide):
            # Rows must be contiguous, because checksums and reads go by row; numpy keeps the blocks contiguous.
            part_of_each = [part[:, wide] for part in parts]
            beside[pooling + WIDE] = np.ascontiguousarray(np.concatenate(part_of_each, dtype="<f4"))
        parts = [_half(part, wide) for part in parts]
    whole = np.concatenate(parts, dtype={"float16": "<f2", "float32": "<f4"}[dtype])
    return {pooling: np.ascontiguousarray(whole)} | beside, wide.tolist()


def unpack_states(arrays: Mapping[str, np.ndarray], pooling: str, rows: np.ndarray, wide: Sequence[int]) -> np.ndarray:
    """Return states (B, n, d) as numbers of 16 or 32 bits.

    Args:
        arrays: the tensors of a shard.
        pooling: which states.
        rows: (B,) numbers of rows.
        wide: numbers of the blocks in ``<pooling>.wide``.
    """
    states = np.asarray(arrays[pooling][rows])
    if states.dtype == np.int8:
        return np.multiply(states, arrays[pooling + SCALE][rows][:, :, None], dtype=np.float32)
    if len(wide):
        states = states.astype(np.float32)
        states[:, list(wide)] = arrays[pooling + WIDE][rows]
    return states


def _whole_numbers(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return states (R, n, d) as whole numbers from -127 to 127, and the scale (R, n) of each vector.

    >>> numbers, scale = _whole_numbers(np.array([[[1.0, -0.5, 0.0], [0.0, 0.0, 0.0]]], dtype="f4"))
    >>> numbers.tolist(), (scale * 127).round(3).tolist()
    ([[[127, -64, 0], [0, 0, 0]]], [[1.0, 0.0]])
    """
    scale = np.abs(states).max(axis=2) / np.float32(_MOST)
    divisor = np.where(scale > 0, scale, np.float32(1))
    numbers = np.clip(np.rint(states / divisor[:, :, None]), -_MOST, _MOST)
    return np.ascontiguousarray(numbers, dtype="i1"), np.ascontiguousarray(scale, dtype="<f4")


def _half(states: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Return states in half precision with some blocks set to zero. torch converts five times as fast as numpy."""
    if len(without):
        states = states.copy()
        states[:, without] = 0
    return torch.from_numpy(states).half().numpy()
