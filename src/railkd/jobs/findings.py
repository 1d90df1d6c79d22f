"""What would doom a run, as pure functions: numbers in, findings out. `railkd.jobs.check` gathers the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from railkd.runtime.words import counted, duration, size
from railkd.tasks.judging import Finding


def verdict(findings: Sequence[Finding]) -> str:
    """One line over all of them.

    >>> verdict([Finding("note", "lengths", "nothing is cut")])
    'verdict: ready to run'
    """
    count = Counter(finding.level for finding in findings)
    if count["error"]:
        return f"verdict: do not run this: {counted(count['error'], 'error')}, {counted(count['warning'], 'warning')}"
    return f"verdict: ready to run{', but see ' + counted(count['warning'], 'warning') if count['warning'] else ''}"


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
