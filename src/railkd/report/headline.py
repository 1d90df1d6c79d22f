"""Sentences of the report: contrasts with their verdicts, the best arm of each student, the price of the cache.

The page, Markdown and the terminal print these sentences unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from railkd.records import TEACHER_PART
from railkd.report.format import interval, number, p_value, percent, ratio
from railkd.runtime.words import counted
from railkd.statistics import ALPHA

SHOWN, NOT_SHOWN, NOT_TESTABLE = "a difference is shown", "no difference shown", "nothing to compare"
EXPLORATORY = (
    "No contrast was named before the run. This table compares every arm with the baseline after the fact: treat its "
    "results as questions for the next run."
)


def headline(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the sentences at the top of the report, the most important first.

    Args:
        content: the dict of `content.content`; contrasts, scores, students and times are read.

    Returns:
        For each sentence its ``text`` and its ``verdict``, which is empty for a plain statement.
    """
    contrasts = content["contrasts"]
    named = [contrast(row, contrasts["family"]) for row in contrasts["rows"]] if contrasts["named"] else []
    return [*named, *map(_sentence, _best_arms(content)), *map(_sentence, _cache_price(content))]


def contrast(row: Mapping[str, Any], family: int) -> dict[str, str]:
    """Return one contrast as a sentence with its verdict.

    Args:
        row: a row of ``content["contrasts"]["rows"]``.
        family: number of contrasts that Holm's method adjusts for.

    Returns:
        ``text`` and ``verdict``. "No difference shown" is a result too.
    """
    arm, baseline = row["arm"], row["baseline"]
    domain = " out of the domain" if row["domain"] == "out" else ""
    if not row["over"]:
        return _sentence(f"{arm} and {baseline} have no score{domain} on the same test set and seed", NOT_TESTABLE)
    mean = row["mean"]
    side = f"{number(abs(mean))} points {'above' if mean > 0 else 'below'}"
    place = "level with" if number(abs(mean)) == "0.0" else side
    units = (
        f"on average over {row['tasks']} tasks"
        if row["over"] == "tasks"
        else f"over {counted(row['n'], 'seed')} of one task"
    )
    text = f"{arm} is {place} {baseline} {units}{domain}"
    if row["low"] is None:
        reason = "one seed" if row["n"] == 1 else f"the {row['n']} {row['over']} agree exactly"
        return _sentence(f"{text} ({reason}, so there is no interval)", NOT_SHOWN)
    p = p_value(row["holm"])
    test = f"p {p if p.startswith('<') else f'= {p}'}{' after Holm' if family > 1 else ''}"
    return _sentence(f"{text}, {interval(row['low'], row['high'])}, {test}", SHOWN if row["shown"] else NOT_SHOWN)


def _sentence(text: str, verdict: str = "") -> dict[str, str]:
    return {"text": text, "verdict": verdict}


def _best_arms(content: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each student: its best arm, the teacher's score, and whether a test confirms it."""
    table = content["scores"]["in"]
    single = len(table["columns"]) == 1
    if single and not table["columns"][0]["points"]:
        return []
    cells = [
        (group["student"], row["arm"], cell)
        for group in table["groups"]
        for row in group["rows"]
        if (cell := row["cells"][0] if single else row["average"])
    ]
    teachers = [cell["mean"] for student, arm, cell in cells if not student and not arm.startswith(TEACHER_PART)]
    teacher = teachers[0] if len(teachers) == 1 else None  # several teachers serve different students
    sentences = []
    for student in content["students"]:
        arms = [(arm, cell) for owner, arm, cell in cells if owner == student]
        if arms:
            arms.sort(key=lambda item: -item[1]["mean"])
            sentences.append(f"{student}: {_best_arm(arms, 'score' if single else 'average', teacher)}")
    return sentences


def _best_arm(arms: Sequence[tuple[str, Mapping[str, Any]]], what: str, teacher: float | None) -> str:
    """Name the first of the arms (ordered by mean, highest first), or say how many tie."""
    arm, best = arms[0]
    ties = sum(number(cell["mean"]) == number(best["mean"]) for _, cell in arms)
    subject = f"{arm} has" if ties == 1 else f"{ties} of {counted(len(arms), 'arm')} share"
    text = f"{subject} the highest {what}, {number(best['mean'])}"
    if teacher:
        text += f" ({percent(best['mean'] / teacher)} of the teacher's {number(teacher)})"
    if best["best"]:
        return f"{text}. It beats every other arm in a paired test."
    return (
        f"{text}." if len(arms) < 2 or ties > 1 else f"{text}. Paired tests do not show that it beats every other arm."
    )


def _cache_price(content: Mapping[str, Any]) -> list[str]:
    """Return at most one sentence: training time with a cached teacher, relative to fine-tuning."""
    ratios = [row["ratio"] for row in content["times"]["rows"] if row["teacher"] == "cached" and row["ratio"]]
    if not ratios:
        return []
    ends = dict.fromkeys((ratio(min(ratios)), ratio(max(ratios))))
    return [f"Training from the teacher's cache took {' to '.join(ends)} the time of fine-tuning the same student."]


def scores_note(content: Mapping[str, Any]) -> str:
    """Return the note below the score table: what ± and bold mean.

    Args:
        content: the dict of `content.content`.

    Returns:
        One or more sentences.
    """
    groups = [group for table in content["scores"].values() for group in table["groups"] if group["student"]]
    seeds = sorted({cell["n"] for group in groups for row in group["rows"] for cell in row["cells"] if cell})
    if not seeds or seeds == [1]:
        return "Every arm has one seed, so there is no standard deviation, no interval and no test."
    span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"Mean ± standard deviation over {span} seeds. Bold marks an arm that beats every other arm of its student in "
        f"a paired test at {100 * ALPHA:g} %. A column without bold has no such arm."
    )
