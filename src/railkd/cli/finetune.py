"""``railkd finetune``: how a teacher is made."""

from __future__ import annotations

from typing import Any

from railkd.cli.verb import FINETUNE_TRAINING, Verb, speaks, talker
from railkd.jobs.options import FinetuneOptions
from railkd.jobs.validation import Problems, check_data, check_model, check_run_folder, check_training


def check(options: FinetuneOptions, training: dict[str, Any]) -> None:
    """What needs no torch to be seen."""
    problems = Problems()
    problems.required(options, "model", "train", "output")
    check_training(problems, training)
    check_data(problems, options)
    check_model(problems, options.model, "--model")
    inputs = {"--model": options.model, "--train": options.train, "--eval": options.eval}
    check_run_folder(problems, options, inputs)
    problems.report()


def run(options: FinetuneOptions, training: dict[str, Any]) -> None:
    """Train and print the results."""
    from railkd.jobs import finetune

    record = finetune.finetune(options, training, talker(options.quiet))
    if speaks():
        print(record.summary())


VERB = Verb(
    name="finetune",
    about="Fine-tune a checkpoint on labelled rows: a teacher, or a student without one.",
    example="railkd finetune --model bert-base-uncased --train train.tsv --eval dev.tsv --output runs/teacher",
    options=FinetuneOptions,
    check=check,
    run=run,
    training=FINETUNE_TRAINING,
    spellings={"teacher": "model", "student": "model"},
)
