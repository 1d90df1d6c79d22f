"""Outputs that a cache holds without states: a second pass adds the states and must find the same outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from railkd.errors import RailkdError
from railkd.teacher.shards import Shard

#: Largest difference between two passes, as a part of the largest output, by the precision of the teacher. Batches of
#: other rows change the last digits.
_CLOSE = {"float32": 1e-3}
_CLOSE_IN_HALF = 5e-2


class StoredOutputs:
    """The rows of shards without states, by key.

    Args:
        shards: hold outputs alone.
        precision: of the teacher; see `railkd.teacher.identity.Identity`.
    """

    def __init__(self, shards: Sequence[Shard], precision: str) -> None:
        self._close = _CLOSE.get(precision, _CLOSE_IN_HALF)
        self._logits: dict[tuple[int, ...], np.ndarray] = {}
        for shard in shards:
            keys = np.asarray(shard.keys)
            logits = shard.logits(np.arange(shard.rows), keys)
            self._logits.update(zip(map(tuple, keys.tolist()), logits, strict=True))

    def keep(self, keys: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return outputs in which stored rows are as they are stored, after a comparison with the new ones.

        Args:
            keys: (R, 2).
            logits: (R, C) of the second pass.

        Returns:
            (R, C).

        Raises:
            RailkdError: the teacher gives other outputs than before.
        """
        if not self._logits:
            return logits
        kept = np.array(logits)
        for row, key in enumerate(map(tuple, keys.tolist())):
            stored = self._logits.get(key)
            if stored is None:
                continue
            if np.abs(stored - logits[row]).max() > self._close * max(1.0, float(np.abs(stored).max())):
                raise RailkdError(
                    f"Expected the outputs that the cache holds, got others from the same teacher: "
                    f"{np.round(stored, 4).tolist()} before, {np.round(logits[row], 4).tolist()} now, for the row with "
                    f"key {list(key)}. Fix: run it on the machine and in the precision of the first pass, or build the "
                    "cache again with --overwrite."
                )
            kept[row] = stored
        return kept

    def without(self, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys (R, 2) and outputs (R, C) of the rows that have no states yet.

        Args:
            known: (N, 2) keys of the rows with states.
        """
        done = set(map(tuple, known.tolist()))
        left = [key for key in self._logits if key not in done]
        return np.asarray(left, dtype=np.int64).reshape(-1, 2), np.asarray([self._logits[key] for key in left])
