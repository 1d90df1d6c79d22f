"""Compares the scale of a regression teacher's outputs with that of the labels, and fits the line between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from railkd.errors import RailkdError
from railkd.tasks.judging import Finding

if TYPE_CHECKING:
    import numpy as np

#: Slack on the spread, and the shift of the mean in spreads of the labels, that count as the same scale.
_SLACK, _SHIFT = 0.8, 0.25
#: Share of the labels' variance that a line must explain for a wrong scale to be an error.
_CLEAR = 0.5


@dataclass(frozen=True)
class Line:
    """The line ``slope * x + offset`` from the outputs of a teacher to the labels.

    Attributes:
        slope: above 0.
        offset: added.
        explained: share of the variance of the labels that it explains.
    """

    slope: float
    offset: float
    explained: float = 0.0

    def __str__(self) -> str:
        return f"{self.slope:.4g} x {'-' if self.offset < 0 else '+'} {abs(self.offset):.4g}"


def fit_line(outputs: np.ndarray, labels: np.ndarray) -> Line:
    """Fit the line with the least squared error.

    Args:
        outputs: (N,) or (N, 1) of the teacher.
        labels: (N,).

    Returns:
        The line.

    Raises:
        RailkdError: fewer than 2 rows, outputs or labels without any spread, or outputs that fall as labels rise.

    Example:
        >>> import numpy as np
        >>> str(fit_line(np.array([0.0, 1.0]), np.array([1.0, 5.0])))
        '4 x + 1'
    """
    import numpy as np

    x, y = np.asarray(outputs, dtype=np.float64).reshape(-1), np.asarray(labels, dtype=np.float64)
    spread = float(x.var() * y.var()) if len(x) > 1 else 0.0
    shared = float(((x - x.mean()) * (y - y.mean())).mean()) if spread else 0.0
    if shared <= 0:
        raise RailkdError(
            f"Expected outputs of the teacher that rise with the labels, to fit a line on {len(x):,} rows, got others. "
            "Fix: take a teacher that correlates with the labels."
        )
    slope = shared / float(x.var())
    return Line(slope, float(y.mean() - slope * x.mean()), shared**2 / spread)


def compare_scales(outputs: np.ndarray, labels: np.ndarray, detail: str) -> Finding | None:
    """Find outputs on another scale than the labels, which a correlation does not show.

    Noise on either side changes the ratio of the spreads by up to the correlation r, so a ratio between r and 1/r is
    no other scale.

    Args:
        outputs: (N,) of a teacher that correlates with the labels.
        labels: (N,).
        detail: what is known of the teacher so far, in words.

    Returns:
        An error if a line explains the labels and the outputs are further from them than their mean is. A warning if
        the scale differs otherwise. None if it does not.
    """
    line = fit_line(outputs, labels)
    x, y, r = outputs, labels, math.sqrt(line.explained)
    ratio, shift = float(x.std() / y.std()), abs(float(x.mean() - y.mean()))
    chance = 3 * math.sqrt(float(x.var() + y.var()) / len(x))
    if _SLACK * r <= ratio <= 1 / (_SLACK * r) and shift <= max(_SHIFT * float(y.std()), chance):
        return None
    error = float(((x - y) ** 2).mean())
    found = (
        f"{detail}, but the outputs x (mean {x.mean():.3g}, spread {x.std():.3g}) are on another scale than the labels "
        f"(mean {y.mean():.3g}, spread {y.std():.3g}): squared error {error:.3g}, {y.var():.3g} for the mean of the "
        f"labels, which are about {line}"
    )
    fix = "give --rescale-teacher, which puts this line on the teacher's outputs, or scale the labels"
    clear = line.explained >= _CLEAR and error > float(y.var())
    return Finding("error" if clear else "warning", "scale of the teacher", found, fix)
