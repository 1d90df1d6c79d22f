"""Rows on which a teacher and a label disagree: either may be wrong, and the most confident answers come first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

from railkd.tasks.base import Task

#: Numbers disagree if they differ by more than this many times the usual difference.
FAR = 2.0


@dataclass(frozen=True)
class Suspects:
    """Rows on which an answer and a label differ, the most confident answer first.

    Attributes:
        rows: (M,) numbers of the rows, from 0.
        confidence: (M,) probability of the answer; of several classes, of the surest one that differs; NaN of a number.
        margin: (M,) that probability minus the one of the label; of a number, the absolute difference.
    """

    rows: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray

    @classmethod
    def find(cls, task: Task, outputs: np.ndarray, labels: np.ndarray) -> Suspects:
        """Find the rows on which the answers of outputs differ from the labels.

        Numbers differ everywhere. Theirs are the rows whose difference is more than twice the usual one, which is the
        root of the mean square.

        Args:
            task: of the model.
            outputs: (N, C).
            labels: N encoded ones; rows without a label are left out.

        Returns:
            The rows. Ties are in the order of the rows.
        """
        z, there = np.asarray(outputs, dtype=np.float64), task.labelled(labels)
        known = labels[there]
        if not task.points:
            margin = np.full(len(z), np.nan)
            margin[there] = abs(task.decide(z[there]) - known)
            usual = float(np.sqrt(np.mean(margin[there] ** 2))) if there.any() else 0.0
            wrong, confidence, order = np.asarray(margin > FAR * usual), np.full(len(z), np.nan), margin
        elif task.several:
            differs = np.zeros(z.shape, dtype=bool)
            differs[there] = task.decide(z[there]) != known
            confidence = np.where(differs, expit(abs(z)), 0.0).max(axis=1)
            wrong, margin, order = np.asarray(differs.any(axis=1)), 2 * confidence - 1, confidence
        else:
            shares, given = softmax(z, axis=1), task.decide(z)
            rows = np.arange(len(z))
            confidence = shares[rows, given]
            margin = confidence - shares[rows, np.where(there, labels, 0)]
            wrong, order = np.asarray(there & (given != labels)), confidence
        found = np.flatnonzero(wrong)
        found = found[np.lexsort((found, -margin[found], -order[found]))]
        return cls(found, confidence[found], margin[found])
