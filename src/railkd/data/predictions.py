"""Predictions as a table: one row a text, in the order of the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from railkd.data.delimited_writer import csv_lines, format_tsv, needs_quotes, tsv_lines
from railkd.data.reader import TEXT_COLUMNS
from railkd.data.streams import Row, plain_cell
from railkd.errors import RailkdError
from railkd.runtime.files import write_text, written
from railkd.runtime.words import visible

if TYPE_CHECKING:
    import numpy as np

#: Formats of a file of predictions.
SUFFIXES = (".tsv", ".csv", ".jsonl")
SUFFIX_WORDS = ".tsv, .csv or .jsonl"
#: Columns that are read as answers, and the prefixes of others. Columns of the input do not keep these names beside
#: answers: whoever reads the file would take the labels of the rows for the answers of the model.
ANSWERS = ("index", "gold_label", "label", "labels", "score", "deferred", "probabilities", "logits", "votes")
PREFIXES = ("logit_", "prob_")


def write_answers(
    target: Path,
    gold: Sequence[Any],
    given: Sequence[Any],
    logits: np.ndarray,
    labels: Sequence[str],
    texts: Sequence[Sequence[str]] | None = None,
) -> None:
    """Write the predictions of a labelled set as tsv.

    The columns are ``index``, ``gold``, ``label``, a ``logit_NAME`` for each class, ``text`` and, for pairs,
    ``text_pair``. Texts and names are written as they are: a spreadsheet may run a cell that begins with = + - or @.

    Args:
        target: the file.
        gold: N labels as they are scored (`railkd.tasks.target.Target.answers`).
        given: N answers as they are scored.
        logits: (N, C).
        labels: the C classes of the model.
        texts: N rows of one or two texts; None: they are left out.
    """
    rows = []
    for i, row in enumerate(logits):
        answers = {"index": i, "gold": gold[i], "label": given[i]}
        answers |= {f"logit_{name}": round(float(value), 6) for name, value in zip(labels, row, strict=True)}
        kept = zip(TEXT_COLUMNS, texts[i], strict=False) if texts is not None else ()
        rows.append(answers | dict(kept))
    write_text(target, format_tsv([{name: plain_cell(value) for name, value in row.items()} for row in rows]))


def write_predictions(
    target: str | None, rows: Iterable[Mapping[str, Any]], stream: TextIO | None = None, *, quoted: bool | None = None
) -> None:
    """Write rows of columns as .tsv, .csv or .jsonl, one after the other. The file is complete or absent.

    Args:
        target: a file, whose suffix chooses the format; None: tsv to standard output.
        rows: with the same columns; see `railkd.tasks.base.Task.predictions`.
        stream: replaces standard output if there is no target.
        quoted: a cell needs quotes in a tsv; None: find out, with all rows in memory.

    Raises:
        RailkdError: the suffix is another one.
    """
    suffix = Path(target).suffix if target else ".tsv"
    if suffix not in SUFFIXES:
        raise RailkdError(f"cannot write predictions as '{target}'. Expected a name that ends in {SUFFIX_WORDS}")
    if suffix == ".jsonl":
        lines: Iterator[str] = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    else:
        cells: Iterable[dict[str, Any]] = ({name: plain_cell(value) for name, value in row.items()} for row in rows)
        if quoted is None:
            cells = list(cells)
            quoted = any(needs_quotes(str(cell)) for row in cells for cell in (*row, *row.values()))
        lines = csv_lines(cells) if suffix == ".csv" else tsv_lines(cells, quoted=quoted)
    if target:
        with written(target) as file:
            file.writelines(line.encode() for line in lines)
        return
    stream = stream or sys.stdout
    shown = stream.isatty()
    stream.writelines(visible(line) if shown else line for line in lines)


def with_columns(answers: Sequence[dict[str, Any]], rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    """Put the columns of the input behind those of the predictions.

    Args:
        answers: N rows of predictions.
        rows: the N rows that they are for.
        names: of the columns of the input. One that has the name of a column of the predictions, or is read as
            answers, is written as ``input_NAME``.

    Returns:
        N rows.

    Example:
        >>> with_columns([{"index": 0, "label": "b"}], [{"id": 7, "label": "a"}], ["id", "label", "text"])
        [{'index': 0, 'label': 'b', 'id': 7, 'input_label': 'a', 'text': None}]
    """
    taken, renamed = set(answers[0]), {}
    for name in names:
        free = name
        while free in taken or _is_answer(free) or (free != name and free in names):
            free = f"input_{free}"
        renamed[name] = free
        taken.add(free)
    return [
        answer | {new: row.get(old) for old, new in renamed.items()} for answer, row in zip(answers, rows, strict=True)
    ]


def _is_answer(name: str) -> bool:
    low = name.casefold()
    return low in ANSWERS or low.startswith(PREFIXES)


def is_number_file(columns: Iterable[str]) -> bool:
    """Return whether columns are those of the predictions of a model that gives a number.

    Args:
        columns: their names.

    Example:
        >>> is_number_file(["index", "score", "text"]), is_number_file(["index", "label", "score", "logit_a"])
        (True, False)
    """
    names = set(columns)
    return {"index", "score"} <= names and not any(name.startswith(PREFIXES) for name in names)
