"""The rows that CoDIR contrasts with: of other classes, out of the teacher cache, a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from railkd.data.collator import Batch
from railkd.data.keys import KEY
from railkd.functional import UNLABELLED
from railkd.runtime.hardware import to_device
from railkd.teacher import TeacherCache


class Negatives:
    """Draws K rows for each class and gathers their states.

    Group c < C holds rows of classes other than c; the last group any rows at all, for examples without a class.

    Args:
        cache: of the teacher. keys: (N, 2) of the training rows. labels: their classes; None, or floats: no classes.
        pooling: which states. count: K. seed: of the run.
    """

    def __init__(
        self,
        cache: TeacherCache,
        keys: np.ndarray,
        labels: Sequence[Any] | None,
        *,
        pooling: str,
        count: int,
        seed: int,
    ) -> None:
        self.cache, self.pooling, self.count, self.seed = cache, pooling, count, seed
        _, first = np.unique(keys, axis=0, return_index=True)  # a text that stands twice counts once
        self._keys = keys[first]
        classes = np.full(len(first), UNLABELLED)
        if labels is not None and len(labels) and isinstance(labels[0], int):
            classes = np.asarray(labels)[first]
        known = classes[classes != UNLABELLED]
        groups = int(known.max()) + 1 if len(known) else 0
        rows = np.arange(len(first))
        self._pools = [rows[(classes != c) & (classes != UNLABELLED)] for c in range(groups)] + [rows]
        # A class that has no others around it (one-class data) falls back on any rows.
        self._pools = [pool if len(pool) else rows for pool in self._pools]

    def draw(self, step: int, groups: Sequence[int] | None = None) -> np.ndarray:
        """Keys (G, K, 2) of a step, for some groups or all; with repetition where a pool holds fewer than K rows."""
        drawn = []
        for group in range(len(self._pools)) if groups is None else groups:
            pool = self._pools[group]
            rng = np.random.default_rng([self.seed, step, group])
            drawn.append(self._keys[rng.choice(pool, self.count, replace=len(pool) < self.count)])
        return np.stack(drawn)

    def __call__(self, batch: Mapping[str, Tensor], *, step: int) -> dict[str, Tensor]:
        """Return the arguments of `railkd.models.distiller.Distiller` for a batch, on the device of its tokens.

        Args:
            batch: its keys and labels; those of a `Batch` are read in main memory.
            step: optimizer steps finished.
        """
        any_row = len(self._pools) - 1
        own, labels = (Batch.of(batch).on_host(name) for name in (KEY, "labels"))  # (B, 2), (B,)
        assert own is not None
        group = np.full(len(own), any_row)
        if labels is not None and labels.dtype.kind != "f":
            group = np.where((labels >= 0) & (labels < any_row), labels, any_row)
        # Only the classes of this batch: of 150 classes all K rows each would be more to read than the batch itself.
        present, group = np.unique(group, return_inverse=True)  # (G,), (B,)
        keys = self.draw(step, present.tolist())  # (G, K, 2)
        _, states = self.cache.gather(keys.reshape(-1, 2), self.pooling)
        assert states is not None
        keep = (keys[group] != own[:, None]).any(axis=-1)  # (B, K): an example is no negative of its own
        device = batch.get("input_ids", batch[KEY]).device
        states = states.reshape(*keys.shape[:2], *states.shape[1:])  # (G, K, n, d)
        named = {"negative_states": states, "negative_group": group, "negative_keep": keep}
        return {name: to_device(values, device) for name, values in named.items()}
