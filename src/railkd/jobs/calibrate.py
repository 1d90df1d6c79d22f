"""Fits a temperature and thresholds of a finished model on rows that chose nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from railkd.data.reader import Table
from railkd.data.sources import Source
from railkd.errors import RailkdError, RunFailed
from railkd.jobs.goals import Goal
from railkd.jobs.held_out import check_held_out
from railkd.jobs.options import Say, required
from railkd.jobs.request import on_its_device
from railkd.jobs.scorer import Scorer
from railkd.jobs.shipping_options import CalibrateOptions
from railkd.jobs.splits import TableReader, asked_task
from railkd.jobs.thresholds import FILE, USUAL, VERSION, FittedOn, Thresholds, is_ours
from railkd.jobs.trained import Trained, trained_length
from railkd.models.limits import truncation_line
from railkd.runtime import ranks
from railkd.runtime.progress import bar
from railkd.runtime.words import listed, named
from railkd.statistics.calibration import HIGHEST, LOWEST, best_threshold, count, fit_temperature, log_loss
from railkd.tasks import Task
from railkd.tasks.scored import index_of_positive
from railkd.tasks.target import Target

#: Thresholds keep this distance from 0 and 1, so that their logarithms stay finite.
_EDGE = 1e-9


@on_its_device
def calibrate(options: CalibrateOptions, say: Say) -> Thresholds:
    """Fit a temperature and a threshold for each class, and write them beside the model.

    Args:
        options: settings of ``railkd calibrate``.
        say: receives lines for the user.

    Returns:
        The thresholds, as they are written. A model that answers with a number, and rows that trained the model or
        chose its epoch, are refused.

    Raises:
        RunFailed: no class reaches the goal; or, where one of more than two classes applies, a class misses it.
    """
    ranks.initialize()
    goal, name = Goal.parse(options.goal), str(required(options.model, "--model"))
    model, output = Scorer.find(name, trust=options.trust_remote_code), place_of(options)
    checkpoint = model.checkpoint
    task, labels = checkpoint.task, tuple(checkpoint.labels)
    refuse_numbers(task, name)
    source = Source.parse(required(options.eval, "--eval"))
    target = replace(Target.of_model(labels, task.problem_type, name, asked_task(options)), row=source.row)
    table = TableReader(options, say, Trained.of(checkpoint.config)).labelled(source, target, split="dev")
    say(check_held_out(name, table, "--eval"))
    model.load()
    length = trained_length(options.max_length, checkpoint.config, say)
    say(truncation_line(table.rows, checkpoint.tokenizer, length))
    with bar("answering", "rows", quiet=options.quiet) as advance:
        outputs = model.logits(table.rows, max_length=length, batch_size=options.batch_size, on_progress=advance)
    which = _classes(target, options.positive, table)
    found = fit(target, outputs, _gold(table, target), goal, which, FittedOn.of(table), model.content())
    if reason := _reason_against(found, task, goal, len(which)):
        raise RunFailed(f"{reason}; nothing is written. Fix: choose a goal within reach, or give more rows")
    if found.temperature == 1:
        say(
            "warning: no temperature is fitted, and 1 is kept, because all answers are right or the log loss is lowest "
            f"at an end of the range from {LOWEST:g} to {HIGHEST:g}. Fix: give more rows."
        )
    if ranks.is_main_process():
        found.write(output)
    say(f"written: {output}")
    return found


def place_of(options: CalibrateOptions) -> Path:
    """Return the file that the thresholds are written to: --output, or beside the model.

    Args:
        options: settings of ``railkd calibrate``.

    Raises:
        RailkdError: the model is not on this disk, and there is no --output; or another file has the name.
    """
    model = Path(str(options.model))
    if options.output is None and not model.exists():
        raise RailkdError(f"--output: expected a file, because '{model}' is no folder here. Fix: give --output FILE.")
    file = Path(options.output) if options.output else (model if model.is_dir() else model.parent) / FILE
    if file.exists() and not is_ours(file):
        raise RailkdError(f"--output: '{file}' was not written by railkd calibrate. Fix: name another --output.")
    return file


def refuse_numbers(task: Task, model: str) -> None:
    """Refuse a model that answers with a number, which has neither probabilities nor thresholds.

    Args:
        task: of the model.
        model: in words.

    Raises:
        RailkdError: the model answers with a number.
    """
    if not task.points:
        raise RailkdError(
            f"Expected a model that answers with classes, but '{model}' answers with a number (regression), which has "
            "no confidence. Fix: use a classifier."
        )


def fit(
    target: Target,
    outputs: np.ndarray,
    gold: np.ndarray,
    goal: Goal,
    which: Sequence[int],
    rows: FittedOn,
    model: str,
) -> Thresholds:
    """Fit a temperature, and then a threshold for each class on the calibrated probabilities.

    Args:
        target: task and C classes of the model.
        outputs: (N, C) logits.
        gold: (N, C) bool, which classes each row has.
        goal: of each threshold.
        which: the classes that get one: of two, of which one applies, one; otherwise all.
        rows: the N rows.
        model: digest of the model.

    Returns:
        The thresholds. Each class is fitted against all others, and the goal is judged on the answers by all thresholds
        together. Where any number of classes applies, a class that misses it keeps 0.5. Where one class applies, a
        threshold changes the answers of other classes too, so all keep 0.5 if a class misses the goal, or if the mean
        F1 does not rise for the goal best-f1.
    """
    task, labels = target.task, target.space.names
    temperature = fit_temperature(outputs, _encoded(task, gold)) or 1.0
    chances = (expit if task.several else partial(softmax, axis=1))(outputs / temperature)
    equal = dict.fromkeys(labels, USUAL)
    plain = Thresholds(VERSION, task.problem_type, model, temperature, goal.text, equal, [], rows)
    best = {number: best_threshold(chances[:, number], gold[:, number], **goal.least) for number in which}
    limits = {labels[n]: float(np.clip(limit, _EDGE, 1 - _EDGE)) for n, limit in best.items() if limit is not None}
    if len(which) < len(labels):
        limits |= {labels[1 - n]: 1 - limits[labels[n]] for n in which if labels[n] in limits}

    def judge(one: Thresholds) -> tuple[list[str], float]:
        figures = _figures(one, task, outputs, gold)["classes"]
        given = {labels[n]: figures[labels[n]] for n in which}
        return [name for name, one in given.items() if _misses(one, goal)], sum(one["f1"] for one in given.values())

    found = replace(plain, thresholds=equal | limits)
    missed, total = judge(found)
    if task.several:
        found = replace(found, thresholds=found.thresholds | dict.fromkeys(missed, USUAL), unreached=missed)
    elif missed or not (goal.least or total > judge(plain)[1]):
        found = replace(plain, unreached=judge(plain)[0])
    before = _figures(replace(plain, temperature=1.0), task, outputs, gold)
    return replace(found, on_these_rows={"before": before, "after": _figures(found, task, outputs, gold)})


def _misses(figures: Mapping[str, Any], goal: Goal) -> bool:
    """Return whether a class misses the goal. A class without rows does."""
    return not figures["rows"] or any(figures[what] < least for what, least in goal.least.items())


def _reason_against(found: Thresholds, task: Task, goal: Goal, fitted: int) -> str:
    """Return why thresholds, `fitted` of which were to reach the goal, are not written; empty: they are."""
    together = bool(goal.least) and fitted > 1 and not task.several
    if not found.unreached or (len(found.unreached) < fitted and not together):
        return ""
    if together:
        return (
            f"one class is the answer for each row, and the thresholds found do not bring all classes to {found.goal} "
            f"on {found.fitted_on}; without thresholds {named(found.unreached)} miss it"
        )
    return f"no threshold reaches {found.goal} for {named(found.unreached)} on {found.fitted_on}"


def describe(found: Thresholds) -> list[str]:
    """Return the thresholds in lines, with their figures on the rows that they were fitted on.

    Args:
        found: of `calibrate`.
    """
    before, after = found.on_these_rows["before"], found.on_these_rows["after"]
    lines = [f"temperature {found.temperature:.4f}: log loss {after['log_loss']:.4f}, at 1 {before['log_loss']:.4f}"]
    for name, limit in found.thresholds.items():
        old, new = before["classes"][name], after["classes"][name]
        figures = ", ".join(f"{what} {new[what]:.4f} (was {old[what]:.4f})" for what in ("precision", "recall", "f1"))
        reason = f"no threshold reaches {found.goal}" if new["rows"] else "no row has this class"
        note = f"; {reason}" if name in found.unreached else ""
        lines.append(f"{name}: threshold {limit:.4f}; {figures}; {new['rows']:,} rows{note}")
    if set(found.thresholds.values()) == {USUAL}:
        lines.append(f"all thresholds are {USUAL}, which changes no answer: no better ones were found")
    lines.append(
        f"fitted for {found.goal} on {found.fitted_on}; the figures above are of the same rows, and so too good. Give "
        "--thresholds to evaluate, with other rows, for a fair one"
    )
    return lines


def _encoded(task: Task, gold: np.ndarray) -> np.ndarray:
    """Return the labels as `railkd.statistics.calibration` takes them, of (N, C) bool."""
    found: np.ndarray = gold.astype(float) if task.several else gold.argmax(axis=1)
    return found


def _figures(one: Thresholds, task: Task, outputs: np.ndarray, gold: np.ndarray) -> dict[str, Any]:
    given = one.apply(task).decide(outputs)
    answers = given > 0.5 if task.several else np.eye(gold.shape[1], dtype=bool)[given]
    return {
        "log_loss": log_loss(outputs / one.temperature, _encoded(task, gold)),
        "right": float((answers == gold).all(axis=1).mean()),
        "classes": {name: asdict(found) for name, found in zip(one.thresholds, count(answers, gold), strict=True)},
    }


def _gold(table: Table, target: Target) -> np.ndarray:
    """Return (N, C) bool: which classes each row has."""
    if table.space is not None and table.space.fold is not None:
        raise RailkdError(
            f"--eval: expected rows with the classes of the model, {listed(target.space.names, 20)}, but "
            f"'{table.source.text}' has {listed(table.space.fold.names, 20)}. Fix: give other rows."
        )
    values = np.asarray(table.rows["label"])
    found: np.ndarray = values > 0.5 if target.task.several else np.eye(len(target.space.names), dtype=bool)[values]
    return found


def _classes(target: Target, positive: str | None, table: Table) -> Sequence[int]:
    """Return which classes get a threshold of their own; of two, of which one applies, the positive one."""
    names = target.space.names
    two = len(names) == 2 and not target.task.several
    if positive is not None and (not two or positive not in names):
        wanted = f"{listed(names)}" if two else "no such flag for a model that has no two classes of which one applies"
        raise RailkdError(f"--positive: expected {wanted}, got '{positive}'. Fix: correct it, or leave it out.")
    return [index_of_positive(names, positive or table.positive)] if two else range(len(names))
