"""Compares the outputs of an exported file with those of the model in PyTorch, on real rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from railkd.tasks import Task

#: Rows of all lengths that a comparison takes, if there are so many.
ROWS = 320
#: Rows that a comparison should have. Fewer are accepted with a note.
WANTED_ROWS = 300
#: Largest difference of a logit that rounding explains, where logits are up to 1; larger ones scale it.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """How far two models differ on the same rows.

    Attributes:
        rows: number of rows.
        largest: largest absolute difference of a logit.
        allowed: largest difference that is accepted.
        flips: rows with another verdict.
    """

    rows: int
    largest: float
    allowed: float
    flips: int

    @property
    def holds(self) -> bool:
        """True if rounding explains the difference."""
        return self.largest <= self.allowed

    def __str__(self) -> str:
        few = "" if self.rows >= WANTED_ROWS else f" (a comparison should have {WANTED_ROWS})"
        differs = f"largest logit difference {self.largest:.1e}, {self.flips:,} verdicts differ"
        return f"{differs}, on {self.rows:,} rows{few}"


def compare(reference: np.ndarray, exported: np.ndarray, task: Task) -> Parity:
    """Compare the outputs of two models.

    Args:
        reference: (N, C) of PyTorch.
        exported: (N, C) of the exported file, for the same rows.
        task: whose answers are compared.

    Returns:
        The comparison. Outputs that are not finite differ by infinity.
    """
    differences = np.abs(reference.astype(np.float64) - exported)
    largest = float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))
    answers, theirs = (task.decide(outputs).reshape(len(outputs), -1) for outputs in (reference, exported))
    flips = int((answers != theirs).any(axis=1).sum()) if task.points else 0
    scale = max(1.0, float(np.abs(reference).max(initial=0.0)))
    return Parity(len(reference), largest, TOLERANCE * scale, flips)
