"""A folder with an untrained model, two tasks of a few rows, and a grid of 2 tasks, 3 methods and 2 seeds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import chdir as inside
from pathlib import Path
from typing import Any

import yaml

import tiny
from railkd.bench.display import Progress
from railkd.bench.executors.in_process import InProcess
from railkd.bench.grid_reader import load
from railkd.bench.loop import run
from railkd.bench.plan import make_jobs
from railkd.cli.bench import make_verbs
from railkd.records import RunRecord, read_lines

SMOKE: dict[str, Any] = {
    "name": "smoke",
    "data": "data",
    "tasks": ["one", "two"],
    "teacher": {"finetune": "base", "epochs": 2, "batch_size": 8, "learning_rate": 0.01, "bf16": False},
    "students": [{"layers": 2}],
    "methods": ["finetune", "kd", {"name": "rail-kd-l", "shared_size": 8}],
    "seeds": 2,
    "settings": {
        "max_length": 16,
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.01,
        "bf16": False,
        "allow_weak_teacher": True,
    },
    "selection": {"eval_share": 0.2},
    "baseline": "kd",
    "contrasts": [{"name": "layers", "arm": "rail-kd-l", "baseline": "kd"}],
    "threads": 1,
}
#: One task, two arms, one seed: a teacher, a pass and two students. All of these are jobs of `SMOKE` too.
SMALL = SMOKE | {"tasks": ["one"], "methods": SMOKE["methods"][1:], "seeds": 1}
#: Without comparisons, so that a test may change the methods.
ALONE = {key: value for key, value in SMALL.items() if key not in ("baseline", "contrasts")}


def prepare(folder: Path) -> Path:
    """Write the model and the data that every grid refers to."""
    tiny.save(folder / "base", tiny.make_model(4, width=8, dropout=0.0), tiny.make_tokenizer())
    for task, seed in (("one", 0), ("two", 20)):
        for name, count in (("train", 48), ("dev", 16)):
            table(folder / "data" / task / f"{name}.tsv", count, seed + count)
    return folder


def table(path: Path, count: int, seed: int) -> Path:
    """Write rows that can be learned: those with the word "good" are positive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{text}\t{'pos' if 'good' in text or i % 3 == 0 else 'neg'}" for i, text in enumerate(texts(count, seed))]
    path.write_text("\n".join(["text\tlabel", *lines]) + "\n")
    return path


def texts(count: int, seed: int) -> list[str]:
    return list(tiny.text_rows(count, seed=seed)["text"])


def room(base: Path, folder: Path, grid: Mapping[str, Any]) -> Path:
    """Make a working directory, so that equal benches have equal settings."""
    folder.mkdir(parents=True)
    for name in ("base", "data"):
        (folder / name).symlink_to(base / name)
    (folder / "grid.yaml").write_text(yaml.safe_dump(dict(grid)))
    return folder


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a bench by folder, without times."""
    found: list[RunRecord] = read_lines(folder / "out" / "records.jsonl")
    return {record.folder: record.comparable() for record in found}


def in_process(folder: Path, file: str = "grid.yaml", output: str = "out") -> list[RunRecord]:
    """Run a bench without workers."""
    with inside(folder):
        grid = load(file)
        jobs = make_jobs(grid, output, make_verbs())
        Path(output).mkdir(parents=True)
        progress = Progress("test", quiet=True)
        kept = grid.keep_students
        return run(jobs, InProcess(output), Path(output), done={}, grid="", retries=0, progress=progress, kept=kept)
