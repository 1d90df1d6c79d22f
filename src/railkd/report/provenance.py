"""Where the numbers come from: versions, machines, commits, failures, and the command that repeats each run."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from railkd.report.study import Run, Study, arm_order, whose

#: Facts of a machine that make its times another machine's.
_TIMED = ("processor", "cores", "threads", "gpu", "fast bf16")


def environment(study: Study) -> dict[str, Any]:
    """Versions, machines and commits, each with the number of runs, and a warning for every mix."""
    records = [run.record for run in study.runs]
    versions = {
        name: _counted(record.versions[name] for record in records if name in record.versions)
        for name in sorted({name for record in records for name in record.versions})
    }
    machines = _counted(json.dumps(record.machine, sort_keys=True) for record in records if record.machine)
    commits = _counted(record.commit for record in records if record.commit)
    warnings = [
        f"The runs mix {len(found)} versions of {name} ({', '.join(value for value, _ in found)}): compare with care."
        for name, found in versions.items()
        if len(found) > 1
    ]
    kinds = {tuple(str(record.machine.get(fact)) for fact in _TIMED) for record in records if record.machine}
    if len(kinds) > 1:
        warnings.append(f"The runs were made on {len(kinds)} kinds of machine: their times do not compare.")
    if len(commits) > 1:
        warnings.append(f"The runs were made by {len(commits)} commits of railkd.")
    if any(str(commit).endswith("+") for commit, _ in commits):
        warnings.append("Some runs were made by files that differ from their commit (marked +).")
    started = sorted(record.started for record in records if record.started)
    return {
        "versions": versions,
        "machines": [{"facts": json.loads(facts), "runs": runs} for facts, runs in machines],
        "commits": commits,
        "started": [started[0], started[-1]] if started else [],
        "warnings": warnings,
    }


def failures(study: Study) -> list[dict[str, Any]]:
    """Runs that did not finish, and why."""
    return [_names(run) | {"error": run.record.error or run.record.state} for run in study.failed]


def commands(study: Study) -> list[dict[str, Any]]:
    """For each row of the tables, and what it rests on: the command of every seed."""
    found: dict[tuple[str, str, str, str], list[Run]] = {}
    arms = arm_order(run.record.arm for run in study.students)
    place = {"finetune": 0, "evaluate": 0, "cache": 1, "distill": 2}
    runs = sorted(
        (run for run in study.runs if run.record.config),
        key=lambda run: (
            run.record.task,
            place.get(run.record.job, 9),
            run.record.student,
            arms.index(run.record.arm) if run.record.arm in arms else -1,
            run.record.seed,
        ),
    )
    for run in runs:
        names = _names(run)
        rows = found.setdefault((names["task"], names["student"], names["arm"], run.record.job), [])
        rows.append(run)
    return [
        {"task": task, "student": student, "arm": arm, "job": job} | _command(of_seeds)
        for (task, student, arm, job), of_seeds in found.items()
    ]


def _command(runs: list[Run]) -> dict[str, Any]:
    """The command of the first seed, and for each other one the settings in which it differs."""
    first, *others = (run.record for run in runs)
    changes = []
    for record in others:
        differ = {name: value for name, value in record.config.items() if first.config.get(name) != value}
        same = first.config.keys() == record.config.keys()
        words = command("", differ).removeprefix("railkd '' ") if same else command(record.job, record.config)
        changes.append({"seed": record.seed, "settings": words, "selection": record.selection})
    return {
        "seed": first.seed,
        "command": command(first.job, first.config),
        "selection": first.selection,
        "others": changes,
    }


def _names(run: Run) -> dict[str, Any]:
    record = run.record
    jobs = {"finetune": "teacher", "evaluate": "teacher", "cache": "teacher pass"}
    of_teacher = jobs.get(record.job)
    return {
        "task": record.task,
        "student": record.student if record.job == "distill" else "",
        "arm": of_teacher + whose(run) if of_teacher else record.arm,
        "seed": record.seed,
    }


def _counted(values: Iterable[Any]) -> list[list[Any]]:
    """[value, how many runs], the most frequent first."""
    return [[value, runs] for value, runs in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))]


def command(verb: str, config: Mapping[str, Any]) -> str:
    """The line for a shell that runs the job of `as_dict` again.

    >>> command("distill", {"train": "my rows.tsv", "weights": [1.0, 0.0, 1.0], "live": True, "bf16": False})
    "railkd distill --train 'my rows.tsv' --weights 1.0 0.0 1.0 --live --no-bf16"
    """
    words = ["railkd", verb]
    for name, value in config.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list):
            words += [flag, *map(_word, value)] if not _dashed(value) else [f"{flag}={_word(item)}" for item in value]
        elif value is not None:
            words += [f"{flag}={_word(value)}"] if _dashed([value]) else [flag, _word(value)]
    return shlex.join(words)


def _word(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _dashed(values: Iterable[Any]) -> bool:
    """Whether a value would read as a flag."""
    return any(isinstance(value, str) and value.startswith("-") for value in values)
