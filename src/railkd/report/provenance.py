"""Provenance of the numbers: versions, machines, commits, failed runs, and the command of each run."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from railkd.report.study import Run, Study, arm_order, students_suffix, teacher_arm

#: Facts of a machine that change its times.
_TIMING_FACTS = ("processor", "cores", "threads", "gpu", "fast bf16")


def environment(study: Study) -> dict[str, Any]:
    """Return the versions, machines and commits of the finished runs.

    Args:
        study: the study.

    Returns:
        ``versions``, ``machines`` and ``commits`` with their number of runs; ``started``, the times of the first and
        the last start; ``warnings``, a sentence for each difference between the runs.
    """
    records = [run.record for run in study.runs]
    versions = {
        name: _run_counts(record.versions[name] for record in records if name in record.versions)
        for name in sorted({name for record in records for name in record.versions})
    }
    machines = _run_counts(json.dumps(record.machine, sort_keys=True) for record in records if record.machine)
    commits = _run_counts(record.commit for record in records if record.commit)
    warnings = [
        f"The runs used {len(counts)} versions of {name} ({', '.join(value for value, _ in counts)}), which may "
        "change their results."
        for name, counts in versions.items()
        if len(counts) > 1
    ]
    kinds = {tuple(str(record.machine.get(fact)) for fact in _TIMING_FACTS) for record in records if record.machine}
    if len(kinds) > 1:
        warnings.append(f"The runs used {len(kinds)} kinds of machine, so their times cannot be compared.")
    if len(commits) > 1:
        warnings.append(f"The runs used {len(commits)} commits of railkd.")
    if any(str(commit).endswith("+") for commit, _ in commits):
        warnings.append("Some runs used files of railkd that differ from their commit (marked +).")
    started = sorted(record.started for record in records if record.started)
    return {
        "versions": versions,
        "machines": [{"facts": json.loads(facts), "runs": runs} for facts, runs in machines],
        "commits": commits,
        "started": [started[0], started[-1]] if started else [],
        "warnings": warnings,
    }


def papers(study: Study) -> list[dict[str, str]]:
    """Return the methods of the runs with their sources, as far as the records name them.

    Args:
        study: the study.

    Returns:
        ``method`` and ``paper`` of each, in order.
    """
    found = {run.record.method: run.record.paper for run in study.students if run.record.method and run.record.paper}
    return [{"method": str(method), "paper": paper} for method, paper in sorted(found.items())]


def failures(study: Study) -> list[dict[str, Any]]:
    """Return the failed runs.

    Args:
        study: the study.

    Returns:
        ``task``, ``student``, ``arm``, ``seed`` and ``error`` of each.
    """
    return [_names(run) | {"error": run.record.error or run.record.state} for run in study.failed]


def commands(study: Study) -> list[dict[str, Any]]:
    """Return the command that repeats each run.

    Args:
        study: the study.

    Returns:
        A row for each task, student, arm and job: the command of its first seed, and for every other seed the settings
        that differ. Teachers and teacher passes come before the students that use them.
    """
    groups: dict[tuple[str, str, str, str], list[Run]] = {}
    arms = arm_order(run.record.arm for run in study.students)
    job_order = {"finetune": 0, "evaluate": 0, "cache": 1, "distill": 2}
    runs = sorted(
        (run for run in study.runs if run.record.config),
        key=lambda run: (
            run.record.task,
            job_order.get(run.record.job, 9),
            run.record.student,
            arms.index(run.record.arm) if run.record.arm in arms else -1,
            run.record.seed,
        ),
    )
    for run in runs:
        names = _names(run)
        groups.setdefault((names["task"], names["student"], names["arm"], run.record.job), []).append(run)
    return [
        {"task": task, "student": student, "arm": arm, "job": job} | _commands_of_seeds(seeds)
        for (task, student, arm, job), seeds in groups.items()
    ]


def _commands_of_seeds(runs: list[Run]) -> dict[str, Any]:
    """Return the command of the first run, and the settings in which each other run differs from it."""
    first, *others = (run.record for run in runs)
    changes = []
    for record in others:
        changed = {name: value for name, value in record.config.items() if first.config.get(name) != value}
        same_names = first.config.keys() == record.config.keys()
        text = command("", changed).removeprefix("railkd '' ") if same_names else command(record.job, record.config)
        changes.append({"seed": record.seed, "settings": text, "selection": record.selection})
    return {
        "seed": first.seed,
        "command": command(first.job, first.config),
        "selection": first.selection,
        "others": changes,
    }


def _names(run: Run) -> dict[str, Any]:
    record = run.record
    teacher = teacher_arm(run) if record.job in ("finetune", "evaluate") else ""
    teacher = f"teacher pass{students_suffix(run)}" if record.job == "cache" else teacher
    return {
        "task": record.task,
        "student": record.student if record.job == "distill" else "",
        "arm": teacher or record.arm,
        "seed": record.seed,
    }


def _run_counts(values: Iterable[Any]) -> list[list[Any]]:
    """Return [value, number of runs] for each value, the most frequent first."""
    return [[value, runs] for value, runs in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))]


def command(verb: str, config: Mapping[str, Any]) -> str:
    """Return the shell command that runs a job with these settings.

    Args:
        verb: verb of the command line, such as "distill".
        config: settings by short name, as in a record. None means "not set".

    Returns:
        The command, quoted for a shell.

    >>> command("distill", {"train": "my rows.tsv", "weights": [1.0, 0.0, 1.0], "live": True, "bf16": False})
    "railkd distill --train 'my rows.tsv' --weights 1.0 0.0 1.0 --live --no-bf16"
    """
    words = ["railkd", verb]
    for name, value in config.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list):
            words += (
                [flag, *map(_word, value)]
                if not _looks_like_flag(value)
                else [f"{flag}={_word(item)}" for item in value]
            )
        elif value is not None:
            words += [f"{flag}={_word(value)}"] if _looks_like_flag([value]) else [flag, _word(value)]
    return shlex.join(words)


def _word(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _looks_like_flag(values: Iterable[Any]) -> bool:
    """Return True if the command line would take a value for a flag."""
    return any(isinstance(value, str) and value.startswith("-") for value in values)
