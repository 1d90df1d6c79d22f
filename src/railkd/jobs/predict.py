"""Writes the predictions of a finished model for new rows."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from railkd.data import submission
from railkd.data.label_names import parse_label_map
from railkd.data.predictions import write_predictions
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.jobs.options import PredictOptions, Say, required
from railkd.jobs.scorer import Scorer
from railkd.jobs.splits import TableReader
from railkd.jobs.trained import Trained, trained_length
from railkd.models.limits import truncation_line
from railkd.runtime import ranks
from railkd.runtime.files import write_text
from railkd.runtime.progress import bar
from railkd.tasks import task_of


def predict(options: PredictOptions, say: Say, stream: TextIO | None = None) -> None:
    """Write label, score and logits of every row, in the order of the file.

    Args:
        options: settings of ``railkd predict``.
        say: receives lines for the user.
        stream: receives the predictions if there is no --output; None is stdout.

    Raises:
        RailkdError: --test does not name one file.
    """
    ranks.initialize()
    model = Scorer.find(required(options.model, "--model"), trust=options.trust_remote_code)
    if len(options.test) != 1:
        raise RailkdError(f"--test: expected one file to predict, got {len(options.test)}. Fix: give --test FILE.")
    checkpoint, reader = model.checkpoint, TableReader(options, say, Trained.of(model.checkpoint.config))
    table = reader.read(Source.parse(options.test[0]), split="test", labelled=False)
    model.load()
    length = trained_length(options.max_length, checkpoint.config, say)
    say(truncation_line(table.rows, checkpoint.tokenizer, length))
    with bar("predicting", "rows", quiet=options.quiet) as advance:
        logits = model.logits(table.rows, max_length=length, batch_size=options.batch_size, on_progress=advance)
    if ranks.is_main_process():
        rows = checkpoint.task.predictions(logits, checkpoint.labels)
        write_predictions(options.output, rows, stream)
        if options.output:
            say(f"written: {options.output}")


def glue_submission(options: PredictOptions, say: Say) -> list[Path]:
    """Write the file that the GLUE leaderboard wants, for every test set in a GLUE folder.

    Args:
        options: settings of ``railkd predict``.
        say: receives lines for the user.

    Returns:
        The paths of the files.
    """
    ranks.initialize()
    model = Scorer.find(required(options.model, "--model"), trust=options.trust_remote_code)
    found = submission.find(required(options.test, "--test")[0])
    checkpoint = model.load().checkpoint
    names, renamed = checkpoint.labels, parse_label_map(options.label_map or [])
    length, target = trained_length(options.max_length, checkpoint.config, say), Path(options.output or ".")
    written = []
    first = next(iter(found))
    task_of(first.task.problem_type).check_outputs(names, model=f"'{options.model}'", where=first.name)
    words = submission.check_model(first, names, model=str(options.model), label_map=renamed)
    for row, source in found.items():
        reader = TableReader(options, say, Trained.of(checkpoint.config))
        table = reader.read(Source.parse(source), split="test", labelled=False)
        say(f"{row.name}: {truncation_line(table.rows, checkpoint.tokenizer, length)}")
        with bar(f"predicting {row.name}", "rows", quiet=options.quiet) as advance:
            logits = model.logits(table.rows, max_length=length, batch_size=options.batch_size, on_progress=advance)
        given = submission.format_answers(row, logits, words)
        written.append(target / row.file)
        if ranks.is_main_process():
            target.mkdir(parents=True, exist_ok=True)
            write_text(written[-1], submission.format_file(submission.read_numbers(source, len(given)), given))
    return written
