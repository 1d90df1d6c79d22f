"""What would doom a run, as pure functions: numbers in, findings out. `railkd.jobs.check` gathers the numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from railkd.functional import ProblemType
from railkd.runtime.words import counted, duration, quoted, size
from railkd.tasks import metrics, multilabel

Level = Literal["error", "warning", "note"]
#: Fewer rows prove nothing of a teacher: it is then warned of, not refused.
FEWEST_ROWS = 8


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    error: the run would fail or be worthless; warning: it may be; note: good to know.
    """

    level: Level
    title: str
    detail: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.title}: {self.detail}" + (f"; {self.fix}" if self.fix else "")


def verdict(findings: Sequence[Finding]) -> str:
    """One line over all of them.

    >>> verdict([Finding("note", "lengths", "nothing is cut")])
    'verdict: ready to run'
    """
    count = Counter(finding.level for finding in findings)
    if count["error"]:
        return f"verdict: do not run this: {counted(count['error'], 'error')}, {counted(count['warning'], 'warning')}"
    return f"verdict: ready to run{', but see ' + counted(count['warning'], 'warning') if count['warning'] else ''}"


# ---- the teacher -------------------------------------------------------------------------------


def teacher_quality(
    logits: np.ndarray, labels: np.ndarray, names: Sequence[str], problem_type: ProblemType, *, allowed: bool = False
) -> Finding:
    """Whether a teacher knows more than the commonest answer.

    Args:
        logits: (N, C). labels: (N,) or (N, C), as `railkd.jobs.datafiles` encodes them.
        allowed: a weak one is only warned of.
    """
    rows = len(labels)
    level: Level = "warning" if allowed or rows < FEWEST_ROWS else "error"
    fix = "train the teacher longer, check its labels, or give --allow-weak-teacher"
    if problem_type == "regression":
        found = metrics.score(logits, labels, regression=True, metrics=["pearson"])["pearson"]
        said, chance = f"correlation {found:.3f} on {rows} rows", 2 / math.sqrt(rows)
        if found <= chance:
            return Finding(level, "weak teacher", f"{said}, which chance reaches too (up to {chance:.3f})", fix)
        return Finding("note", "teacher", said)
    if problem_type == "multi_label_classification":
        found, best = multilabel.score(logits, labels)["micro_f1"], _best_constant_f1(labels)
        said = f"micro F1 {found:.3f} on {rows} rows, {best:.3f} by always giving the commonest labels"
        return Finding(level, "weak teacher", said, fix) if found <= best else Finding("note", "teacher", said)
    counts = np.bincount(labels, minlength=len(names))
    majority, common = counts.max() / rows, names[int(counts.argmax())]
    scores = metrics.score(logits, labels, regression=False, metrics=["accuracy", "matthews"])
    found = scores["accuracy"]
    said = f"accuracy {found:.3f} on {rows} rows, {majority:.3f} by always answering {common!r}"
    if found <= majority:
        if scores["matthews"] > 0.2:  # rare classes: it tells them apart and yet loses rows of the common one
            return Finding("warning", "teacher", f"{said}; Matthews correlation {scores['matthews']:.3f}", fix)
        return Finding(level, "weak teacher", said, fix)
    if found <= majority + 2 * math.sqrt(majority * (1 - majority) / rows):
        return Finding("warning", "teacher", f"{said}: so small a lead may be chance")
    return Finding("note", "teacher", said)


