"""Turns numbers into findings that warn before a run. `railkd.jobs.check` gathers the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from railkd.runtime.words import counted, duration, size
from railkd.signals import checked_poolings
from railkd.tasks.judging import Finding
from railkd.teacher.number_formats import states_bytes


def verdict(findings: Sequence[Finding]) -> str:
    """Return one line that sums up all findings.

    Args:
        findings: findings of one check.

    Returns:
        The line, with the number of errors and warnings.

    >>> verdict([Finding("note", "lengths", "nothing is cut")])
    'verdict: ready to run'
    """
    count = Counter(finding.level for finding in findings)
    if count["error"]:
        return f"verdict: do not run this: {counted(count['error'], 'error')}, {counted(count['warning'], 'warning')}"
    return f"verdict: ready to run{', but see ' + counted(count['warning'], 'warning') if count['warning'] else ''}"


# ---- the data ----------------------------------------------------------------------------------


def lengths(tokens: np.ndarray, max_length: int, limit: int | None, who: str) -> Finding:
    """Find rows that are cut, and rows that are too long for a model.

    Args:
        tokens: (N,) length of every row in tokens, uncut.
        max_length: length in tokens at which rows are cut.
        limit: number of positions of the model; None if it has no limit.
        who: "teacher" or "student".

    Returns:
        An error if rows are too long for the model, a warning if more than a tenth is cut, otherwise a note.
    """
    cut, longest = float((tokens > max_length).mean()), int(tokens.max())
    detail = f"{cut:.1%} of rows are cut at {max_length} tokens (median {int(np.median(tokens))}, longest {longest:,})"
    if limit is not None and min(longest, max_length) > limit:
        fix = f"give --max-length {limit}"
        return Finding("error", f"lengths ({who})", f"{detail}; the model takes at most {limit}", fix)
    if cut > 0.1:
        fitting = int(np.quantile(tokens, 0.95))
        room = fitting if limit is None else min(fitting, limit)
        fix = f"--max-length {room} would keep more of them" if room > max_length else "take a model for longer texts"
        return Finding("warning", f"truncation ({who})", detail, fix)
    return Finding("note", f"lengths ({who})", detail)


def smaller_vocabulary(pieces: Mapping[str, int]) -> Finding:
    """Say what ``--vocabulary`` changes.

    Args:
        pieces: word pieces ``before`` and ``after``, and how many training texts are ``cut`` into smaller ones.

    Returns:
        The finding.
    """
    kept = f"{pieces['after']:,} of {pieces['before']:,} word pieces stay"
    return Finding("note", "vocabulary", f"{kept}; {pieces['cut']:,} training texts are cut into smaller pieces")


def unknown_words(share: float, who: str) -> Finding | None:
    """Find texts that a vocabulary does not know.

    Args:
        share: share of unknown tokens, 0 to 1.
        who: "teacher" or "student".

    Returns:
        A warning above 5 %, a note above 0, otherwise None.
    """
    if share > 0.05:
        fix = "take a model whose tokenizer knows this language and domain"
        return Finding("warning", f"vocabulary ({who})", f"{share:.1%} of tokens are unknown", fix)
    return Finding("note", f"vocabulary ({who})", f"{share:.2%} of tokens are unknown") if share else None


def leaks(
    train: Sequence[tuple[str, ...]],
    others: Mapping[str, Sequence[tuple[str, ...]]],
    unlabelled: Sequence[tuple[str, ...]] = (),
) -> list[Finding]:
    """Find rows of eval and test sets whose texts are trained on too, with a label or without.

    Args:
        train: normalised texts of the training rows.
        others: name of a set -> normalised texts of its rows.
        unlabelled: normalised texts of the rows without labels.

    Returns:
        A warning for each set with such rows, or one note.
    """
    trained, found = {"training rows": set(train), "rows of --unlabelled": set(unlabelled)}, []
    for name, rows in others.items():
        for what, seen in trained.items():
            if shared := sum(row in seen for row in rows):
                detail = f"{shared:,} of {len(rows):,} rows of {name} ({shared / len(rows):.1%}) are {what} too"
                fix = "remove these rows from one of the two sets; they make its scores too good"
                found.append(Finding("warning", "leak", detail, fix))
    extra = " or a row of --unlabelled" if unlabelled else ""
    return found or [Finding("note", "leak", f"no text of an eval or test set is a training row{extra}")]


def repeats(train: Sequence[tuple[str, ...]], unlabelled: Sequence[tuple[str, ...]]) -> Finding | None:
    """Count the rows without labels whose text is a training row or an earlier row without a label.

    Args:
        train: normalised texts of the training rows.
        unlabelled: normalised texts of the rows without labels of all files.

    Returns:
        A note; None if each text comes once.
    """
    if not (count := len(unlabelled) - len(set(unlabelled) - set(train))):
        return None
    detail = f"{count:,} of {len(unlabelled):,} rows of --unlabelled have the text of a training row or of an earlier"
    return Finding("note", "unlabelled", f"{detail} row without a label; they are trained on each time")


def conflicts(train: Sequence[tuple[str, ...]], labels: Sequence[Any]) -> Finding | None:
    """Find texts that occur several times among the training rows, and those with different labels.

    Args:
        train: normalised texts of N training rows.
        labels: N labels.

    Returns:
        A warning if more than 1 % of the texts have different labels, a note if texts repeat, otherwise None.
    """
    by_text: dict[tuple[str, ...], set[str]] = {}
    for text, label in zip(train, labels, strict=True):
        by_text.setdefault(text, set()).add(str(label))
    repeats, mixed = len(train) - len(by_text), sum(len(kinds) > 1 for kinds in by_text.values())
    if not repeats:
        return None
    detail = f"{repeats:,} training rows repeat a text" + (f", {mixed:,} texts have different labels" if mixed else "")
    return Finding("warning" if mixed > 0.01 * len(by_text) else "note", "doubles", detail)


# ---- the cost ----------------------------------------------------------------------------------


def cache_bytes(
    rows: int,
    blocks: int,
    width: int,
    classes: int,
    poolings: Sequence[str] = ("mean",),
    dtype: str = "float16",
) -> int:
    """Return the bytes of a cache: states of every pooling, logits and keys.

    Args:
        rows: number of rows.
        blocks: number of teacher blocks.
        width: width of the teacher's states.
        classes: number of logits.
        poolings: names of the stored poolings, or ``none`` alone.
        dtype: number format of the states.

    Returns:
        The number of bytes.

    >>> cache_bytes(1000, 12, 768, 2)
    18456000
    """
    states = states_bytes(dtype, blocks, width) * len(checked_poolings(poolings))
    return rows * (states + classes * 4 + 16)


def cost(
    *, rows: int, bytes_needed: int, bytes_free: int, teacher_seconds: float | None, train_seconds: float | None,
    teacher_parameters: int, student_parameters: int,
) -> list[Finding]:  # fmt: skip
    """Estimate the disk space, time and memory of a run.

    Args:
        rows: number of training rows.
        bytes_needed: size of the cache to build.
        bytes_free: free bytes of its disk.
        teacher_seconds: time of the teacher pass; None if unknown.
        train_seconds: time of the training; None if unknown.
        teacher_parameters: number of weights of the teacher; 0 if it is not loaded.
        student_parameters: number of weights of the student.

    Returns:
        One finding each for disk and memory, and one for the time if it is known.
    """
    found = []
    needed = f"{size(bytes_needed)} for {rows:,} rows{f', {bytes_needed // rows:,} bytes each' if bytes_needed else ''}"
    if bytes_needed > bytes_free:
        found.append(
            Finding("error", "cache", f"{needed}, but {size(bytes_free)} are free", "give --cache on a larger disk")
        )
    else:
        found.append(Finding("note", "cache", needed))
    parts = [("teacher pass", teacher_seconds), ("training", train_seconds)]
    times = [f"{name} about {duration(value)}" for name, value in parts if value is not None]
    if times:
        found.append(Finding("note", "time", f"{', '.join(times)} on this machine"))
    # The student needs weights, gradients and Adam's two moments. The teacher needs weights only, in its own pass.
    memory = max(4 * teacher_parameters, 16 * student_parameters)
    found.append(Finding("note", "memory", f"{size(memory)} for weights and optimizer, without activations"))
    return found
