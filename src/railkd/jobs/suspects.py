"""Writes the training rows on which teacher and label disagree, the most confident first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from railkd.data.delimited_writer import format_tsv
from railkd.data.reader import TEXT_COLUMNS, Table
from railkd.runtime.files import write_text
from railkd.tasks.judging import Finding
from railkd.tasks.suspects import Suspects
from railkd.tasks.target import Target


def write_suspects(
    path: str, target: Target, table: Table, rows: np.ndarray, outputs: np.ndarray, labels: np.ndarray
) -> Finding:
    """Write the rows on which a teacher and the labels disagree.

    The columns are ``row`` (number of the row in the file, from 1, the header not counted), ``label``, ``answer`` of
    the teacher, ``confidence``, ``margin``, ``text`` and, for pairs, ``text_pair``; see `railkd.tasks.suspects`. Texts
    are written as they are: a spreadsheet may run a cell that begins with = + - or @.

    Args:
        path: the file, replaced if it is there.
        target: task and classes of the teacher.
        table: the training rows, with labels.
        rows: (M,) numbers of the rows that the teacher answered.
        outputs: (M, C), its answers.
        labels: (M,) encoded labels of these rows.

    Returns:
        A note that counts them.
    """
    found, space = Suspects.find(target.task, outputs, labels), target.space if table.space is None else table.space
    gold, given = target.task.in_words(labels, space), target.task.in_words(target.task.decide(outputs), space)
    texts = {name: table.rows[name] for name in TEXT_COLUMNS if name in table.rows.column_names}
    lines = [
        {
            "row": int(rows[at]) + 1,
            "label": _cell(gold[at]),
            "answer": _cell(given[at]),
            "confidence": "" if np.isnan(sure) else f"{sure:.6f}",
            "margin": f"{margin:.6g}",
            **{name: column[int(rows[at])] for name, column in texts.items()},
        }
        for at, sure, margin in zip(found.rows.tolist(), found.confidence, found.margin, strict=True)
    ]
    head = "\t".join(["row", "label", "answer", "confidence", "margin", *texts]) + "\n"
    write_text(Path(path), format_tsv(lines) if lines else head)
    detail = f"teacher and label disagree on {len(lines):,} of {len(rows):,} training rows"
    if lines:
        detail += (
            f", most confidently on row {lines[0]['row']:,} (label {lines[0]['label']}, answer {lines[0]['answer']})"
        )
    return Finding("note", "suspects", f"{detail}; written: {path}")


def _cell(value: Any) -> str:
    return "|".join(value) if isinstance(value, list) else "" if value is None else str(value)
