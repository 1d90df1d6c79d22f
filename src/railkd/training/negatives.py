"""Draw negative rows for CoDIR from the teacher cache. They have other classes and depend only on (seed, step)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from railkd.data.collator import Batch
from railkd.data.keys import KEY
from railkd.functional import UNLABELLED
from railkd.runtime.hardware import to_device
from railkd.teacher import StoredTeacher


class Negatives:
    """Draw K rows for each class and gather their states.

    With C classes, group c < C holds the rows of the other classes. The last group holds all rows, and serves examples
    without a class.

    Args:
        cache: the teacher cache.
        keys: example keys of the training rows, (N, 2).
        labels: classes of the rows, (N,). None or floats mean that there are no classes.
        pooling: pooling of the states.
        count: K, the number of rows drawn for each group.
        seed: seed of the run.
    """

    def __init__(
        self,
        cache: StoredTeacher,
        keys: np.ndarray,
        labels: Sequence[Any] | None,
        *,
        pooling: str,
        count: int,
        seed: int,
    ) -> None:
        self.cache, self.pooling, self.count, self.seed = cache, pooling, count, seed
        _, first = np.unique(keys, axis=0, return_index=True)  # a repeated text counts once
        self._keys = keys[first]
        classes = np.full(len(first), UNLABELLED)
        if labels is not None and len(labels) and isinstance(labels[0], int):
            classes = np.asarray(labels)[first]
        known = classes[classes != UNLABELLED]
        groups = int(known.max()) + 1 if len(known) else 0
        rows = np.arange(len(first))
        self._pools = [rows[(classes != c) & (classes != UNLABELLED)] for c in range(groups)] + [rows]
        # If all rows have the same class, draw from all rows.
        self._pools = [pool if len(pool) else rows for pool in self._pools]

    def draw(self, step: int, groups: Sequence[int] | None = None) -> np.ndarray:
        """Draw the keys of a step.

        Args:
            step: number of finished optimizer steps.
            groups: indices of G groups. None stands for all groups.

        Returns:
            Keys, (G, K, 2). A group with fewer than K rows is drawn from with replacement.
        """
        drawn = []
        for group in range(len(self._pools)) if groups is None else groups:
            pool = self._pools[group]
            rng = np.random.default_rng([self.seed, step, group])
            drawn.append(self._keys[rng.choice(pool, self.count, replace=len(pool) < self.count)])
        return np.stack(drawn)

    def __call__(
        self, batch: Mapping[str, Tensor], *, step: int, kept: Callable[[np.ndarray], Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the arguments of `railkd.models.distiller.Distiller` for a batch, on the device of its tokens.

        Args:
            batch: holds the keys and labels. Those of a `Batch` are read in main memory.
            step: number of finished optimizer steps.
            kept: returns the states of keys on the device, if they are kept there. None: they are read from the cache.

        Returns:
            ``negative_states`` (G, K, n, d) for the G groups in the batch, ``negative_group`` (B,) with the group of
            each example, and ``negative_keep`` (B, K), which is False where a negative is the example itself.
        """
        any_row = len(self._pools) - 1
        own, labels = (Batch.of(batch).on_host(name) for name in (KEY, "labels"))  # (B, 2), (B,)
        assert own is not None
        group = np.full(len(own), any_row)
        if labels is not None and labels.dtype.kind != "f":
            group = np.where((labels >= 0) & (labels < any_row), labels, any_row)
        # Read only the groups in this batch. With 150 classes, K rows for each would be more than the batch itself.
        present, group = np.unique(group, return_inverse=True)  # (G,), (B,)
        keys = self.draw(step, present.tolist())  # (G, K, 2)
        keep = (keys[group] != own[:, None]).any(axis=-1)  # (B, K): False where a negative is the example itself
        device = batch.get("input_ids", batch[KEY]).device
        wanted = keys.reshape(-1, 2)
        states = self.cache.gather(wanted, self.pooling)[1] if kept is None else kept(wanted)
        assert states is not None
        named = {"negative_states": states, "negative_group": group, "negative_keep": keep}
        found = {name: to_device(values, device) for name, values in named.items()}
        found["negative_states"] = found["negative_states"].unflatten(0, keys.shape[:2])  # (G, K, n, d)
        return found
