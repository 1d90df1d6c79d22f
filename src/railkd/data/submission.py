"""The files that GLUE's leaderboard takes: ``index`` and ``prediction``, tab-separated, one file a test set.

Format: gluebenchmark.com, "FAQ" (names of the files, words of the answers). What an answer is written as comes from the
task's row in ``glue.py``: a cell where the task has cells (0, 1), the name of the class where not, a number for STS-B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from railkd.data.formats import tables_in
from railkd.data.glue import GLUE, GlueTask, folder_key
from railkd.data.labels import LabelSpace, match_label_space
from railkd.data.loading import SPLITS
from railkd.data.sources import load_rows
from railkd.errors import RailkdError


@dataclass(frozen=True)
class Submission:
    """One file of a submission: the task whose models answer it, and what its test file may be called."""

    name: str
    task: GlueTask
    stems: tuple[str, ...]
    folder: str

    @property
    def file(self) -> str:
        """``RTE.tsv``."""
        return f"{self.name}.tsv"


_TASKS = {task.name: task for task in GLUE}
#: The rows of a test file are numbered here; QQP's have another name.
INDEX_COLUMNS = ("index", "id")

SUBMISSIONS: tuple[Submission, ...] = (
    *(Submission(task.name, task, SPLITS["test"][:1], task.name) for task in GLUE if task.name != "MNLI"),
    Submission("MNLI-m", _TASKS["MNLI"], ("test_matched",), "MNLI"),
    Submission("MNLI-mm", _TASKS["MNLI"], ("test_mismatched",), "MNLI"),
    Submission("AX", _TASKS["MNLI"], ("AX", "diagnostic", "test"), "AX"),
)


def find(source: str) -> dict[Submission, str]:
    """The submissions that a test file, or a folder of a task, is for, with the file of each.

    Raises:
        RailkdError: no test file of a GLUE task; hub sets have no row numbers, and are refused too.
    """
    path = Path(source)
    if not path.exists():
        raise RailkdError(f"--test {source}: no such file or folder; wanted a GLUE folder, such as glue/RTE")
    folder = path.absolute() if path.is_dir() else path.absolute().parent
    rows = [row for row in SUBMISSIONS if folder_key(row.folder) == folder_key(folder.name)]
    if not rows:
        known = ", ".join(dict.fromkeys(row.folder for row in SUBMISSIONS))
        raise RailkdError(f"--test {source}: lies in no folder of a GLUE task; wanted one called {known}")
    files = {stem: paths[-1] for stem, paths in tables_in(folder).items()}
    found = {row: next((files[stem] for stem in row.stems if stem in files), None) for row in rows}
    chosen = {row: str(file) for row, file in found.items() if file and (path.is_dir() or file == path.absolute())}
    if not chosen:
        wanted = ", ".join(f"{stem}.tsv" for row in rows for stem in row.stems)
        raise RailkdError(f"--test {source}: holds no test rows of {rows[0].folder}; wanted {wanted}")
    return chosen


def numbers(source: str, count: int) -> list[Any]:
    """The row numbers of a test file, as the file has them; counted from 0 where it has none."""
    rows = load_rows(source)
    column = next((name for name in INDEX_COLUMNS if name in rows.column_names), None)
    return list(rows[column]) if column else list(range(count))


def check_model(
    row: Submission, model_names: Sequence[str], *, model: str, label_map: Mapping[str, str] | None = None
) -> dict[int, str]:
    """Index of a model's class -> the answer it stands for; empty where the task wants a number.

    Args:
        model_names: classes in output order; matched to the task's by name, whatever that order is.
        model: for messages. label_map: class of the task -> class of the model, where the names differ.

    Raises:
        RailkdError: a model of other classes than the task's, or of another kind.
    """
    task = row.task
    if not task.labels:
        return {}
    names = tuple((label_map or {}).get(name, name) for name in task.labels)
    matched = match_label_space(model_names, LabelSpace(names), model=f"'{model}'", where=row.name)
    words = task.cells or task.labels
    found = {int(index): word for index, word in zip(matched.encode(names, where=row.name), words, strict=True)}
    more = [name for index, name in enumerate(model_names) if index not in found]
    if more:
        raise RailkdError(
            f"{row.name} has the classes {', '.join(task.labels)}, '{model}' has {', '.join(more)} beside them; "
            "predict with a model of this task"
        )
    return found


def answers(row: Submission, logits: np.ndarray, words: Mapping[int, str]) -> list[str]:
    """The column ``prediction``.

    Args:
        logits: (N, C). words: of `check_model`.
    """
    if row.task.label_range is not None:
        return [f"{value:.3f}" for value in np.clip(logits[:, 0].astype(float), *row.task.label_range)]
    return [words[int(best)] for best in logits.argmax(axis=1)]


def text_of(index: Sequence[Any], given: Sequence[str]) -> str:
    """The file.

    >>> text_of([0, 1], ["entailment", "not_entailment"])
    'index\\tprediction\\n0\\tentailment\\n1\\tnot_entailment\\n'
    """
    lines = [f"{number}\t{answer}" for number, answer in zip(index, given, strict=True)]
    return "\n".join(["index\tprediction", *lines]) + "\n"
