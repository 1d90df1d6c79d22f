"""A temperature and a threshold for each class, which change the answers and the probabilities of a kind of task.

The rule, and the file that keeps them: `railkd.jobs.thresholds`. Letters: N rows, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Cut:
    """A temperature and thresholds.

    Attributes:
        temperature: divides the outputs.
        limits: C thresholds on the probabilities, each above 0 and below 1.
    """

    temperature: float
    limits: tuple[float, ...]


def scaled(cut: Cut | None, outputs: np.ndarray) -> np.ndarray:
    """Return outputs whose probabilities are calibrated.

    Args:
        cut: whose temperature counts; None: the outputs stay.
        outputs: (N, C).
    """
    return outputs if cut is None else outputs / cut.temperature


def moved(cut: Cut | None, outputs: np.ndarray, *, several: bool) -> np.ndarray:
    """Return outputs whose usual answers are those by the thresholds: the largest, or those above 0.

    Args:
        cut: whose thresholds count; None: the outputs stay.
        outputs: (N, C).
        several: any number of classes applies to a row.

    >>> import numpy as np
    >>> moved(Cut(1.0, (0.65, 0.35)), np.log([[0.6, 0.4]]), several=False).argmax(axis=1).tolist()
    [1]
    """
    if cut is None:
        return outputs
    import numpy as np

    limits = np.asarray(cut.limits)
    return scaled(cut, outputs) - (np.log(limits / (1 - limits)) if several else np.log(limits))
