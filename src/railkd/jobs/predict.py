"""Writes the predictions of a finished model for new rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from datasets import Dataset

from railkd.data import submission
from railkd.data.delimited_writer import needs_quotes
from railkd.data.label_names import parse_label_map
from railkd.data.predictions import with_columns, write_predictions
from railkd.data.sources import Source
from railkd.data.streams import TextStream
from railkd.errors import RailkdError
from railkd.jobs.deferring import Deferring
from railkd.jobs.options import Say, required
from railkd.jobs.request import on_its_device
from railkd.jobs.scorer import Scorer
from railkd.jobs.shipping_options import PredictOptions
from railkd.jobs.splits import TableReader
from railkd.jobs.thresholds import Thresholds
from railkd.jobs.trained import Trained, trained_length
from railkd.models.limits import truncation_line
from railkd.runtime import ranks
from railkd.runtime.files import write_text
from railkd.runtime.progress import Advance, bar
from railkd.tasks import Task, task_of

#: Rows that are in memory at once, and among which batches of similar length are formed; at least some batches.
BUFFER, _BATCHES = 2048, 16


@on_its_device
def predict(options: PredictOptions, say: Say, stream: TextIO | None = None) -> None:
    """Write the answer for every row, in the order of the file and with its columns. The file may have any size.

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
    nested = Path(options.output or "").suffix == ".jsonl"
    plain = AnswerForm(checkpoint.task, checkpoint.labels, probabilities=options.probabilities, nested=nested)
    cut = Thresholds.asked(options.thresholds, model, str(options.model), say)
    form = plain if cut is None else replace(plain, task=cut.apply(plain.task))
    deferring = Deferring(options, model, form.task, cut, say) if options.defer is not None else None
    treat = partial(deferring.treat, form=lambda found: plain.rows(found, 0)) if deferring is not None else _as_they_are
    rows = reader.stream(Source.parse(options.test[0]), split="test")
    model.load()
    length = trained_length(options.max_length, checkpoint.config, say)
    say(truncation_line(Dataset.from_dict(rows.sample), checkpoint.tokenizer, length, rows=rows.count))

    def answer(texts: Dataset, on_progress: Advance) -> np.ndarray:
        return model.logits(texts, max_length=length, batch_size=options.batch_size, on_progress=on_progress)

    size = max(BUFFER, _BATCHES * options.batch_size)
    with bar("predicting", "rows", quiet=options.quiet, lines=False) as advance:
        answers = answer_rows(rows, answer, form, advance, size, treat)
        if ranks.is_main_process():
            write_predictions(options.output, answers, stream, quoted=rows.quoted or form.quoted)
        else:
            for _ in answers:  # the ranks share each batch
                pass
    if deferring is not None:
        deferring.report(options.test[0])
    if options.output and ranks.is_main_process():
        say(f"written: {options.output}")


def _as_they_are(texts: Dataset, outputs: np.ndarray, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return answers


@dataclass(frozen=True)
class AnswerForm:
    """The columns of an answer.

    Attributes:
        task: of the model.
        labels: of its outputs.
        probabilities: the probability of each class is written too.
        nested: as one mapping ``probabilities``, not as a column ``prob_NAME`` for each class.
    """

    task: Task
    labels: Sequence[str]
    probabilities: bool = False
    nested: bool = False

    def __post_init__(self) -> None:
        if self.probabilities and self.task.probabilities(np.zeros((1, max(1, len(self.labels))))) is None:
            raise RailkdError(
                "--probabilities: the model gives a number for each row, which has no probability. Fix: leave it out."
            )

    @property
    def quoted(self) -> bool:
        """True if a tsv must quote the name of a class."""
        return any(map(needs_quotes, self.labels))

    def rows(self, outputs: np.ndarray, first: int) -> list[dict[str, Any]]:
        """Return the answers as rows of columns.

        Args:
            outputs: (N, C) logits.
            first: number of the first row.
        """
        found = [row | {"index": first + row["index"]} for row in self.task.predictions(outputs, self.labels)]
        shares = self.task.probabilities(np.asarray(outputs, dtype=np.float64)) if self.probabilities else None
        if shares is None:
            return found
        named = [{name: float(f"{value:.7g}") for name, value in zip(self.labels, row, strict=True)} for row in shares]
        if self.nested:
            return [row | {"probabilities": given} for row, given in zip(found, named, strict=True)]
        return [
            row | {f"prob_{name}": value for name, value in given.items()}
            for row, given in zip(found, named, strict=True)
        ]


def answer_rows(
    rows: TextStream,
    answer: Callable[[Dataset, Advance], np.ndarray],
    form: AnswerForm,
    advance: Advance,
    size: int,
    treat: Callable[[Dataset, np.ndarray, list[dict[str, Any]]], list[dict[str, Any]]] = _as_they_are,
) -> Iterator[dict[str, Any]]:
    """Answer the rows of a stream in their order, with their own columns. At most ``size`` rows are in memory.

    Args:
        rows: of any number.
        answer: returns the (N, C) logits of a table of N texts; it may sort them by length inside.
        form: the columns of an answer.
        advance: receives the number of rows done, and of all.
        size: rows that are answered at once.
        treat: takes N texts, their (N, C) logits and their answers, and returns other answers, with the same columns.

    Yields:
        The answer of each row, as columns.
    """
    first = 0
    for block in rows.blocks(size):
        texts = Dataset.from_dict(rows.texts(block))
        outputs = answer(texts, _behind(first, rows.count, advance))
        yield from with_columns(treat(texts, outputs, form.rows(outputs, first)), block, rows.rows.names)
        first += len(block)


def _behind(start: int, total: int, advance: Advance) -> Advance:
    """Return the progress of a block that begins behind ``start`` rows."""
    return lambda done, _: advance(start + done, total)


@on_its_device
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
