"""Mean and covariance of teacher states, in one pass over a cache."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from railkd.signals import BlockShape, Moments


def moments_of(parts: Iterable[Tensor], rows: int, shape: BlockShape) -> Moments:
    """Return the mean and covariance of every block in float64.

    The sums follow the order of the parts, so equal parts give equal numbers.

    Args:
        parts: states (R, n, d), with ``rows`` rows in all.
        rows: at least 2.
        shape: n and d.
    """
    n, d = shape
    total = torch.zeros(n, d, dtype=torch.float64)
    products = torch.zeros(n, d, d, dtype=torch.float64)
    # The mean of the first part is subtracted before squaring: small numbers keep their digits.
    shift = torch.zeros(n, 1, d, dtype=torch.float64)
    for number, states in enumerate(parts):
        x = states.double().transpose(0, 1)  # (n, R, d)
        if number == 0:
            shift = x.mean(dim=1, keepdim=True)
        x = x - shift
        total += x.sum(dim=1)
        products += x.transpose(1, 2) @ x
    mean = total / rows
    covariance = (products - rows * mean.unsqueeze(2) * mean.unsqueeze(1)) / (rows - 1)
    return Moments(rows, mean + shift.squeeze(1), covariance)
