"""Running sums of the loss terms between two lines of the log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from railkd.runtime import ranks


class TermSums:
    """Add up the loss terms of training steps until the log takes their mean.

    Args:
        names: of the terms, in the order in which `add` receives them.

    Attributes:
        steps: optimizer steps since the last `clear`; a micro-batch counts for its share of a step.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.clear()

    def clear(self) -> None:
        """Start again from zero."""
        self._sums: Tensor | None = None
        self.steps: Tensor | float = 0.0

    def add(self, terms: Tensor, factor: Tensor | float, share: Tensor | float | None = None) -> None:
        """Add the terms of one micro-batch; nothing is read back from the device.

        Args:
            terms: (number of names,), on any device.
            factor: the part of an optimizer step that the micro-batch makes up; NaN: its terms count as 0.
            share: the same part where ``factor`` is NaN, to be taken back by `forget`; None: ``factor``.
        """
        added = (terms.detach() * factor).nan_to_num(0.0, 0.0, 0.0)
        self._sums = added if self._sums is None else added + self._sums
        self.steps = self.steps + (factor if share is None else share)

    def forget(self, share: Tensor | float) -> None:
        """Take back the share of a micro-batch whose terms counted as 0."""
        self.steps = self.steps - share

    def mean(self) -> dict[str, float]:
        """Return the mean of each term over the steps and all ranks; every rank must call it."""
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
        """Return the steps and then the sums of this rank."""
        return [float(self.steps), *([0.0] * len(self.names) if self._sums is None else self._sums.tolist())]

    def restore(self, state: Sequence[float], device: torch.device | str) -> None:
        """Continue from what `state` returned, on the device that will hold the terms."""
        self.clear()
        steps, *sums = state
        self.steps = steps
        if steps:
            self._sums = torch.tensor(sums, device=device)
