"""The tables of docs/results.md from the committed records of studies: ``python studies/contrasts.py F-movies``.

Studies with the same rows and teachers are read together: ``python studies/contrasts.py B-few-labels B-start``.

A contrast is the difference of two cells of one task and seed. Its interval over rows says what another sample of test
rows could give for these very models; it holds the training fixed. Its interval over seeds (from three seeds on) holds
the rows fixed. Neither holds over tasks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cells
import numpy as np
from scipy import stats

from railkd.records import RunRecord

#: Words, candidate and reference, each a student and an arm.
Contrast = tuple[str, tuple[str, str], tuple[str, str]]


def _less(student: str, *pairs: tuple[str, str]) -> list[Contrast]:
    """Return contrasts of two arms of one student."""
    return [(f"{ours} less {theirs}", (student, ours), (student, theirs)) for ours, theirs in pairs]


#: Arms of study A with a term of blocks, besides the pairs named there.
_LAYERS = (
    *("pkd-skip", "alp-kd", "ckd", "codir", "rail-kd-l", "rail-kd-c", "rail-kd-w", "last-block", "gram", "rail-nce"),
    *("rail-fixed", "rail-step", "rail-cyclic"),
)
#: First study -> its contrasts.
CONTRASTS: dict[str, list[Contrast]] = {
    "A-labels": _less(
        "3-layers keep=even",
        ("finetune", "finetune freeze=embeddings,1,2,3"),
        ("kd", "finetune"),
        *((arm, "kd") for arm in _LAYERS),
        *(("rail-kd-l", other) for other in ("rail-fixed", "rail-step", "rail-cyclic", "pkd-skip", "rail-kd-c")),
        ("rail-kd-w", "rail-kd-l"),
    ),
    "F-movies": [
        ("start even less spaced, finetune", ("even", "finetune"), ("spaced", "finetune")),
        ("start even less spaced, kd", ("even", "kd"), ("spaced", "kd")),
        (
            "start even less spaced, kd with frozen embeddings",
            ("even", "kd freeze=embeddings"),
            ("spaced", "kd freeze=embeddings"),
        ),
        ("start even less spaced, rail-kd-l", ("even", "rail-kd-l"), ("spaced", "rail-kd-l")),
        ("kd less finetune, even", ("even", "kd"), ("even", "finetune")),
        ("frozen embeddings less not, kd, even", ("even", "kd freeze=embeddings"), ("even", "kd")),
        ("rail-kd-l less kd, even", ("even", "rail-kd-l"), ("even", "kd")),
        ("kd and frozen embeddings from even less kd from spaced", ("even", "kd freeze=embeddings"), ("spaced", "kd")),
    ],
    "B-few-labels": [
        ("recommended less finetune", ("even", "recommended"), ("even", "finetune")),
        ("recommended less kd of 0.1.0 (spaced)", ("even", "recommended"), ("spaced", "kd")),
        ("recommended less kd", ("even", "recommended"), ("even", "kd")),
        ("kd less finetune", ("even", "kd"), ("even", "finetune")),
        ("rail-kd-l less kd", ("even", "rail-kd-l"), ("even", "kd")),
        ("start even less spaced, kd", ("even", "kd"), ("spaced", "kd")),
        ("start even less spaced, finetune", ("even", "finetune"), ("spaced", "finetune")),
        *_less("even", *((arm, "kd") for arm in ("pkd-skip", "rail-kd-w", "last-block", "gram"))),
        *_less("even", ("rail-kd-l", "pkd-skip"), ("rail-kd-w", "rail-kd-l")),
    ],
    "B-one-block": _less(
        "one",
        ("recommended", "finetune"),
        ("recommended", "kd"),
        ("kd", "finetune"),
        ("gram", "kd"),
        ("last-block", "kd"),
    ),
    "C-augmented": [
        *((f"new text less none, {arm}", ("augmented", arm), ("plain", arm)) for arm in ("kd", "recommended")),
        *_less("augmented", ("recommended", "kd")),
        ("recommended with new text less kd without", ("augmented", "recommended"), ("plain", "kd")),
    ],
    "D-start": [
        (f"{start}: {words}", ours, theirs)
        for start in ("pre-trained", "random")
        for words, ours, theirs in _less(
            start,
            *((arm, "kd") for arm in ("pkd-skip", "rail-kd-l", "rail-kd-w", "rail-expected", "gram")),
            *(("rail-kd-l", other) for other in ("pkd-skip", "rail-expected")),
            ("rail-kd-w", "rail-kd-l"),
        )
    ],
    "E-noise": _less(
        "even",
        ("kd", "finetune"),
        ("recommended", "finetune"),
        ("rail-kd-l", "kd"),
        ("recommended", "kd"),
    ),
}


#: Readings of the projections that are printed. A rank is effective: 1 says that all rows point in one direction.
GAUGES = {"rank": "rank, student", "target_rank": "rank, teacher", "term": "term"}


def main(studies: Sequence[str], contrasts: Sequence[Contrast], folder: Path = cells.RECORDS) -> None:
    """Print, for each task, the scores of all cells, the contrasts, and how the projections of blocks ended."""
    right = {name: sets for study in studies for name, sets in cells.read_right(study, folder).items()}
    records = [record for study in studies for record in cells.read_records(study, folder) if record.metrics]
    for task in dict.fromkeys(record.task for record in records):
        of_task = [record for record in records if record.task == task]
        _print_task(task, of_task, contrasts, right)
        _print_gauges(task, of_task)


def _print_task(task: str, records: list[RunRecord], contrasts: Sequence[Contrast], right: cells.Right) -> None:
    sets = [name for name in records[0].metrics if name != "eval"]
    print(f"\n| {task}, mean and deviation over seeds | seeds | {' | '.join(sets)} |")
    print("|" + "---|" * (len(sets) + 2))
    runs: dict[str, dict[int, RunRecord]] = {}
    for record in records:
        name = "teacher" if record.job == "finetune" else f"{record.student}, {record.arm}"
        runs.setdefault(name, {})[record.seed] = record
    floors = next((r.baselines for r in records if all(each in r.baselines for each in sets)), None)
    if floors:
        values = [f"{_percent(floors[each].metrics):.1f}" for each in sets]
        print(f"| the most frequent class | - | {' | '.join(values)} |")
    for name, by_seed in runs.items():
        scores = [_spread([_score(record, each) for record in by_seed.values()]) for each in sets]
        print(f"| {name} | {len(by_seed)} | {' | '.join(scores)} |")
    print(f"\n| {task}, contrast in points | seeds | {' | '.join(sets)} |\n|{'---|' * (len(sets) + 2)}")
    missing = []
    for words, ours, theirs in contrasts:
        pairs = list(_pairs(records, ours, theirs))
        if not pairs:
            missing.append(words)
            continue
        found = [_difference([(right[a.folder][each], right[b.folder][each]) for a, b in pairs]) for each in sets]
        print(f"| {words} | {len(pairs)} | {' | '.join(found)} |")
    if missing:
        print(f"\nNot run on {task}: {'; '.join(missing)}.")


def _print_gauges(task: str, records: list[RunRecord]) -> None:
    """Print the first and last reading of the projections of arms that have some, mean over seeds."""
    runs: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.gauges.get("readings"):
            runs.setdefault(f"{record.student}, {record.arm}", []).append(record)
    if not runs:
        return
    print(f"\n| {task}, projections, first and last reading | seeds | {' | '.join(GAUGES.values())} | warned |")
    print("|" + "---|" * (len(GAUGES) + 3))
    for name, made in runs.items():
        ends = [(record.gauges["readings"][0], record.gauges["readings"][-1]) for record in made]
        values = [" to ".join(f"{np.mean([end[i][key] for end in ends]):.2f}" for i in (0, 1)) for key in GAUGES]
        print(f"| {name} | {len(made)} | {' | '.join(values)} | {sum(bool(r.gauges.get('warning')) for r in made)} |")


def _percent(scores: Mapping[str, float]) -> float:
    return 100 * next(iter(scores.values()))


def _score(record: RunRecord, name: str) -> float:
    return _percent(record.metrics[name])


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def _pairs(
    records: list[RunRecord], ours: tuple[str, str], theirs: tuple[str, str]
) -> Iterator[tuple[RunRecord, RunRecord]]:
    """Yield the runs of both cells with equal tasks and seeds."""
    by_cell = {(r.task, r.student, r.arm, r.seed): r for r in records if r.job == "distill"}
    for (task, student, arm, seed), record in by_cell.items():
        other = by_cell.get((task, *theirs, seed))
        if (student, arm) == ours and other is not None:
            yield record, other


def _difference(answers: list[tuple[str, str]]) -> str:
    """Return the mean difference over seeds, with its intervals.

    Over rows: the mean over seeds of a row's difference, with the normal interval of its mean over rows.
    """
    right = np.array([[list(model) for model in pair] for pair in answers]) == "1"  # (seeds, 2, rows)
    differ = 100.0 * (right[:, 0].astype(float) - right[:, 1])  # (seeds, rows)
    by_seed, by_row, mean = differ.mean(axis=1), differ.mean(axis=0), differ.mean()
    half = 1.96 * by_row.std(ddof=1) / math.sqrt(len(by_row))
    text = f"{mean:+.1f} (rows {mean - half:+.1f} to {mean + half:+.1f}"
    if len(by_seed) >= 3:
        wide = float(stats.t.ppf(0.975, len(by_seed) - 1)) * by_seed.std(ddof=1) / math.sqrt(len(by_seed))
        text += f"; seeds {mean - wide:+.1f} to {mean + wide:+.1f}"
    return text + ")"


if __name__ == "__main__":
    main(sys.argv[1:], CONTRASTS.get(sys.argv[1], []))
