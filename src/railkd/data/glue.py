"""GLUE as a table with one row for each task: ``glue.toml``.

Sources: Wang et al. 2019 (GLUE) for columns, label order and metrics; label names as in the hub's ``nyu-mll/glue``.
A row holds what a file does not: the official order of the labels, the meaning of a cell such as "1", the metrics, and
the columns of files without a header. Its column names are those of the official download. Columns are still found by
common names (``columns.py``) when rows are read, so that copies on the hub with other column names work too.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar


@dataclass(frozen=True)
class GlueTask:
    """One row of the table. Data sets outside GLUE with the same layout have rows of this class too.

    Attributes:
        name: of the task.
        text: text columns.
        metrics: names in `railkd.tasks.metrics.METRICS`. The first one selects the best epoch.
        labels: class names in the official order; empty for regression.
        label: label column.
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
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    label: str = "label"
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
    def positive(self) -> str | None:
        """The class that F1 is computed for, index 1 in GLUE's order; None unless there are two classes."""
        return self.labels[1] if len(self.labels) == 2 else None

    @property
    def raw_label_names(self) -> dict[str, str]:
        """Cell -> label name; empty if the cells are the names."""
        return dict(zip(self.cells, self.labels, strict=True)) if self.cells else {}


Row = TypeVar("Row", bound=GlueTask)


def read_table(name: str, kind: type[Row]) -> tuple[Row, ...]:
    """Read one of the tables of this room.

    Args:
        name: of the TOML file beside this module, without its suffix. Each of its tables is a row.
        kind: class of the rows, whose attributes are the keys of the file.

    Returns:
        The rows, in the order of the file.
    """
    tables = tomllib.loads(Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8"))
    return tuple(kind(name=row, **{key: _frozen(cell) for key, cell in facts.items()}) for row, facts in tables.items())


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(value.items())
    return tuple(value) if isinstance(value, list) else value


GLUE = read_table("glue", GlueTask)


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
