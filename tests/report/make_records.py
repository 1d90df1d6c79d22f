"""Write the output folder of a benchmark with invented but realistic numbers, for the tests of the report.

    python tests/report/make_records.py FOLDER          writes records.jsonl, grid.yaml and predictions
    python tests/report/make_records.py --fixed         writes the files that the tests compare with

All numbers come from `random.Random`, whose stream is the same in every version of Python.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from railkd.data.predictions import write_answers
from railkd.records import Baseline, RunRecord, write_lines
from railkd.tasks import task_of

HERE = Path(__file__).resolve().parent
FIXED = HERE / "records.jsonl"
VERSIONS = {"python": "3.11.9", "railkd": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"}
MACHINE = {"system": "Linux", "processor": "AMD EPYC", "cores": 2, "threads": 1, "gpu": "none", "fast bf16": True}
SENTENCES = (
    "a film of {} charm and little else",
    "the {} plot never finds its feet",
    "{} acting, and a score to match",
    "two hours that feel {}",
    "as {} as anything this year",
)
ADJECTIVES = ("quiet", "tired", "warm", "hollow", "sly", "endless", "bright", "clumsy")
BLOCKS = 6
#: Names of tasks: a script, which a page must not run, and a formula, which a plot must not typeset.
HOSTILE, FORMULA = "<script>alert(1)</script>", "情感 $a_b^$"


@dataclass(frozen=True)
class Task:
    """A task of the benchmark; no classes means regression.

    Attributes:
        name: name of the task.
        classes: names of the classes.
        level: mean logit of the correct class, for a student without distillation.
        rows: size of the test set.
        ood: name of the test set out of the domain, if there is one.
    """

    name: str
    classes: tuple[str, ...]
    level: float
    rows: int = 80
    ood: str = ""


TASKS = (
    Task("SST-2", ("negative", "positive"), 1.5, ood="IMDB_CONTRAST"),
    Task("RTE", ("entailment", "not_entailment"), 0.8, ood="HANS"),
    Task("STS-B", (), 1.2),
)
#: Arm -> gain over plain fine-tuning, in logits.
ARMS = {"finetune": 0.0, "kd": 0.25, "rail-kd-l": 0.35, "rail-kd-w": 0.40}
MORE_TASKS = tuple(
    Task(name, ("no", "yes"), level)
    for name, level in (("CoLA", 0.9), ("MRPC", 1.1), ("QNLI", 1.3), ("QQP", 1.4), ("WNLI", 0.1))
)
MORE_ARMS = {"alp-kd": 0.2, "ckd": 0.3, "codir": 0.28, "pkd-skip": 0.1, "rail-kd-c": 0.3}


def make(
    folder: Path,
    tasks: Sequence[Task] = TASKS,
    arms: dict[str, float] | None = None,
    seeds: Sequence[int] = (1, 2, 3),
    students: Sequence[str] = ("3 blocks",),
) -> list[RunRecord]:
    """Write the folder, with one failed run.

    Args:
        folder: the folder.
        tasks: the tasks.
        arms: arm -> gain; default: `ARMS`.
        seeds: the seeds of each arm.
        students: the students, named by their depth.

    Returns:
        The records.
    """
    arms = ARMS if arms is None else arms
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, task in enumerate(tasks):
        rng = random.Random(f"{task.name if number else 'first'} {task.level}")
        gold = [
            rng.randrange(len(task.classes)) if task.classes else round(5 * rng.random(), 1) for _ in range(task.rows)
        ]
        teacher = [_logits(task, g, task.level + 0.9, rng) for g in gold]
        texts = [(rng.choice(SENTENCES).format(rng.choice(ADJECTIVES)) + f", no. {i}",) for i in range(task.rows)]
        records += [_teacher(folder, task, gold, teacher, texts, rng), _cache(task, rng)]
        for student in students:
            for arm, gain in arms.items():
                for seed in seeds:
                    record = _plan(task, arm, seed, student)
                    if (number, arm, seed) == (1, "rail-kd-w", seeds[-1]) and len(seeds) > 1:
                        record.state, record.error = "failed", "RuntimeError: the loss is not finite at step 41"
                    else:
                        _run(folder, record, task, gain, gold, teacher, rng)
                    records.append(record)
    write_lines(folder / "records.jsonl", records)
    (folder / "grid.yaml").write_text(
        "name: a look at random layers\nbaseline: kd\ncontrasts:\n"
        '  - {name: "does RAIL-KD beat plain KD?", arm: rail-kd-l, baseline: kd}\n'
        '  - {name: "do frozen targets help?", arm: rail-kd-w, baseline: rail-kd-l}\n'
        '  - {name: "does it carry over?", arm: rail-kd-l, baseline: kd, domain: out}\n',
        encoding="utf-8",
    )
    return records


def _logits(task: Task, gold: Any, signal: float, rng: random.Random) -> list[float]:
    if not task.classes:
        return [gold + rng.gauss(0, 2.5 / (1 + signal))]
    return [signal * (c == gold) + rng.gauss(0, 1.0) for c in range(len(task.classes))]


def _blank(job: str, method: str | None, seed: int, **fields: Any) -> RunRecord:
    return RunRecord(
        job, method, seed, started="2026-11-24T06:00:00+00:00", versions=VERSIONS, commit="0123456789ab",
        machine=MACHINE, **fields,
    )  # fmt: skip


def _teacher(
    folder: Path, task: Task, gold: list[Any], logits: list[list[float]], texts: Any, rng: random.Random
) -> RunRecord:
    record = _blank("finetune", None, 0, task=task.name, arm="teacher", folder=f"{_safe(task)}/teacher")
    record.config = {
        "train": f"glue/{task.name}",
        "test": [f"test=glue/{task.name}"],
        "model": "minilm",
        "seed": 0,
        "output": record.folder,
    }
    record.sizes, record.labels = {"parameters": 22_700_000, "bytes": 91_000_000}, list(task.classes) or ["LABEL_0"]
    record.seconds, record.peak_memory = {"training": round(60 + rng.random(), 2), "evaluation": 2.0}, 1_900_000_000
    _score(folder, record, task, gold, logits, texts)
    _out_of_domain(record, task, 0.0, 0.4, rng)
    return record


def _cache(task: Task, rng: random.Random) -> RunRecord:
    record = _blank("cache", None, 0, task=task.name, arm="cache")
    record.config = {
        "train": [f"glue/{task.name}"],
        "teacher": f"{_safe(task)}/teacher/model",
        "cache": f"{_safe(task)}/cache",
    }
    record.seconds, record.sizes = {"teacher pass": round(9 + rng.random(), 2)}, {"rows": 3000, "bytes": 14_000_000}
    return record


def _plan(task: Task, arm: str, seed: int, student: str) -> RunRecord:
    """Return the record of a distillation run before it starts."""
    method = arm.split()[0]
    record = _blank("distill", method, seed, task=task.name, arm=arm, student=student)
    record.folder = f"{_safe(task)}/{student}/{arm}/seed-{seed}".replace(" ", "-")
    record.config = {
        "train": f"glue/{task.name}", "test": [f"test=glue/{task.name}"], "eval_share": 0.1, "output": record.folder,
        "teacher": f"{_safe(task)}/teacher/model", "student_layers": int(student.split()[0]),
        "cache": f"{_safe(task)}/cache", "method": method, "seed": seed, "epochs": 3.0,
    }  # fmt: skip
    return record


def _run(
    folder: Path, record: RunRecord, task: Task, gain: float, gold: list[Any], teacher: list[list[float]],
    rng: random.Random,
) -> None:  # fmt: skip
    """Fill the record of a run with results, and write its predictions."""
    arm, blocks = record.arm, record.config["student_layers"]
    record.labels, record.selection = list(task.classes) or ["LABEL_0"], "best accuracy on 300 training rows held out"
    record.sizes = {"parameters": 12_100_000 + 1_770_000 * blocks, "bytes": 70_000_000}
    record.seconds = {
        "training": round((20 + 0.6 * (arm != "finetune") + 0.7 * rng.random()) * blocks / 3, 2),
        "evaluation": round(1 + 0.1 * rng.random(), 2),
    }
    record.examples_per_second, record.peak_memory = round(9000 / record.seconds["training"], 1), 1_400_000_000
    luck = rng.gauss(0, 0.1)
    logits = [
        [0.6 * t + 0.6 * x for t, x in zip(row, _logits(task, g, gain + luck, rng), strict=True)]
        for row, g in zip(teacher, gold, strict=True)
    ]
    if not task.classes:
        logits = [[row[0] / 1.2] for row in logits]
    _score(folder, record, task, gold, logits, None)
    _out_of_domain(record, task, gain, 0.2 + luck, rng)
    record.curve = _curve(task, arm, gain, rng)
    _draws(record, arm, blocks, record.seed, rng)


def _score(folder: Path, record: RunRecord, task: Task, gold: list[Any], logits: list[list[float]], texts: Any) -> None:
    table, regression = np.round(np.array(logits), 3), not task.classes
    kind = task_of(None, table.shape[1])
    scored, constant = kind.score(table, np.array(gold)), kind.baseline(np.array(gold), kind.space(task.classes))
    record.metrics["test"] = {name: round(value, 6) for name, value in scored.items()}
    record.baselines["test"] = Baseline("invented", {name: round(value, 6) for name, value in constant.items()})
    record.domains["test"] = "in"
    record.metrics["eval"], record.domains["eval"] = dict(record.metrics["test"]), "in"
    predicted = table[:, 0].tolist() if regression else [task.classes[i] for i in table.argmax(axis=1)]
    named = gold if regression else [task.classes[g] for g in gold]
    path = folder / record.folder / "predictions" / "test.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_answers(path, named, predicted, table, record.labels, texts)
    record.predictions["test"] = "predictions/test.tsv"


def _out_of_domain(record: RunRecord, task: Task, gain: float, extra: float, rng: random.Random) -> None:
    if task.ood:
        share = 1 / (1 + math.exp(-0.5 * (task.level + gain + extra)))
        record.metrics[task.ood] = {"accuracy": round(share + rng.gauss(0, 0.01), 4)}
        record.domains[task.ood] = "out"


def _curve(task: Task, arm: str, gain: float, rng: random.Random) -> list[dict[str, Any]]:
    metric, curve = "pearson" if not task.classes else "accuracy", []
    for step in range(1, 7):
        fall = math.exp(-step / 3)
        entry = {"ce": 0.35 + 0.4 * fall + rng.gauss(0, 0.01), "epoch": step / 2, "step": 40 * step}
        if arm != "finetune":
            entry["kd"] = 0.1 + 0.5 * fall + rng.gauss(0, 0.01)
        if arm.startswith("rail"):
            entry["intermediate"] = (1.3 if arm == "rail-kd-w" else 0.2) + 0.7 * fall + rng.gauss(0, 0.01)
        curve.append({name: round(value, 4) for name, value in entry.items()})
        if step % 2 == 0:
            value = 0.72 + 0.05 * gain + 0.08 * (1 - fall) + rng.gauss(0, 0.006)
            curve.append({f"eval_{metric}": round(value, 4), "epoch": step / 2, "step": 40 * step})
    return curve


def _draws(record: RunRecord, arm: str, blocks: int, seed: int, rng: random.Random) -> None:
    ours = range(1, blocks + 1)
    if arm != "finetune":
        near = [
            [round(0.9 - 0.12 * abs(t - 2 * s) + rng.gauss(0, 0.01), 3) for t in range(1, BLOCKS + 1)] for s in ours
        ]
        after = [[round(min(0.99, 0.05 + x), 3) for x in row] for row in near]
        record.gauges = {"readings": [], "similarity": {"before": near, "after": after}, "warning": None}
    if arm.startswith("rail"):
        record.draws = [sorted(rng.sample(range(1, BLOCKS), blocks - 1)) for _ in range(3)]
        record.coverage = {
            b: [sum(d[i] == b for d in record.draws) for i in range(blocks - 1)] for b in range(1, BLOCKS)
        }
        ranks = (24.0, 1.7) if arm == "rail-kd-l" and seed == 1 else (24.0, 9.0)
        record.gauges["readings"] = [
            {"epoch": float(e), "rank": r, "target_rank": r + 2, "variance": 0.9 - 0.1 * e, "term": t}
            for e, r, t in ((0, ranks[0], 1.9), (3, ranks[1], 0.3))
        ]
        if ranks[1] < 2:
            record.gauges["warning"] = (
                "the intermediate term has collapsed: the projected states have an effective rank of 1.70 (under 2)"
            )


def _safe(task: Task) -> str:
    return "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in task.name)


def make_shipped(folder: Path) -> Path:
    """Write the record of an export and a certificate, as ``railkd export`` and ``railkd certify`` do."""
    folder.mkdir(parents=True)
    sides = []
    table = (
        ("teacher, PyTorch", 90_900_000, 5.81, 0.912, 1.0),
        ("model, PyTorch", 69_600_000, 2.93, 0.898, 0.946),
        ("model, ONNX", 69_700_000, 2.31, 0.898, 0.946),
        ("model, int8", 17_500_000, 0.52, 0.894, 0.941),
    )
    for name, count, time, score, agreement in table:
        sides.append(
            {
                "name": name,
                "size": count,
                "parameters": None if name[7:] in ("ONNX", "int8") else count // 4,
                "p50_ms": time,
                "p95_ms": 2.1 * time,
                "rows_per_second": round(700 / time, 1),
                "ratio": round(time / table[0][2], 4),
                "size_ratio": round(count / table[0][1], 4),
                "metric": "accuracy",
                "scores": {"movie": score, HOSTILE: score - 0.07},
                "agreement": agreement,
                "rows": 1000,
            }
        )
    lines = [
        _line("overall", 2000, 0.004, 0.0087, 0.01, "passes"),
        _line("class negative", 980, 0.006, 0.014, 0.03, "passes"),
        _line("class rare", 41, 0.0, 0.062, 0.03, "too few rows to tell"),
    ]
    judged = {"name": "all sets", "metric": "accuracy", "lines": lines, "flips": [{}] * 18, "smallest_margin": 0.0087}
    record = {
        "kind": "railkd export 1",
        "config": {"model": "runs/student"},
        "latency": {"threads": 1, "sides": sides},
        "machine": MACHINE,
        "int8": {"gates": [judged], "together": judged},
    }
    (folder / "export.json").write_text(json.dumps(record))
    evidence = {"kind": "railkd certificate 1", "passes": True, "one_model": False, "together": None, "sets": [judged]}
    evidence["config"] = {"model": "shipped/onnx/model_quantized.onnx", "against": "teacher/model"}
    (folder / "evidence.json").write_text(json.dumps(evidence, indent=1))
    (folder / "other.json").write_text("[1, 2]")
    return folder


def _line(name: str, rows: int, drop: float, bound: float, margin: float, state: str) -> dict[str, Any]:
    found = {"rows": rows, "drop": drop, "bound": bound, "p": 0.02, "p_worse": 0.9, "lost": 14, "won": 6}
    return {"name": name, "drop": found, "margin": margin, "needed": 268, "p_holm": 0.05, "state": state}


def main() -> None:
    """Write a folder, or the fixed files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--large", action="store_true", help="8 tasks, 9 arms, 2 students, 5 seeds")
    parser.add_argument("--fixed", action="store_true")
    arguments = parser.parse_args()
    if arguments.fixed:
        fixed()
    elif arguments.large:
        make(arguments.folder, TASKS + MORE_TASKS, ARMS | MORE_ARMS, range(1, 6), ("3 blocks", "2 blocks"))
    else:
        make(arguments.folder)


def fixed() -> None:
    """Write the fixed records and the summary of their report. Read the diff before committing it."""
    import tempfile

    from railkd.report.content import content
    from railkd.report.study import read

    with tempfile.TemporaryDirectory() as folder:
        write_lines(FIXED, make(Path(folder)))
        text = json.dumps(content(read([folder])), indent=1, ensure_ascii=False, sort_keys=True)
    (HERE / "summary.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
