"""Write the output folder of a benchmark of any size, with known true effects, for tests of report and planning.

A score is the sum of the level of the task, the true effect of the arm, an effect of the seed that all arms share, and
noise. Its predictions are right on exactly that share of the test rows, so scores and predictions agree.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from railkd.data.predictions import write_answers
from railkd.records import RunRecord, write_lines
from report.make_records import MACHINE, VERSIONS

#: The tasks of the grid ``paper``, and the sets that test them out of the domain.
PAPER_TASKS = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")
PAPER_OOD = {"SST-2": ("IMDb",), "MRPC": ("PAWS",), "QQP": ("PAWS",), "MNLI": ("HANS", "SciTail"), "RTE": ("HANS",)}
PAPER_ARMS = (
    *("finetune", "kd", "pkd-skip", "pkd-last", "alp-kd", "ckd", "codir", "rail-kd-l", "rail-kd-c", "rail-kd-w"),
    *("rail-fixed", "rail-fixed-random", "rail-unsorted", "rail-step", "rail-stratified", "rail-cyclic", "rail-all"),
    "rail-expected",
)


@dataclass(frozen=True)
class Shape:
    """The size and the truth of a made benchmark.

    Attributes:
        tasks: names of the tasks.
        students: names of the students; each has a teacher of its own if there are several.
        effects: arm -> its true effect on every task, in points above the first arm of all.
        seeds: number of seeds.
        ood: task -> names of its test sets out of the domain.
        noise: standard deviation of a run, in points.
        rows: size of each test set; 0 keeps no predictions.
        missing: (task, student, arm) of runs that failed.
        contrasts: (arm, baseline) named before the run.
        level: mean score of the first task, in points; it falls by 3 points from task to task.
        curves: keep curves, draws and gauges too.
    """

    tasks: tuple[str, ...] = ("A", "B", "C")
    students: tuple[str, ...] = ("small",)
    effects: Mapping[str, float] = field(default_factory=lambda: {"finetune": 0.0, "kd": 1.0, "rail-kd-l": 2.0})
    seeds: int = 3
    ood: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    noise: float = 0.2
    rows: int = 0
    missing: tuple[tuple[str, str, str], ...] = ()
    contrasts: tuple[tuple[str, str], ...] = ()
    level: float = 85.0
    curves: bool = False


def paper(seeds: int = 5, rows: int = 40) -> Shape:
    """Return the shape of the grid ``paper``: the effect of an arm is a tenth of a point times its place.

    Args:
        seeds: number of seeds.
        rows: size of each test set.
    """
    return Shape(
        tasks=PAPER_TASKS,
        students=("DistilBERT", "DistilRoBERTa"),
        effects={arm: 0.1 * place for place, arm in enumerate(PAPER_ARMS)},
        seeds=seeds,
        ood=PAPER_OOD,
        rows=rows,
        contrasts=(("rail-kd-l", "kd"), ("rail-kd-c", "kd"), ("rail-kd-l", "rail-fixed-random")),
        curves=True,
    )


def write(folder: Path, shape: Shape) -> list[RunRecord]:
    """Write ``records.jsonl``, ``grid.yaml`` and the predictions of a made benchmark.

    Args:
        folder: made if it does not exist.
        shape: what the benchmark is.

    Returns:
        The records.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(repr(shape))
    records = []
    for number, task in enumerate(shape.tasks):
        shared = [rng.gauss(0, 0.3) for _ in range(shape.seeds)]
        for student in shape.students:
            owner = student if len(shape.students) > 1 else ""
            records += _teacher(folder, shape, number, owner, rng)
            for arm, effect in shape.effects.items():
                for seed in range(1, shape.seeds + 1):
                    record = _blank("distill", arm, seed, task, student, arm)
                    record.folder = f"runs/{len(records)}"
                    record.config = {"train": f"glue/{task}", "student": student, "method": arm, "seed": seed}
                    if (task, student, arm) in shape.missing:
                        record.state, record.error = "failed", "RailkdError: the loss is not finite"
                    else:
                        score = shape.level - 3 * number + effect + shared[seed - 1] + rng.gauss(0, shape.noise)
                        _fill(folder, record, shape, score, rng)
                    records.append(record)
    write_lines(folder / "records.jsonl", records)
    _write_grid(folder / "grid.yaml", shape)
    return records


