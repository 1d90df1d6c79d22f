"""GLUE as a table with one row for each task.

Sources: Wang et al. 2019 (GLUE) for columns, label order and metrics; label names as in the hub's ``nyu-mll/glue``.
A row holds what a file does not: the official order of the labels, the meaning of a cell such as "1", the metrics, and
the columns of files without a header. Its column names are those of the official download. Columns are still found by
common names (``columns.py``) when rows are read, so that copies on the hub with other column names work too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class GlueTask:
    """One row of the table. Data sets outside GLUE with the same layout have rows of this class too.

    Attributes:
        name: of the task.
        text: text columns.
        label: label column.
        labels: class names in the official order; empty for regression.
        metrics: names in `railkd.tasks.metrics.METRICS`. The first one selects the best epoch.
        cells: how the files write ``labels``, in the same order; empty: by name.
        label_range: lowest and highest label of a regression.
        headerless: columns of files without a header line; empty: the files have one.
        dev: development splits. ``dev`` of a folder means the first one.
        hub: NAME[:CONFIG] on the hub; empty: not on the hub.
        licence: of the data.

    Example:
        >>> GLUE[0].name, GLUE[0].raw_label_names
        ('CoLA', {'0': 'unacceptable', '1': 'acceptable'})
    """

    name: str
    text: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    cells: tuple[str, ...] = ()
    label_range: tuple[float, float] | None = None
    headerless: tuple[str, ...] = ()
    dev: tuple[str, ...] = ("dev",)
    hub: str = ""
    licence: str = "of the sources"

    @property
    def problem_type(self) -> str:
        """The kind of task, as transformers names it."""
        return "single_label_classification" if self.labels else "regression"

    @property
    def has_header(self) -> bool:
        """Whether the files have a header line."""
        return not self.headerless

    @property
    def positive(self) -> str | None:
        """The class that F1 is computed for, index 1 in GLUE's order; None unless there are two classes."""
        return self.labels[1] if len(self.labels) == 2 else None

    @property
    def raw_label_names(self) -> dict[str, str]:
        """Cell -> label name; empty if the cells are the names."""
        return dict(zip(self.cells, self.labels, strict=True)) if self.cells else {}


Row = TypeVar("Row", bound=GlueTask)
_SENTENCES = ("sentence1", "sentence2")
_DIGITS = ("0", "1")

GLUE: tuple[GlueTask, ...] = (
    GlueTask(
        name="CoLA",
        text=("sentence",),
        label="label",
        labels=("unacceptable", "acceptable"),
        metrics=("matthews", "accuracy"),
        cells=_DIGITS,
        headerless=("source", "label", "original_mark", "sentence"),
        hub="nyu-mll/glue:cola",
        licence="published for research",
    ),
    GlueTask(
        name="SST-2",
        text=("sentence",),
        label="label",
        labels=("negative", "positive"),
        metrics=("accuracy",),
        cells=_DIGITS,
        hub="nyu-mll/glue:sst2",
        licence="not stated; excerpts of reviews",
    ),
    GlueTask(
        name="MRPC",
        text=("#1 String", "#2 String"),
        label="Quality",
        labels=("not_equivalent", "equivalent"),
        metrics=("f1", "accuracy"),
        cells=_DIGITS,
        hub="nyu-mll/glue:mrpc",
        licence="Microsoft Research, research use",
    ),
    GlueTask(
        name="STS-B",
        text=_SENTENCES,
        label="score",
        labels=(),
        metrics=("pearson", "spearman"),
        label_range=(0.0, 5.0),
        hub="nyu-mll/glue:stsb",
        licence="of its sources, mostly CC BY-SA 4.0",
    ),
    GlueTask(
        name="QQP",
        text=("question1", "question2"),
        label="is_duplicate",
        labels=("not_duplicate", "duplicate"),
        metrics=("f1", "accuracy"),
        cells=_DIGITS,
        hub="nyu-mll/glue:qqp",
        licence="Quora, non-commercial",
    ),
    GlueTask(
        name="MNLI",
        text=_SENTENCES,
        label="gold_label",
        labels=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        dev=("dev_matched", "dev_mismatched"),
        hub="nyu-mll/glue:mnli",
        licence="OANC; fiction CC BY 3.0 and CC BY-SA 3.0",
    ),
    GlueTask(
        name="QNLI",
        text=("question", "sentence"),
        label="label",
        labels=("entailment", "not_entailment"),
        metrics=("accuracy",),
        hub="nyu-mll/glue:qnli",
        licence="CC BY-SA 4.0 (SQuAD)",
    ),
    GlueTask(
        name="RTE",
        text=_SENTENCES,
        label="label",
        labels=("entailment", "not_entailment"),
        metrics=("accuracy",),
        hub="nyu-mll/glue:rte",
        licence="research use",
    ),
    GlueTask(
        name="WNLI",
        text=_SENTENCES,
        label="label",
        labels=("not_entailment", "entailment"),
        metrics=("accuracy",),
        cells=_DIGITS,
        hub="nyu-mll/glue:wnli",
        licence="CC BY 4.0",
    ),
)


def folder_key(name: str) -> str:
    """Return a folder's name without dashes and case, so that SST-2 and sst2 are equal.

    Args:
        name: of a folder or a task.
    """
    return re.sub(r"[-_]", "", name.casefold())


_BY_FOLDER = {folder_key(task.name): task for task in GLUE}


def find_task(path: str, hint: str = "") -> GlueTask | None:
    """Find the task of a path or hub name by the name of its folder.

    Args:
        path: of a file or folder, or a name on the hub.
        hint: the config of a hub set, which names the task in a collection such as ``nyu-mll/glue``.

    Returns:
        The task, or None.

    Example:
        >>> [find_task(*s).name for s in (("glue/stsb/dev.tsv",), ("data/SST-2",), ("nyu-mll/glue", "qnli"))]
        ['STS-B', 'SST-2', 'QNLI']
        >>> find_task("reviews/train.tsv") is None
        True
    """
    return find_by_folder(path, hint, _BY_FOLDER, collections=("glue",))


def find_by_folder(path: str, hint: str, rows: Mapping[str, Row], collections: Collection[str]) -> Row | None:
    """Find the row of a path or hub name by the name of its folder.

    Args:
        path: of a file or folder, or a name on the hub.
        hint: the config of a hub set.
        rows: `folder_key` of a name -> its row.
        collections: keys of hub names whose rows are found by ``hint``.

    Returns:
        The row, or None.
    """
    # The path is made absolute, because a relative "dev.tsv" belongs to the working directory.
    parent, name = os.path.split(os.path.abspath(path))
    row = rows.get(folder_key(name))
    if row is None and not os.path.isdir(path) and os.path.splitext(name)[1]:
        row = rows.get(folder_key(os.path.basename(parent)))
    if row is None and folder_key(name) in collections and not os.path.exists(path):
        row = rows.get(folder_key(hint))
    return row
