"""Predictions as a table: one row a text, in the order of the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from railkd.data.delimited import format_tsv
from railkd.data.reader import TEXT_COLUMNS
from railkd.errors import RailkdError
from railkd.runtime.files import write_text
from railkd.runtime.words import visible


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
    write_text(target, format_tsv([{name: _cell(value) for name, value in row.items()} for row in rows]))


def _cell(value: Any) -> Any:
    # Several labels in one cell are joined as `railkd.tasks.multilabel` reads them.
    return "|".join(value) if isinstance(value, list) else "" if value is None else value


def write_predictions(target: str | None, rows: Sequence[dict[str, Any]], stream: TextIO | None = None) -> None:
    """Write rows of columns as .tsv or .jsonl.

    Args:
        target: a file, whose suffix chooses the format; None: tsv to standard output.
        rows: see `railkd.tasks.base.Task.predictions`.
        stream: replaces standard output if there is no target.

    Raises:
        RailkdError: the suffix is another one.
    """
    suffix = Path(target).suffix if target else ".tsv"
    if suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif suffix == ".tsv":
        text = format_tsv([{name: _cell(value) for name, value in row.items()} for row in rows])
    else:
        raise RailkdError(f"cannot write predictions as '{target}'. Expected a name that ends in .tsv or .jsonl")
    if target:
        write_text(target, text)
    else:
        stream = stream or sys.stdout
        stream.write(visible(text) if stream.isatty() else text)
