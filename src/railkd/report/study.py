"""Folders of runs into `Study`: what ran, under which names, and what was asked before it ran."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from railkd.errors import RailkdError
from railkd.records import RunRecord, read_lines
from railkd.runtime.words import listed

RECORDS, GRID, METRICS = "records.jsonl", "grid.yaml", "metrics.json"
#: Arms in the order of a table: the plain ones first, then by name.
_FIRST = ("finetune", "kd")
#: Settings in which two runs of one arm may differ.
_NO_OPTION = {
    "seed",
    "output",
    "train",
    "eval",
    "test",
    "ood",
    "teacher",
    "student",
    "student_layers",
    "cache",
    "method",
}


@dataclass(frozen=True)
class Run:
    """A record, and the folder that its predictions are relative to."""

    record: RunRecord
    folder: Path

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What may differ between the runs of a study."""
        return self.record.task, self.record.student, self.record.arm, self.record.seed


def teaches(job: Run, student: str) -> bool:
    """Whether a teacher or its pass is one of this student: of all, unless its record names some."""
    return not job.record.student or student in job.record.student.split(", ")


def whose(job: Run) -> str:
    """`` of 3-layers, third``, behind the name of a teacher or pass that is not of all students."""
    return f" of {job.record.student}" if job.record.student else ""


@dataclass(frozen=True)
class Question:
    """A contrast named before the run: is ``arm`` better than ``baseline``, in or out of the domain?"""

    name: str
    arm: str
    baseline: str
    domain: str = "in"


@dataclass(frozen=True)
class Study:
    """All that a report is made of.

    Attributes:
        students: finished distillation runs; also those of the arm finetune. teachers: finished fine-tuning jobs, and
            the scores of teachers that were there already.
        caches: teacher passes. failed: runs of any kind. notes: what a reader must know of how they were read.
    """

    name: str
    students: list[Run]
    teachers: list[Run]
    caches: list[Run]
    failed: list[Run]
    baseline: str
    questions: list[Question]
    notes: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """Every run that finished."""
        return [*self.teachers, *self.caches, *self.students]


def read(folders: Sequence[str | Path], baseline: str | None = None) -> Study:
    """Read every record of the folders.

    Args:
        baseline: arm that the others are compared with; None: the grid's, or else kd, finetune or the first.

    Raises:
        RailkdError: a folder without records, a record or grid that cannot be read, an arm that is not there.
    """
    runs: list[Run] = []
    grids: list[dict[str, Any]] = []
    for folder in map(Path, folders):
        runs += _runs_of(folder)
        grids += [_grid(folder / GRID)] if (folder / GRID).is_file() else []
    finished = [run for run in runs if run.record.state == "finished"]
    kept, notes = _newest(finished)
    by_job: dict[str, list[Run]] = defaultdict(list)
    for run in kept:
        by_job[run.record.job].append(run)
    done = {run.key for run in kept}
    arms = arm_order(run.record.arm for run in by_job["distill"])
    chosen = _baseline(baseline, [str(grid["baseline"]) for grid in grids if grid.get("baseline")], arms)
    return Study(
        name=listed(dict.fromkeys(str(grid["name"]) for grid in grids if grid.get("name")))
        or listed(Path(folder).resolve().name for folder in folders),
        students=by_job["distill"],
        teachers=[*by_job["finetune"], *by_job["evaluate"]],
        caches=by_job["cache"],
        failed=[run for run in runs if run.record.state != "finished" and run.key not in done],
        baseline=chosen,
        questions=list(dict.fromkeys(question for grid in grids for question in _questions(grid, chosen))),
        notes=notes,
    )


def arm_order(arms: Iterable[str]) -> list[str]:
    """Each once: finetune, kd, then by name.

    >>> arm_order(["rail-kd-l", "kd", "alp-kd", "kd"])
    ['kd', 'alp-kd', 'rail-kd-l']
    """
    return sorted(set(arms), key=lambda arm: (_FIRST.index(arm) if arm in _FIRST else len(_FIRST), arm))


