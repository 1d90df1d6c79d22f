"""The verbs that run one job, a row each. Every other verb has a file of its own in this package."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from typing import Any

from railkd.cli.verb import ALL_TRAINING, FINETUNE_TRAINING, Verb, speaks, talker
from railkd.errors import RailkdError
from railkd.jobs import preconditions as needs
from railkd.jobs.options import (
    CacheOptions,
    CheckOptions,
    DistillOptions,
    EvaluateOptions,
    FinetuneOptions,
    PredictOptions,
)
from railkd.jobs.request import Request

Run = Callable[[Request[Any]], None]


def find_verb(name: str) -> Verb:
    """Return a built-in verb by its name, and import its module if it has one."""
    return JOBS[name] if name in JOBS else import_module(f"railkd.cli.{name}").VERB


def _train(name: str) -> Run:
    """Return a function that runs the training job ``railkd.jobs.NAME.NAME`` and prints its results."""

    def run(request: Request[Any]) -> None:
        job = getattr(import_module(f"railkd.jobs.{name}"), name)
        _print(job(request, talker(request.options.quiet)).summary())

    return run


def _cache(request: Request[CacheOptions]) -> None:
    """Build or verify a cache. The job itself prints where it is and how large."""
    options = request.options
    from railkd.jobs.cache import build_cache

    build_cache(options, talker(options.quiet))


def _evaluate(request: Request[EvaluateOptions]) -> None:
    """Print a line of metrics for each set."""
    options = request.options
    from railkd.jobs.evaluate import evaluate

    _print(evaluate(options, talker(options.quiet)).summary())


def _predict(request: Request[PredictOptions]) -> None:
    """Write the predictions; print the names of the files of a submission."""
    options = request.options
    from railkd.jobs import predict

    if options.glue_submission:
        _print("\n".join(map(str, predict.glue_submission(options, talker(options.quiet)))))
    else:
        predict.predict(options, talker(options.quiet))


def _check(request: Request[CheckOptions]) -> None:
    """Print the findings, worst first, and a verdict.

    Raises:
        RailkdError: an error is among the findings.
    """
    options = request.options
    from railkd.jobs import check, findings

    found = check.check(options, talker(options.quiet or options.json))
    found.sort(key=lambda finding: ("error", "warning", "note").index(finding.level))
    verdict = findings.verdict(found)
    errors = [finding for finding in found if finding.level == "error"]
    if options.json:
        print(json.dumps({"verdict": verdict, "ready": not errors, "findings": [asdict(f) for f in found]}, indent=1))
    else:
        print("\n".join([*map(str, found), verdict]))
    if errors:
        raise RailkdError(f"the check found {errors[0].title}" + (f" and {len(errors) - 1} more" if errors[1:] else ""))


def _print(results: str) -> None:
    """Print on the first rank alone."""
    if speaks():
        print(results)


_MODEL = {"teacher": "model", "student": "model"}
_ROWS = (
    Verb(
        name="finetune",
        about="Fine-tune a checkpoint on labelled rows: a teacher, or a student without one.",
        example="railkd finetune --model bert-base-uncased --train train.tsv --eval dev.tsv --output runs/teacher",
        options=FinetuneOptions,
        check=needs.check_finetune,
        run=_train("finetune"),
        training=FINETUNE_TRAINING,
        spellings=_MODEL,
    ),
    Verb(
        name="cache",
        about="Run a teacher once over the rows and keep its logits and pooled block states.",
        example="railkd cache --teacher runs/teacher/model --train train.tsv --cache cache/",
        options=CacheOptions,
        check=needs.check_cache,
        run=_cache,
    ),
    Verb(
        name="distill",
        about="Distil a fine-tuned teacher, or the cache of one, into a small student.",
        example=(
            "railkd distill --teacher runs/teacher/model --student-layers 3 --train train.tsv --eval dev.tsv "
            "--method rail-kd-l --output runs/student"
        ),
        options=DistillOptions,
        check=needs.check_distill,
        run=_train("distill"),
        training=ALL_TRAINING,
    ),
    Verb(
        name="evaluate",
        about="Score a model on labelled rows.",
        example="railkd evaluate --model runs/student/student --test test.tsv --test hans=ood/hans.tsv",
        options=EvaluateOptions,
        check=needs.check_evaluate,
        run=_evaluate,
        spellings=_MODEL,
    ),
    Verb(
        name="predict",
        about="Label every row of a file, with score and logits, in the order of the file.",
        example="railkd predict --model runs/student/student --test new.tsv --output predictions.tsv",
        options=PredictOptions,
        check=needs.check_predict,
        run=_predict,
        spellings=_MODEL,
    ),
    Verb(
        name="check",
        about="Look for what would doom a run: a weak teacher, permuted labels, leaks, truncation, too little disk.",
        example="railkd check --teacher runs/teacher/model --student-layers 3 --train train.tsv --eval dev.tsv",
        options=CheckOptions,
        check=needs.check_check,
        run=_check,
        spellings={"num_train_epochs": "epochs"},
    ),
)
#: The rows by name.
JOBS = {verb.name: verb for verb in _ROWS}
