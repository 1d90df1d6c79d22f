"""``railkd predict``: label, score and logits for every row, in the order of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from railkd.cli.verb import Verb, speaks, talker
from railkd.jobs.options import PredictOptions
from railkd.jobs.validation import Problems, check_data, check_model, check_target


def check(options: PredictOptions, training: dict[str, Any]) -> None:
    """What needs no torch to be seen."""
    problems = Problems()
    problems.required(options, "model", "test")
    if len(options.test) > 1:
        problems.add(f"--test: got {len(options.test)} files, wanted one: predictions keep the order of one file")
    check_data(problems, options)
    check_model(problems, options.model, "--model")
    if options.glue_submission:
        check_target(problems, Path(options.output or "."))
    elif options.output:
        check_target(problems, Path(options.output), folder=False)
        if Path(options.output).suffix not in (".tsv", ".jsonl"):
            problems.add(f"--output '{options.output}': wanted a name that ends in .tsv or .jsonl")
    problems.report()


def run(options: PredictOptions, training: dict[str, Any]) -> None:
    """Write the table."""
    from railkd.jobs import predict

    if options.glue_submission:
        for file in predict.glue_submission(options, talker(options.quiet)):
            if speaks():
                print(file)
        return
    predict.predict(options, talker(options.quiet))


VERB = Verb(
    name="predict",
    about="Label every row of a file, with score and logits, in the order of the file.",
    example="railkd predict --model runs/student/student --test new.tsv --output predictions.tsv",
    options=PredictOptions,
    check=check,
    run=run,
    spellings={"teacher": "model", "student": "model"},
)