def _runs_of(folder: Path) -> list[Run]:
    if not folder.is_dir():
        raise RailkdError(f"no folder '{folder}'; wanted one with {RECORDS}, or with run folders below it")
    path = folder / RECORDS
    try:
        if path.is_file():
            return [Run(record, folder / record.folder) for record in read_lines(path)]
        found = sorted(folder.rglob(METRICS))
        runs = [Run(RunRecord.read(path := file), file.parent) for file in found]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise RailkdError(f"{path}: cannot be read: {reason}; wanted records of railkd") from None
    if not runs:
        raise RailkdError(
            f"'{folder}' holds neither {RECORDS} nor a run folder with {METRICS}; name the output folder of railkd "
            "bench, distill or finetune"
        )
    _name_them(runs)
    return runs


def _name_them(runs: list[Run]) -> None:
    """Give runs that no benchmark named a task, a student and an arm, out of their settings."""
    groups: dict[tuple[Any, ...], list[RunRecord]] = defaultdict(list)
    for record in (run.record for run in runs):
        config = record.config
        record.task = record.task or _stem(config.get("train", ""))
        record.student = record.student or _student(record)
        if not record.arm:
            record.arm = record.method or ("teacher" if record.job in ("finetune", "evaluate") else record.job)
            groups[record.job, record.task, record.student, record.arm].append(record)
    for group in groups.values():
        names = {name for record in group for name in record.config} - _NO_OPTION
        varied = [n for n in sorted(names) if len({repr(record.config.get(n)) for record in group}) > 1]
        for record in group:
            options = [f"{name}={record.config[name]}" for name in varied if name in record.config]
            record.arm = " ".join([record.arm, *options])


def _stem(source: Any) -> str:
    """``data/movie/train.tsv`` and ``data/movie.tsv`` -> ``movie``."""
    path = Path(str(source))
    stem = path.name.split(".")[0]
    return (path.parent.name if stem in ("train", "") else stem) or "task"


def _student(record: RunRecord) -> str:
    if record.job != "distill":
        return ""
    config = record.config
    layers = config.get("student_layers")
    named = [Path(str(config["student"])).name] if config.get("student") else []
    return " ".join(named + ([f"{layers} blocks"] if layers else [])) or "student"


def _newest(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """One run of each key and job, the one started last; and words if others were left out."""
    by_key: dict[Any, Run] = {}
    for run in sorted(runs, key=lambda run: run.record.started):
        by_key[run.record.job, run.key] = run
    left = len(runs) - len(by_key)
    words = f"{left} run{' repeats' if left == 1 else 's repeat'} another of the same task, student, arm and seed: "
    return list(by_key.values()), [words + "the one started last is shown."] if left else []


def _grid(path: Path) -> dict[str, Any]:
    try:
        grid = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise RailkdError(f"{path}: is no YAML ({str(error)[:80]}); wanted the grid of railkd bench") from None
    if not isinstance(grid, dict):
        raise RailkdError(f"{path}: holds {type(grid).__name__}, wanted the mapping of a grid of railkd bench")
    return grid


def _questions(grid: dict[str, Any], baseline: str) -> list[Question]:
    found = []
    for entry in grid.get("contrasts") or []:
        if not isinstance(entry, dict) or not entry.get("arm"):
            raise RailkdError(f"{GRID}: got the contrast {entry!r}, wanted name, arm and baseline")
        arm, base = str(entry["arm"]), str(entry.get("baseline") or baseline)
        domain = str(entry.get("domain") or "in")
        if domain not in ("in", "out"):
            raise RailkdError(f"{GRID}: got the domain '{domain}' of a contrast, wanted in or out")
        found.append(Question(str(entry.get("name") or f"{arm} against {base}"), arm, base, domain))
    return found


def _baseline(asked: str | None, named: list[str], arms: list[str]) -> str:
    if asked and asked not in arms:
        raise RailkdError(
            f"--baseline: no run of the arm '{asked}'; wanted one of: {', '.join(arms) or 'none finished'}"
        )
    candidates = [asked or "", *named, "kd", "finetune", *arms]
    return next((arm for arm in candidates if arm in arms), "")