def label_order(
    logits: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    cells: Mapping[str, Sequence[str]],
    *,
    allowed: bool = False,
) -> Finding | None:
    """Labels that evidently mean other outputs than their names say, and the mapping that fits; None: they fit.

    The mapping is the assignment of classes to outputs that makes most answers right, by the confusion matrix. It is
    believed when it beats the names by more than chance could, and the commonest class as well.

    Args:
        labels: (N,) classes by name. cells: class -> how the data write it, for --label-map.
    """
    from scipy.optimize import linear_sum_assignment

    rows, classes = len(labels), len(names)
    if rows < FEWEST_ROWS or classes < 2:
        return None
    confusion = np.zeros((classes, classes), dtype=np.int64)  # [label, answer]
    np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    present = confusion.any(axis=1)
    place = linear_sum_assignment(confusion, maximize=True)[1]
    if not present.all():  # a class without rows takes whatever output is left: that says nothing of it
        return None
    by_name, best = float(confusion.trace()) / rows, float(confusion[range(classes), place].sum()) / rows
    noise = math.sqrt(0.25 / rows)
    if best - by_name < max(0.1, 3 * noise) or best <= confusion.sum(axis=1).max() / rows + 2 * noise:
        return None
    moved = [i for i in range(classes) if place[i] != i]
    meaning = ", ".join(f"output {place[i]} is called {names[place[i]]!r} and means {names[i]!r}" for i in moved)
    renames = " ".join(quoted(f"{cell}={names[place[i]]}") for i in range(classes) for cell in cells.get(names[i], ()))
    order = [names[int(np.flatnonzero(place == i)[0])] for i in range(classes)]
    return Finding(
        "warning" if allowed else "error",
        "permuted labels",
        f"accuracy {by_name:.3f} by name, {best:.3f} when {meaning}",
        f"correct the teacher's config.json (id2label in the order {', '.join(order)}), or give --label-map {renames}",
    )


def output_names(teacher: Sequence[str], student: Sequence[str] | None, problem_type: ProblemType) -> list[Finding]:
    """Which index means what, and a student whose own head has another order."""
    if problem_type == "regression":
        return [Finding("note", "outputs", "one number")]
    meaning = ", ".join(f"{index} = {name}" for index, name in enumerate(teacher))
    found = [Finding("note", "outputs", f"{meaning} (teacher; data are matched by name)")]
    if tuple(teacher) == tuple(f"LABEL_{i}" for i in range(len(teacher))):
        fix = "write id2label and label2id into its config.json"
        found = [Finding("warning", "outputs", f"{meaning}: the teacher's classes have no names", fix)]
    if student is not None and tuple(student) != tuple(teacher) and len(student) == len(teacher):
        what = "in another order" if sorted(student) == sorted(teacher) else "with other names"
        if sorted(student) == sorted(teacher):
            detail = (
                f"the student's own head has the classes {what}: {', '.join(student)}; it is renamed to the teacher's"
            )
            found.append(Finding("warning", "student's head", detail, "give a student without a head of its own"))
    return found


# ---- the data ----------------------------------------------------------------------------------


def lengths(tokens: np.ndarray, max_length: int, limit: int | None, who: str) -> Finding:
    """Texts that are cut, and inputs longer than a model can take."""
    cut, longest = float((tokens > max_length).mean()), int(tokens.max())
    said = f"{cut:.1%} of rows are cut at {max_length} tokens (median {int(np.median(tokens))}, longest {longest:,})"
    if limit is not None and min(longest, max_length) > limit:
        return Finding("error", f"lengths ({who})", f"{said}; the model takes {limit}", f"give --max-length {limit}")
    if cut > 0.1:
        fitting = int(np.quantile(tokens, 0.95))
        room = fitting if limit is None else min(fitting, limit)
        fix = f"--max-length {room} would keep more of them" if room > max_length else "no length this model takes fits"
        return Finding("warning", f"truncation ({who})", said, fix)
    return Finding("note", f"lengths ({who})", said)


def unknown_words(share: float, who: str) -> Finding | None:
    """Tokens that a vocabulary does not know."""
    if share > 0.05:
        fix = "take a tokenizer made for this language and domain"
        return Finding("warning", f"vocabulary ({who})", f"{share:.1%} of tokens are unknown", fix)
    return Finding("note", f"vocabulary ({who})", f"{share:.2%} of tokens are unknown") if share else None


