"""Counts answers class by class: precision, recall, F1, the number of rows, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

from railkd.records import ClassScore
from railkd.runtime.words import shortened
from railkd.tasks.scored import Scored

#: A table shows at most this many classes: those of the lowest F1.
MOST_CLASSES = 20
HEADS = ("class", "precision", "recall", "F1", "rows")


def scores_by_class(rows: Scored) -> list[ClassScore]:
    """Return the scores of each class, in the order of the classes; empty if the labels are numbers.

    Args:
        rows: labelled ones.

    Example:
        >>> import numpy as np
        >>> shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
        >>> rows = Scored(shares, np.array([0, 1, 1]), np.array([0, 0, 1]), shares, ("no", "yes"))
        >>> [(one.name, one.precision, one.recall, one.support) for one in scores_by_class(rows)]
        [('no', 0.5, 1.0, 1), ('yes', 1.0, 0.5, 2)]
    """
    right = (rows.members & rows.given).sum(axis=0).tolist()
    support, answered = rows.members.sum(axis=0).tolist(), rows.given.sum(axis=0).tolist()
    return [
        ClassScore(
            rows.name(index),
            precision=_share(right[index], answered[index]),
            recall=_share(right[index], support[index]),
            f1=_share(2 * right[index], support[index] + answered[index]),
            support=support[index],
            answered=answered[index],
        )
        for index in range(len(support))
    ]


def confusion(rows: Scored) -> list[list[int]]:
    """Return [class, answer, number of rows] for each pair that occurs, as indices; empty without one class a row.

    Args:
        rows: labelled ones.

    Example:
        >>> import numpy as np
        >>> shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
        >>> confusion(Scored(shares, np.array([0, 1, 1]), np.array([0, 0, 1]), shares))
        [[0, 0, 1], [1, 0, 1], [1, 1, 1]]
    """
    import numpy as np

    if rows.shares is None or rows.labels.ndim == 2:
        return []
    pairs, counts = np.unique(np.stack([rows.labels, rows.answers], axis=1), axis=0, return_counts=True)
    found: list[list[int]] = np.concatenate([pairs, counts[:, None]], axis=1).astype(int).tolist()
    return found


def worst_classes(scores: Sequence[ClassScore], most: int = MOST_CLASSES) -> list[ClassScore]:
    """Return the classes that a table shows: all of a few, else those of the lowest F1, without those that never occur.

    Args:
        scores: of every class.
        most: the largest number of classes.
    """
    if len(scores) <= most:
        return list(scores)
    return sorted((one for one in scores if one.f1 is not None), key=lambda one: (one.f1, one.name))[:most]


def table_rows(scores: Sequence[ClassScore], digits: int = 4) -> list[list[str]]:
    """Return the rows of a table of classes, in the order of `HEADS`. A score that is not defined is a dash.

    Args:
        scores: of the classes to show.
        digits: after the point.
    """
    found = []
    for one in scores:
        shares = (_text(value, digits) for value in (one.precision, one.recall, one.f1))
        found.append([shortened(one.name), *shares, f"{one.support:,}"])
    return found


def describe_classes_left_out(scores: Sequence[ClassScore], most: int = MOST_CLASSES) -> str:
    """Return what a table of `worst_classes` leaves out, in words; empty if it shows every class.

    Args:
        scores: of every class.
        most: the largest number of classes.
    """
    shown = len(worst_classes(scores, most))
    return f"the {shown} of {len(scores):,} classes with the lowest F1" if shown < len(scores) else ""


def class_lines(name: str, scores: Sequence[ClassScore]) -> list[str]:
    """Return a table of the classes of one set, for a terminal.

    Args:
        name: of the set.
        scores: of every class.
    """
    if not scores:
        return []
    lines = [list(HEADS), *table_rows(worst_classes(scores))]
    wide = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    left_out = describe_classes_left_out(scores)
    title = f"{name}, by class ({left_out}):" if left_out else f"{name}, by class:"
    rows = []
    for first, *others in lines:
        rows.append("  ".join([first.ljust(wide[0]), *map(str.rjust, others, wide[1:])]))
    return [title, *(f"  {row}" for row in rows)]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