def _write_grid(path: Path, shape: Shape) -> None:
    lines = ["name: a made benchmark", "contrasts:"] if shape.contrasts else ["name: a made benchmark"]
    lines += [f'  - {{arm: "{arm}", baseline: "{baseline}"}}' for arm, baseline in shape.contrasts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _blank(job: str, method: str | None, seed: int, task: str, student: str, arm: str) -> RunRecord:
    return RunRecord(
        job, method, seed, task=task, student=student, arm=arm, started="2026-11-24T06:00:00+00:00", versions=VERSIONS,
        commit="0123456789ab", machine=MACHINE,
    )  # fmt: skip


def _teacher(folder: Path, shape: Shape, number: int, owner: str, rng: random.Random) -> list[RunRecord]:
    """Return the records of a teacher and its pass."""
    task = shape.tasks[number]
    teacher = _blank("finetune", None, 0, task, owner, "teacher")
    teacher.folder = f"teachers/{number}-{owner}"
    teacher.config = {"train": f"glue/{task}", "model": "base"}
    _fill(folder, teacher, shape, shape.level - 3 * number + 3, rng)
    teacher_pass = _blank("cache", None, 0, task, owner, "")
    teacher_pass.seconds, teacher_pass.sizes = {"teacher pass": 9.0}, {"rows": 3000, "bytes": 14_000_000}
    return [teacher, teacher_pass]


def _fill(folder: Path, record: RunRecord, shape: Shape, score: float, rng: random.Random) -> None:
    """Fill the record of a run with a score, in points, and what a run leaves."""
    share = min(max(score / 100, 0.0), 1.0)
    if shape.rows:
        share = _predict(folder, record, shape.rows, share)
    record.metrics = {"dev": {"accuracy": share}, "eval": {"accuracy": share}}
    record.domains = {"dev": "in", "eval": "in"}
    for name in shape.ood.get(record.task, ()):
        record.metrics[name] = {"accuracy": max(0.0, share - 0.2 + rng.gauss(0, shape.noise / 100))}
        record.domains[name] = "out"
    record.seconds = {"training": 20 + rng.random(), "evaluation": 1.0}
    record.sizes, record.peak_memory = {"parameters": 66_000_000, "bytes": 264_000_000}, 1_400_000_000
    if shape.curves and record.job == "distill":
        _trace(record, share, rng)


def _predict(folder: Path, record: RunRecord, rows: int, share: float) -> float:
    """Write predictions that are right on the nearest share of the rows, and return that share."""
    right = round(share * rows)
    gold = ["no" if row % 2 else "yes" for row in range(rows)]
    shift = record.seed + len(record.arm)
    answers = [
        name if (row + shift) % rows < right else {"no": "yes", "yes": "no"}[name] for row, name in enumerate(gold)
    ]
    logits = np.array([[2.0 * (name == "no"), 2.0 * (name == "yes")] for name in answers])
    record.labels, record.predictions = ["no", "yes"], {"dev": "predictions/dev.tsv"}
    path = folder / record.folder / "predictions" / "dev.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [(f"row {row}",) for row in range(rows)] if record.job == "finetune" else None
    write_answers(path, gold, answers, logits, record.labels, texts)
    return right / rows


def _trace(record: RunRecord, share: float, rng: random.Random) -> None:
    """Fill curve, draws, coverage and gauges as a run of 6 student and 12 teacher blocks has them."""
    for step in range(1, 13):
        entry: dict[str, Any] = {"epoch": step / 4, "step": 40 * step, "ce": 0.3 + 0.4 / step, "kd": 0.1 + 0.5 / step}
        if record.arm.startswith("rail"):
            entry["intermediate"] = 0.2 + rng.random() / step
        record.curve.append(entry)
        if step % 4 == 0:
            record.curve.append({"eval_accuracy": share - 0.05 / step, "epoch": step / 4, "step": 40 * step})
    near = [[round(0.9 - 0.05 * abs(t - 2 * s), 3) for t in range(1, 13)] for s in range(1, 7)]
    record.gauges = {"readings": [], "similarity": {"before": near, "after": near}, "warning": None}
    if record.arm.startswith("rail"):
        record.draws = [sorted(rng.sample(range(1, 12), 5)) for _ in range(3)]
        record.coverage = {b: [sum(draw[i] == b for draw in record.draws) for i in range(5)] for b in range(1, 12)}
        record.gauges["readings"] = [
            {"epoch": float(epoch), "rank": 24.0, "target_rank": 26.0, "variance": 0.9, "term": term}
            for epoch, term in ((0, 1.9), (3, 0.3))
        ]
