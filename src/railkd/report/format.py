"""Numbers as a reader sees them, and the sentences that follow from them. The page, Markdown and CSV all use these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from railkd.runtime.words import counted, duration
from railkd.runtime.words import size as size_in_words
from railkd.statistics import ALPHA

MINUS = "−"
DASH = "–"
SHOWN, NOT_SHOWN = "a difference is shown", "no difference shown"


def number(value: float | None, digits: int = 1) -> str:
    """With a true minus sign, and never minus zero; a dash for nothing.

    >>> number(-0.04), number(-1.25), number(None)
    ('0.0', '−1.2', '–')
    """
    if value is None:
        return DASH
    text = f"{value:,.{digits}f}"
    if text.startswith("-"):
        text = text[1:] if float(text.replace(",", "")) == 0 else MINUS + text[1:]
    return text


def signed(value: float | None, digits: int = 1) -> str:
    """A difference: ``+0.4``, ``−0.2``, ``0.0``."""
    text = number(value, digits)
    return text if value is None or text.startswith(MINUS) or float(text.replace(",", "")) == 0 else f"+{text}"


def spread(mean: float, sd: float | None, digits: int = 1) -> str:
    """``81.2 ± 0.4``; one seed has no spread."""
    return number(mean, digits) + (f" ± {number(sd, digits)}" if sd is not None else "")


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """``[−0.2, 1.0]``, or a dash."""
    return DASH if low is None or high is None else f"[{number(low, digits)}, {number(high, digits)}]"


def p_value(p: float | None) -> str:
    """Two digits are enough: ``0.03``, ``0.004``, ``< 0.001``.

    >>> p_value(0.0312), p_value(0.0042), p_value(1e-9), p_value(None)
    ('0.03', '0.004', '< 0.001', '–')
    """
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0095 else f"{p:.2f}"


def percent(share: float | None, digits: int = 1) -> str:
    """``81.2 %``."""
    return DASH if share is None else f"{100 * share:.{digits}f} %"


def seconds(value: float | None) -> str:
    """A duration in words, or a dash."""
    return DASH if value is None else duration(value)


def size(value: float | None) -> str:
    """A size in words; a dash where nothing is known."""
    return size_in_words(value) if value else DASH


def ratio(value: float | None) -> str:
    """``1.03×``."""
    return DASH if value is None else f"{value:.2f}×"


def contrast(row: Mapping[str, Any], family: int) -> dict[str, str]:
    """One contrast as a sentence, and its verdict: "no difference shown" is a result."""
    arm, baseline = row["arm"], row["baseline"]
    where = " out of the domain" if row["domain"] == "out" else ""
    if not row["over"]:
        return _said(f"{arm} and {baseline} have no test set{where} and seed in common", "nothing to compare")
    mean = row["mean"]
    side = f"{number(abs(mean))} points {'above' if mean > 0 else 'below'}"
    place = "level with" if number(abs(mean)) == "0.0" else side
    over = (
        f"on average over {row['tasks']} tasks"
        if row["over"] == "tasks"
        else f"over {counted(row['n'], 'seed')} of one task"
    )
    said = f"{arm} is {place} {baseline} {over}{where}"
    if row["low"] is None:
        why = "one seed" if row["n"] == 1 else f"the {row['n']} {row['over']} agree exactly"
        return _said(f"{said} ({why}, so there is no interval)", NOT_SHOWN)
    p = p_value(row["holm"])
    test = f"p {p if p.startswith('<') else f'= {p}'}{' after Holm' if family > 1 else ''}"
    return _said(f"{said}, {interval(row['low'], row['high'])}, {test}", SHOWN if row["shown"] else NOT_SHOWN)


def headline(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the report says, in the order a reader needs it: ``text``, and a ``verdict`` where there is one."""
    asked = content["contrasts"]
    found = [contrast(row, asked["family"]) for row in asked["rows"]] if asked["named"] else []
    return [*found, *map(_said, _standing(content)), *map(_said, _price(content))]


def _said(text: str, verdict: str = "") -> dict[str, str]:
    return {"text": text, "verdict": verdict}


def _standing(content: Mapping[str, Any]) -> list[str]:
    """The highest average, beside the teacher's, and whether it is shown to be the best."""
    table = content["scores"]["in"]
    single = len(table["columns"]) == 1
    if single and not table["columns"][0]["points"]:
        return []
    scored = [
        (group["student"], row["arm"], cell)
        for group in table["groups"]
        for row in group["rows"]
        if (cell := row["cells"][0] if single else row["average"])
    ]
    teachers = [cell["mean"] for student, _, cell in scored if not student]
    teacher = teachers[0] if len(teachers) == 1 else None  # of several, each has students of its own
    said = []
    for student in content["students"]:
        ranked = sorted(
            ((arm, cell) for owner, arm, cell in scored if owner == student), key=lambda item: -item[1]["mean"]
        )
        if ranked:
            said.append(f"{student}: {_highest(ranked, 'score' if single else 'average', teacher)}.")
    return said


def _highest(ranked: Sequence[tuple[str, Mapping[str, Any]]], what: str, teacher: float | None) -> str:
    """The first of the arms, highest first, or how many share its place."""
    arm, best = ranked[0]
    ties = sum(number(cell["mean"]) == number(best["mean"]) for _, cell in ranked)
    whose = f"{arm}'s" if ties == 1 else f"shared by {ties} of {counted(len(ranked), 'arm')}"
    said = f"the highest {what} is {whose}, {number(best['mean'])}"
    if teacher:
        said += f" of the teacher's {number(teacher)} ({percent(best['mean'] / teacher)} kept)"
    if best["best"]:
        return f"{said}, above every other arm in a paired test"
    return said if len(ranked) < 2 or ties > 1 else f"{said}; it is not shown to be the best"


def _price(content: Mapping[str, Any]) -> list[str]:
    rows = [row for row in content["times"]["rows"] if row["teacher"] == "cached" and row["ratio"]]
    if not rows:
        return []
    ratios = [row["ratio"] for row in rows]
    span = (
        ratio(min(ratios))
        if ratio(min(ratios)) == ratio(max(ratios))
        else f"{ratio(min(ratios))} to {ratio(max(ratios))}"
    )
    return [f"Training from the teacher's cache took {span} the time of fine-tuning the same student."]


def scores_note(content: Mapping[str, Any]) -> str:
    """What the spread in the tables is of, and what bold means."""
    groups = [group for table in content["scores"].values() for group in table["groups"] if group["student"]]
    seeds = sorted({cell["n"] for group in groups for row in group["rows"] for cell in row["cells"] if cell})
    if not seeds or seeds == [1]:
        return "One seed each: there is no spread and no interval, and no difference between arms is shown."
    shown = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"Mean ± standard deviation over {shown} seeds. Bold: shown to be the best of its student, above every other "
        f"arm in a paired test at {100 * ALPHA:g} %; where no number is bold, none is shown to be the best."
    )


EXPLORING = (
    "No contrast was named before the run, so these compare every arm with the baseline after the fact: read them as a "
    "question for the next run."
)
