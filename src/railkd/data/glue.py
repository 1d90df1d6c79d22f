"""GLUE as a table: one task, one row.

Sources: Wang et al. 2019 (GLUE) for columns, label order and metrics; label names as in the hub's ``nyu-mll/glue``.
The columns are those of the official download; data are still read by convention (``columns.py``), so that a hub copy
with other column names works too. The rows name what a file cannot: the official label order, what a cell "1" means,
the metrics, and the columns of the files without a header.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class GlueTask:
    """One row of the table; sets outside GLUE that are laid out alike can be rows of the same class.

    >>> GLUE[0].name, GLUE[0].raw_label_names
    ('CoLA', {'0': 'unacceptable', '1': 'acceptable'})
    """

    name: str
    text: tuple[str, ...]
    label: str
    labels: tuple[str, ...]  # class names in the official index order; empty for regression
    metrics: tuple[str, ...]  # names in metrics.METRICS; the first one selects the best epoch
    cells: tuple[str, ...] = ()  # how the files write ``labels``, in the same order; empty: by their names
    label_range: tuple[float, float] | None = None  # regression: lowest and highest label
    headerless: tuple[str, ...] = ()  # columns of files that come without a header line; empty: they have one
    dev: tuple[str, ...] = ("dev",)  # development splits; a folder's ``dev`` is the first
    hub: str = ""  # NAME[:CONFIG] on the hub; empty: not there
    licence: str = "of the sources"

    @property
    def problem_type(self) -> str:
        """What a model of this task predicts, as transformers writes it."""
        return "single_label_classification" if self.labels else "regression"

    @property
    def has_header(self) -> bool:
        return not self.headerless

    @property
    def positive(self) -> str | None:
        """The class whose F1 is meant: index 1 in GLUE's order, wherever a model keeps it. None but for two classes."""
        return self.labels[1] if len(self.labels) == 2 else None

    @property
    def raw_label_names(self) -> dict[str, str]:
        """Cell -> label name; empty when the files spell the names out."""
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
    """Folder names that mean the same: SST-2, sst2."""
    return re.sub(r"[-_]", "", name.casefold())


_BY_FOLDER = {folder_key(task.name): task for task in GLUE}


def task_of(path: str, hint: str = "") -> GlueTask | None:
    """The task that a path or hub name belongs to.

    Args:
        path: its folder's name tells; of a hub collection (``.../glue``) the hint does. hint: the config of a hub set.

    >>> [task_of(*s).name for s in (("glue/stsb/dev.tsv",), ("data/SST-2",), ("nyu-mll/glue", "qnli"))]
    ['STS-B', 'SST-2', 'QNLI']
    >>> task_of("reviews/train.tsv") is None
    True
    """
    return row_by_folder(path, hint, _BY_FOLDER, collections=("glue",))


def row_by_folder(path: str, hint: str, rows: Mapping[str, Row], collections: Collection[str]) -> Row | None:
    """The row of a path or hub name in a table keyed by `folder_key`; of a hub collection by the config, ``hint``."""
    # A relative "dev.tsv" belongs to the folder one stands in, so the path is made absolute first.
    parent, name = os.path.split(os.path.abspath(path))
    row = rows.get(folder_key(name))
    if row is None and not os.path.isdir(path) and os.path.splitext(name)[1]:
        row = rows.get(folder_key(os.path.basename(parent)))
    if row is None and folder_key(name) in collections and not os.path.exists(path):
        row = rows.get(folder_key(hint))
    return row
