"""Findings about a teacher's answers and about labels before a run starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from railkd.data.label_names import has_default_names
from railkd.runtime.words import joined, quoted, shortened

if TYPE_CHECKING:
    import numpy as np

Level = Literal["error", "warning", "note"]
#: Fewer rows prove nothing about a teacher, so that it is only warned of.
FEWEST_ROWS = 8
TRAIN_LONGER = "train the teacher longer, check its labels, or give --allow-weak-teacher"


@dataclass(frozen=True)
class Finding:
    """One result of the pre-flight.

    Attributes:
        level: error: the run would fail or be worthless; warning: it may be; note: good to know.
        title: what was looked at.
        detail: what was found.
        fix: what to do about it, in words.
    """

    level: Level
    title: str
    detail: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.title}: {self.detail}" + (f"; {self.fix}" if self.fix else "")


def weak_teacher(detail: str) -> Finding:
    """Return the finding of a teacher that knows no more than the answer that needs no model."""
    return Finding("error", "weak teacher", detail, TRAIN_LONGER)


def of_a_model(finding: Finding) -> Finding:
    """Return the finding about a teacher as a warning about a model that was just trained.

    Args:
        finding: of `weak_teacher` or about the labels.

    Example:
        >>> print(of_a_model(weak_teacher("accuracy 0.5, 0.5 by always answering 'a'")))
        warning: weak model: accuracy 0.5, 0.5 by always answering 'a'; train it longer, or check its labels
    """
    title = finding.title.replace("teacher", "model")
    fix = finding.fix.replace(TRAIN_LONGER, "train it longer, or check its labels")
    return replace(finding, level="warning", title=title, fix=fix)


def find_label_order(
    logits: np.ndarray, labels: np.ndarray, names: Sequence[str], cells: Mapping[str, Sequence[str]]
) -> Finding | None:
    """Find labels that evidently mean other outputs than their names say, and the mapping that fits.

    The mapping is the assignment of classes to outputs that makes most answers right, by the confusion matrix. It must
    be better than the names by more than chance, and better than the commonest class.

    Args:
        logits: (N, C).
        labels: (N,) classes by name.
        names: C of them.
        cells: class -> how the data write it, for --label-map.

    Returns:
        The finding; None: the names fit, or there are too few rows to tell.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    rows, classes = len(labels), len(names)
    if rows < FEWEST_ROWS or classes < 2:
        return None
    confusion = np.zeros((classes, classes), dtype=np.int64)  # [label, answer]
    np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    present = confusion.any(axis=1)
    place = linear_sum_assignment(confusion, maximize=True)[1]
    if not present.all():  # A class without rows would take whatever output is left.
        return None
    by_name, best = float(confusion.trace()) / rows, float(confusion[range(classes), place].sum()) / rows
    noise = math.sqrt(0.25 / rows)
    if best - by_name < max(0.1, 3 * noise) or best <= confusion.sum(axis=1).max() / rows + 2 * noise:
        return None
    moved = [i for i in range(classes) if place[i] != i]
    short = [shortened(name) for name in names]
    meaning = ", ".join(f"output {place[i]} is called {short[place[i]]!r} and means {short[i]!r}" for i in moved)
    renames = " ".join(quoted(f"{cell}={short[place[i]]}") for i in range(classes) for cell in cells.get(names[i], ()))
    order = [names[int(np.flatnonzero(place == i)[0])] for i in range(classes)]
    return Finding(
        "error",
        "permuted labels",
        f"accuracy {by_name:.3f} by name, {best:.3f} when {meaning}",
        f"correct the teacher's config.json (id2label in the order {joined(order)}), or give --label-map {renames}",
    )


def describe_classes(teacher: Sequence[str], student: Sequence[str] | None) -> list[Finding]:
    """Describe which output means which class, and warn if a student's own head has another order.

    Args:
        teacher: its class names, in output order.
        student: those of a student that brings a head; None: it brings none.

    Returns:
        One finding, and another one if the student's order differs.
    """
    meaning = ", ".join(f"{index} = {shortened(name)}" for index, name in enumerate(teacher))
    found = [Finding("note", "outputs", f"{meaning} (teacher; data are matched by name)")]
    if has_default_names(teacher):
        fix = "write id2label and label2id into its config.json"
        found = [Finding("warning", "outputs", f"{meaning}: the teacher's classes have no names", fix)]
    if student is not None and tuple(student) != tuple(teacher) and sorted(student) == sorted(teacher):
        detail = (
            f"the student's own head has the classes in another order: {joined(student)}; "
            "it is renamed to the teacher's"
        )
        found.append(Finding("warning", "student's head", detail, "give a student without a head of its own"))
    return found


def describe_balance(counts: np.ndarray, rows: int, names: Sequence[str], *, most: float) -> Finding:
    """Describe how often each class occurs.

    Args:
        counts: (C,) rows of each class.
        rows: all of them.
        names: C of them.
        most: a class in a larger share of the rows is warned of.

    Returns:
        A note, or a warning about rare or missing classes.
    """
    shares = counts / rows
    shown = ", ".join(
        f"{shortened(name)} {count:,} ({part:.0%})" for name, count, part in zip(names, counts, shares, strict=True)
    )
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent:
        return Finding("warning", "classes", shown, f"no training row has {joined(absent)}")
    if shares.min() < 0.01 or shares.max() > most:
        return Finding("warning", "classes", shown, "accuracy says little here: look at F1 or Matthews")
    return Finding("note", "classes", shown)
