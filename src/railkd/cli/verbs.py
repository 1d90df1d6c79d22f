"""The verbs that run one job, as rows of a table. Each other verb has a file of its own in this package."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from typing import Any

from railkd.cli.verb import ALL_TRAINING, FINETUNE_TRAINING, Verb, messages_only, print_results, printer
from railkd.errors import RailkdError, RunFailed
from railkd.jobs import deciding_checks, exchange, options, preconditions, shipping_preconditions
from railkd.jobs.cache_options import CachePullOptions, CachePushOptions
from railkd.jobs.request import Request
from railkd.jobs.shipping_options import CalibrateOptions, CertifyOptions, ExportOptions, PredictOptions
from railkd.jobs.text_options import AugmentOptions
from railkd.runtime.words import counted


def find_verb(name: str) -> Verb:
    """Return a built-in verb, and import its module if it has one.

    Args:
        name: as typed.

    Returns:
        The verb.
    """
    if name in JOBS:
        return JOBS[name]
    verb: Verb = import_module(f"railkd.cli.{name}").VERB
    return verb


def _finetune(request: Request[options.FinetuneOptions]) -> None:
    from railkd.jobs.finetune import finetune

    _train(request, finetune)


def _distill(request: Request[options.DistillOptions]) -> None:
    from railkd.jobs.distill import distill

    _train(request, distill)


def _train(request: Request[Any], run: Callable[..., Any]) -> None:
    # Runs the job, or rehearses it.
    from railkd.jobs.rehearsal import rehearse

    say = printer(request.options.quiet)
    with messages_only(request.options.quiet):
        result = rehearse(request, run, say) if request.options.rehearse else run(request, say).summary()
    print_results(result)


def _cache(request: Request[options.CacheOptions]) -> None:
    preconditions.refuse_label_flags(request.options)
    from railkd.jobs.cache import build_cache

    with messages_only(request.options.quiet):
        build_cache(request.options, printer(request.options.quiet))


def _augment(request: Request[AugmentOptions]) -> None:
    from railkd.jobs.augment import augment

    with messages_only(request.options.quiet):
        augment(request.options, printer(request.options.quiet))


def _push(request: Request[CachePushOptions]) -> None:
    with messages_only(request.options.quiet):
        line = exchange.push_cache(request.options, printer(request.options.quiet))
    print_results(line)


def _pull(request: Request[CachePullOptions]) -> None:
    with messages_only(request.options.quiet):
        line = exchange.pull_cache(request.options, printer(request.options.quiet))
    print_results(line)


def _evaluate(request: Request[options.EvaluateOptions]) -> None:
    from railkd.jobs.evaluate import evaluate
    from railkd.tasks.by_class import class_lines

    table: list[str] = []
    with messages_only(request.options.quiet):
        record = evaluate(request.options, printer(request.options.quiet), show=table.append)
    by_class = [line for name, scores in record.classes.items() for line in class_lines(name, scores)]
    print_results("\n".join([record.summary(), *by_class, *table]))


def _predict(request: Request[PredictOptions]) -> None:
    from railkd.jobs import predict

    asked, results = request.options, sys.stdout
    with messages_only(asked.quiet):
        if asked.glue_submission:
            files = predict.glue_submission(asked, printer(asked.quiet))
        else:
            predict.predict(asked, printer(asked.quiet), results)
    if asked.glue_submission:
        print_results("\n".join(map(str, files)))


def _check(request: Request[options.CheckOptions]) -> None:
    # Prints the findings, worst first, and a verdict. An error among them is raised, for the exit code.
    asked = request.options
    from railkd.jobs import check, findings

    with messages_only(asked.quiet or asked.json):
        found = check.check(asked, printer(asked.quiet or asked.json))
    found.sort(key=lambda finding: ("error", "warning", "note").index(finding.level))
    verdict = findings.verdict(found)
    errors = [finding for finding in found if finding.level == "error"]
    if asked.json:
        print(json.dumps({"verdict": verdict, "ready": not errors, "findings": [asdict(f) for f in found]}, indent=1))
    else:
        print_results("\n".join([*map(str, found), verdict]))
    if errors:
        raise RailkdError(
            f"the check found {counted(len(errors), 'error')}, named above. Fix: correct them before a run"
        )


def _export(request: Request[ExportOptions]) -> None:
    from railkd.jobs.export import export

    with messages_only(request.options.quiet):
        export(request.options, printer(request.options.quiet))


def _certify(request: Request[CertifyOptions]) -> None:
    from railkd.jobs.certify import certify

    with messages_only(request.options.quiet):
        found = certify(request.options, printer(request.options.quiet))
    print_results("\n".join(found.details))
    if not found.passes:
        raise RunFailed(f"{found.verdict}. The lines above name where")
    print_results(found.verdict)


def _calibrate(request: Request[CalibrateOptions]) -> None:
    from railkd.jobs.calibrate import calibrate, describe

    with messages_only(request.options.quiet):
        found = calibrate(request.options, printer(request.options.quiet))
    print_results("\n".join(describe(found)))


_MODEL = {"teacher": "model", "student": "model"}
_ROWS = (
    Verb(
        "finetune",
        "Fine-tune a checkpoint on labelled rows. The result is a teacher, or a student without one.",
        "railkd finetune --model bert-base-uncased --train train.tsv --eval dev.tsv --output runs/teacher",
        options.FinetuneOptions,
        _finetune,
        preconditions.check_finetune,
        training=FINETUNE_TRAINING,
        spellings=_MODEL,
    ),
    Verb(
        "augment",
        "Make more text for a teacher to label: words replaced or dropped, two rows spliced. No model is needed.",
        "railkd augment --train train.tsv --unlabelled more.tsv --copies 4 --how replace --rate 0.3 --output new.tsv",
        AugmentOptions,
        _augment,
        preconditions.check_augment,
    ),
    Verb(
        "cache",
        "Run a teacher once over the rows and store its logits and pooled block states. 'railkd cache push' and "
        "'railkd cache pull' copy a cache to a folder or the hub, and back.",
        "railkd cache --teacher runs/teacher/model --train train.tsv --cache cache/",
        options.CacheOptions,
        _cache,
        preconditions.check_cache,
        spellings={"cache_dtype": "dtype"},
    ),
    Verb(
        "cache push",
        "Copy a teacher cache to a folder or a data set of the hub: keys, outputs and states, no texts and no weights.",
        "railkd cache push org/teacher-of-reviews --cache cache/ --private",
        CachePushOptions,
        _push,
        exchange.check_pushed,
        positional="place",
    ),
    Verb(
        "cache pull",
        "Copy a teacher cache from a folder or a data set of the hub, or add its rows to a cache of the same teacher.",
        "railkd cache pull org/teacher-of-reviews --cache cache/",
        CachePullOptions,
        _pull,
        exchange.check_pulled,
        positional="place",
    ),
    Verb(
        "distill",
        "Distil a fine-tuned teacher, or the cache of one, into a small student.",
        "railkd distill --teacher runs/teacher/model --student-layers 3 --train train.tsv --eval dev.tsv "
        "--method rail-kd-l --output runs/student",
        options.DistillOptions,
        _distill,
        preconditions.check_distill,
        training=ALL_TRAINING,
    ),
    Verb(
        "evaluate",
        "Score a model on labelled rows.",
        "railkd evaluate --model runs/student/student --test test.tsv --test hans=ood/hans.tsv",
        options.EvaluateOptions,
        _evaluate,
        preconditions.check_evaluate,
        spellings=_MODEL,
    ),
    Verb(
        "predict",
        "Label each row of a file, with score and logits, in the order of the file.",
        "railkd predict --model runs/student/student --test new.tsv --output predictions.tsv",
        PredictOptions,
        _predict,
        shipping_preconditions.check_predict,
        spellings=_MODEL,
    ),
    Verb(
        "export",
        "Write the folder to ship: the model, ONNX and int8 files that have passed their gates, and a record of them.",
        "railkd export runs/student --onnx --int8 --output shipped/",
        ExportOptions,
        _export,
        shipping_preconditions.check_export,
        positional="model",
    ),
    Verb(
        "certify",
        "Show that a model is no worse than another by more than a margin, overall and for each class.",
        "railkd certify --model runs/student/student --against runs/teacher/model --test test.tsv --margin 1",
        CertifyOptions,
        _certify,
        shipping_preconditions.check_certify,
    ),
    Verb(
        "calibrate",
        "Fit a temperature and a threshold for each class on rows that chose nothing else, and write them beside the "
        "model.",
        'railkd calibrate --model runs/student/student --eval calibration.tsv --goal "precision>=0.9"',
        CalibrateOptions,
        _calibrate,
        deciding_checks.check_calibrate,
    ),
    Verb(
        "check",
        "Look for problems before a run starts: a weak teacher, permuted labels, leaks, truncation, too little disk.",
        "railkd check --teacher runs/teacher/model --student-layers 3 --train train.tsv --eval dev.tsv",
        options.CheckOptions,
        _check,
        preconditions.check_check,
        spellings={"num_train_epochs": "epochs"},
    ),
)
#: The rows by name.
JOBS = {verb.name: verb for verb in _ROWS}
