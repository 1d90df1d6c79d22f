"""Sum the loss terms between two lines of the log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from railkd.runtime import ranks


class TermSums:
    """Add up the loss terms of training steps until the log takes their mean.

    Args:
        names: names of the terms, in the order of the tensor that `add` receives.

    Attributes:
        steps: number of optimizer steps since the last `clear`. A micro-batch counts as its share of a step.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.clear()

    def clear(self) -> None:
        """Start again from zero."""
        self._sums: Tensor | None = None
        self.steps: Tensor | float = 0.0

    def add(self, terms: Tensor, factor: Tensor | float, share: Tensor | float | None = None) -> None:
        """Add the terms of one micro-batch, without a read from the device.

        Args:
            terms: one value for each name, (T,), on any device.
            factor: the micro-batch's share of an optimizer step. NaN makes its terms count as 0.
            share: the share to add to ``steps``, for a ``factor`` that may be NaN. None uses ``factor``.
        """
        added = (terms.detach() * factor).nan_to_num(0.0, 0.0, 0.0)
        self._sums = added if self._sums is None else added + self._sums
        self.steps = self.steps + (factor if share is None else share)

    def forget(self, share: Tensor | float) -> None:
        """Subtract the share of a micro-batch whose terms counted as 0 from ``steps``."""
        self.steps = self.steps - share

    def mean(self) -> dict[str, float]:
        """Return the mean of each term over the steps and all ranks. Every rank must call this method."""
        if not self.steps or self._sums is None:
            return {}
        steps = float(self.steps)
        means = (self._sums / steps).tolist()
        if ranks.world_size() > 1:
            means = (
                ranks.all_reduce_sum(self._sums.cpu().numpy()) / ranks.all_reduce_sum(np.asarray([steps]))
            ).tolist()
        return dict(zip(self.names, means, strict=True))

    def state(self) -> list[float]:
        """Return the number of steps, followed by the sums of this rank."""
        return [float(self.steps), *([0.0] * len(self.names) if self._sums is None else self._sums.tolist())]

    def restore(self, state: Sequence[float], device: torch.device | str) -> None:
        """Restore the steps and sums.

        Args:
            state: values that the method `state` returned.
            device: device of the terms that will be added.
        """
        self.clear()
        steps, *sums = state
        self.steps = steps
        if steps:
            self._sums = torch.tensor(sums, device=device)
