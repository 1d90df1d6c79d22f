"""``railkd evaluate``: score a model on labelled rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from railkd.cli.verb import Verb, speaks, talker
from railkd.jobs.options import EvaluateOptions
from railkd.jobs.validation import Problems, check_data, check_model, check_target


def check(options: EvaluateOptions, training: dict[str, Any]) -> None:
    """What needs no torch to be seen."""
    problems = Problems()
    problems.required(options, *(("model",) if options.ood else ("model", "test")))
    check_data(problems, options)
    check_model(problems, options.model, "--model")
    if options.output:
        check_target(problems, Path(options.output), folder=False)
    problems.report()


def run(options: EvaluateOptions, training: dict[str, Any]) -> None:
    """Print a line of metrics for each set."""
    from railkd.jobs import evaluate

    record = evaluate.evaluate(options, talker(options.quiet))
    if speaks():
        print(record.summary())


VERB = Verb(
    name="evaluate",
    about="Score a model on labelled rows.",
    example="railkd evaluate --model runs/student/student --test test.tsv --test hans=ood/hans.tsv",
    options=EvaluateOptions,
    check=check,
    run=run,
    spellings={"teacher": "model", "student": "model"},
)
