"""The labelled rows of a set with a model's answers and probabilities, as metrics read them.

Letters: N labelled rows, C outputs of the head, K classes: C, or the coarser ones of a set that has a fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Protocol

from railkd.data.label_names import normalize
from railkd.data.labels import LabelSpace
from railkd.errors import RailkdError

if TYPE_CHECKING:
    import numpy as np

NO_LABELS = "no row has a label, so that there is nothing to score. Fix: give labelled rows."


class Scorable(Protocol):
    """The part of a `railkd.tasks.base.Task` that makes answers of outputs."""

    width: ClassVar[int | None]
    several: ClassVar[bool]
    one_class: ClassVar[bool]

    def labelled(self, labels: np.ndarray) -> np.ndarray:
        """Return (N,) bool: which labels are there."""

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """Return the answers of outputs, encoded as labels are."""

    def probabilities(self, outputs: np.ndarray) -> np.ndarray | None:
        """Return (N, C) the probability of each class; None for numbers."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The labelled rows of one set.

    Attributes:
        outputs: (N, C).
        labels: (N,) class indices or numbers, or (N, K) of 0 and 1 if a row has any number of classes.
        answers: of the same shape.
        shares: (N, K) probability of each class; None for numbers.
        names: of the K classes; empty: they have no names, or the labels are numbers.
        positive: index of the class that F1 and curves are about, if there are two; None: all classes count.
    """

    outputs: np.ndarray
    labels: np.ndarray
    answers: np.ndarray
    shares: np.ndarray | None
    names: tuple[str, ...] = ()
    positive: int | None = None

    @cached_property
    def members(self) -> np.ndarray:
        """(N, K) bool: which classes a row has. Numbers have no classes: (N, 0)."""
        return self._members_of(self.labels)

    @cached_property
    def given(self) -> np.ndarray:
        """(N, K) bool: which classes the answer of a row has."""
        return self._members_of(self.answers)

    def name(self, index: int) -> str:
        """Return the name of a class, or its number if it has none."""
        return self.names[index] if self.names else str(index)

    def without_model(self) -> Scored:
        """Return the rows with the share of each class in the labels as probabilities, the same for every row."""
        import numpy as np

        if self.shares is None:
            return self
        return replace(self, shares=np.tile(self.members.mean(axis=0), (len(self.labels), 1)))

    def _members_of(self, values: np.ndarray) -> np.ndarray:
        import numpy as np

        if self.shares is None:
            return np.zeros((len(values), 0), dtype=bool)
        found: np.ndarray = values > 0.5 if values.ndim == 2 else values[:, None] == np.arange(self.shares.shape[1])
        return found


def scored_rows(
    task: Scorable,
    outputs: np.ndarray,
    labels: np.ndarray,
    space: LabelSpace | None = None,
    positive: str | None = None,
) -> Scored:
    """Return the labelled rows with the answers that outputs give.

    If the space has a fold, the answer is chosen among the model's classes and then folded, and the probability of a
    coarser class is the sum of those of its classes.

    Args:
        task: the kind of task.
        outputs: (rows, C).
        labels: as many, encoded; rows without a label are left out.
        space: of these labels; None: plain indices.
        positive: of two classes, the one whose F1 is meant; None: the second.

    Returns:
        The rows. Outputs that are not finite, rows without any label, and shapes that do not fit are refused.
    """
    import numpy as np

    outputs, labels = np.asarray(outputs, dtype=np.float64), np.asarray(labels)
    outputs = outputs[:, None] if outputs.ndim == task.width == 1 else outputs
    _check_shapes(outputs.shape, labels.shape, task.width, task.several)
    outputs, labels = _select_labelled(outputs, labels, task.labelled(labels))
    answers, shares, names = task.decide(outputs), task.probabilities(outputs), tuple(space.names) if space else ()
    if space and space.fold and shares is not None:
        group, names = np.asarray(space.fold.group), tuple(space.fold.names)
        answers, labels = group[answers], group[labels]
        shares = np.stack([shares[:, group == number].sum(axis=1) for number in range(len(names))], axis=1)
    two = task.one_class and shares is not None and shares.shape[1] == 2
    which = index_of_positive(names, positive) if two else None
    return Scored(outputs, labels, answers, shares, names, which)


def _check_shapes(outputs: tuple[int, ...], labels: tuple[int, ...], width: int | None, several: bool) -> None:
    if len(outputs) != 2 or labels != (outputs if several else outputs[:1]) or width not in (None, outputs[1]):
        wanted = "both of shape (N, C)" if several else f"of shapes (N, {width or 'C'}) and (N,)"
        raise RailkdError(f"expected logits and labels {wanted}, got {outputs} and {labels}.")


def _select_labelled(outputs: np.ndarray, labels: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the outputs and labels of the labelled rows. Refuse no such row, and outputs that are not finite."""
    import numpy as np

    outputs, labels = outputs[labelled], labels[labelled]
    if len(labels) == 0:
        raise RailkdError(NO_LABELS)
    if not np.isfinite(outputs).all():
        # argmax would take NaN for a class, and a correlation would hide it.
        bad = int((~np.isfinite(outputs)).any(axis=1).sum())
        raise RailkdError(
            f"the model's outputs are not finite in {bad} of {len(labels)} rows. Fix: lower the learning rate."
        )
    return outputs, labels


def index_of_positive(names: Sequence[str], positive: str | None) -> int:
    """Return the index of the class whose F1 is meant.

    Args:
        names: of the two classes; empty: not known.
        positive: the class; None or unknown: the second.
    """
    found = [normalize(name) for name in names]
    return found.index(normalize(positive)) if positive is not None and normalize(positive) in found else 1
