"""The tables of docs/results.md from the committed records of a study: ``python studies/contrasts.py F-movies``.

A contrast is the difference of two cells of one task and seed. Its interval over rows says what another sample of test
rows could give for these very models; it holds the training fixed. Its interval over seeds (from three seeds on) holds
the rows fixed. Neither holds over tasks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cells
import numpy as np
from scipy import stats

from railkd.records import RunRecord

#: Words, candidate and reference, each a student and an arm.
Contrast = tuple[str, tuple[str, str], tuple[str, str]]
#: Study -> its contrasts.
CONTRASTS: dict[str, list[Contrast]] = {
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
    ]
}


def main(study: str, contrasts: Sequence[Contrast], folder: Path = cells.RECORDS) -> None:
    """Print the scores of all cells and the contrasts."""
    records, right = cells.read_records(study, folder), cells.read_right(study, folder)
    scored = [record for record in records if record.metrics]
    sets = [name for name in scored[0].metrics if name != "eval"]
    print(f"| cell | seed | {' | '.join(sets)} | training, s |\n|{'---|' * (len(sets) + 3)}")
    for record in scored:
        name = "teacher" if record.job == "finetune" else f"{record.student}, {record.arm}"
        values = " | ".join(f"{100 * next(iter(record.metrics[each].values())):.1f}" for each in sets)
        print(f"| {name} | {record.seed} | {values} | {record.seconds.get('training', 0):.0f} |")
    print(f"\n| contrast, points | seeds | {' | '.join(sets)} |\n|{'---|' * (len(sets) + 2)}")
    for words, ours, theirs in contrasts:
        pairs = list(_pairs(scored, ours, theirs))
        if pairs:
            found = [_difference([(right[a.folder][each], right[b.folder][each]) for a, b in pairs]) for each in sets]
            print(f"| {words} | {len(pairs)} | {' | '.join(found)} |")
        else:
            print(f"| {words} | 0 | {' | '.join('not run' for _ in sets)} |")


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
    main(sys.argv[1], CONTRASTS.get(sys.argv[1], []))