def balance(labels: np.ndarray, names: Sequence[str], problem_type: ProblemType) -> Finding:
    """How often each class occurs."""
    if problem_type == "regression":
        what = f"from {labels.min():g} to {labels.max():g}, mean {labels.mean():.3g}"
        if labels.min() == labels.max():
            return Finding("error", "labels", f"every label is {labels.min():g}", "there is nothing to learn from them")
        return Finding("note", "labels", what)
    multi = problem_type == "multi_label_classification"
    counts = labels.sum(axis=0).astype(int) if multi else np.bincount(labels, minlength=len(names))
    shares = counts / len(labels)
    said = ", ".join(f"{name} {count:,} ({part:.0%})" for name, count, part in zip(names, counts, shares, strict=True))
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    if absent:
        return Finding("warning", "classes", said, f"no training row has {', '.join(absent)}")
    if shares.min() < 0.01 or (not multi and shares.max() > 0.95):
        return Finding("warning", "classes", said, "accuracy says little here: look at F1 or Matthews")
    return Finding("note", "classes", said)


def normalised(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts as they are compared: case and white space do not count."""
    return tuple(" ".join(text.casefold().split()) for text in texts)


def leaks(train: Sequence[tuple[str, ...]], others: Mapping[str, Sequence[tuple[str, ...]]]) -> list[Finding]:
    """Rows of eval and test sets whose text is among the training rows."""
    seen, found = set(train), []
    for name, rows in others.items():
        shared = sum(row in seen for row in rows)
        if shared:
            detail = f"{shared:,} of {len(rows):,} rows of {name} ({shared / len(rows):.1%}) are training rows too"
            found.append(Finding("warning", "leak", detail, "its scores are too good; take these rows out of one"))
    return found or [Finding("note", "leak", "no text of an eval or test set is a training row")]


def conflicts(train: Sequence[tuple[str, ...]], labels: Sequence[Any]) -> Finding | None:
    """Texts that stand several times among the training rows, and those with unlike labels."""
    by_text: dict[tuple[str, ...], set[str]] = {}
    for text, label in zip(train, labels, strict=True):
        by_text.setdefault(text, set()).add(str(label))
    double, unlike = len(train) - len(by_text), sum(len(kinds) > 1 for kinds in by_text.values())
    if not double:
        return None
    detail = f"{double:,} training rows repeat a text" + (f", {unlike:,} texts have unlike labels" if unlike else "")
    return Finding("warning" if unlike > 0.01 * len(by_text) else "note", "doubles", detail)


# ---- the cost ----------------------------------------------------------------------------------


def cache_bytes(rows: int, blocks: int, width: int, classes: int, poolings: int = 1) -> int:
    """Size of a cache in half precision: the states of every pooling, the logits, and the keys.

    >>> cache_bytes(1000, 12, 768, 2)
    18456000
    """
    return rows * (blocks * width * 2 * poolings + classes * 4 + 16)


def cost(
    *, rows: int, bytes_needed: int, bytes_free: int, teacher_seconds: float | None, train_seconds: float | None,
    teacher_parameters: int, student_parameters: int,
) -> list[Finding]:  # fmt: skip
    """Disk, time and memory."""
    found = []
    needed = f"{size(bytes_needed)} for {rows:,} rows"
    if bytes_needed > bytes_free:
        found.append(
            Finding("error", "cache", f"{needed}, {size(bytes_free)} are free", "name a --cache on another disk")
        )
    else:
        found.append(Finding("note", "cache", needed))
    parts = [("teacher pass", teacher_seconds), ("training", train_seconds)]
    times = [f"{name} about {duration(value)}" for name, value in parts if value is not None]
    if times:
        found.append(Finding("note", "time", f"{', '.join(times)} on this machine"))
    # Weights, gradients and Adam's two moments of the student; the teacher is read only, and alone during its pass.
    memory = max(4 * teacher_parameters, 16 * student_parameters)
    found.append(Finding("note", "memory", f"{size(memory)} for weights and optimizer, activations aside"))
    return found


def _best_constant_f1(labels: np.ndarray) -> float:
    """Micro F1 of the best answer that is the same for every row: the k commonest labels."""
    counts = np.sort(np.nan_to_num(labels).sum(axis=0))[::-1]
    k = np.arange(1, len(counts) + 1)
    return float((2 * counts.cumsum() / (k * len(labels) + max(1.0, counts.sum()))).max())
