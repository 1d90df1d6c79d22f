"""Files for GLUE's leaderboard: ``index`` and ``prediction``, tab-separated, one file for each test set.

Format: gluebenchmark.com, "FAQ" (names of the files, words of the answers). The task's row in ``glue.py`` says how an
answer is written: as a cell (0, 1) if the task has cells, else as the name of the class, and as a number for STS-B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from railkd.data.formats import list_tables
from railkd.data.glue import GLUE, GlueTask, folder_key
from railkd.data.labels import LabelSpace, match_label_space
from railkd.data.loading import SPLITS
from railkd.data.sources import load_rows
from railkd.errors import RailkdError
from railkd.runtime.words import joined


@dataclass(frozen=True)
class Submission:
    """One file of a submission.

    Attributes:
        name: of the file, without its suffix.
        task: the task that the model must be trained on.
        stems: the names that the test file may have, without suffixes.
        folder: the name of its folder.
    """

    name: str
    task: GlueTask
    stems: tuple[str, ...]
    folder: str

    @property
    def file(self) -> str:
        """The name of the file, e.g. ``RTE.tsv``."""
        return f"{self.name}.tsv"


_TASKS = {task.name: task for task in GLUE}
#: Columns of a test file that number its rows; QQP has "id".
INDEX_COLUMNS = ("index", "id")

SUBMISSIONS: tuple[Submission, ...] = (
    *(Submission(task.name, task, SPLITS["test"][:1], task.name) for task in GLUE if task.name != "MNLI"),
    Submission("MNLI-m", _TASKS["MNLI"], ("test_matched",), "MNLI"),
    Submission("MNLI-mm", _TASKS["MNLI"], ("test_mismatched",), "MNLI"),
    Submission("AX", _TASKS["MNLI"], ("AX", "diagnostic", "test"), "AX"),
)


def find(source: str) -> dict[Submission, str]:
    """Find the submissions that a test file or the folder of a task is for.

    Args:
        source: a file or folder. Hub sets have no row numbers, so they are refused.

    Returns:
        Submission -> its test file.

    Raises:
        RailkdError: it is no test file of a GLUE task, or does not exist.
    """
    path = Path(source)
    if not path.exists():
        raise RailkdError(f"--test {source}: no such file or folder. Expected a GLUE folder, such as glue/RTE")
    folder = path.absolute() if path.is_dir() else path.absolute().parent
    rows = [row for row in SUBMISSIONS if folder_key(row.folder) == folder_key(folder.name)]
    if not rows:
        known = ", ".join(dict.fromkeys(row.folder for row in SUBMISSIONS))
        raise RailkdError(f"--test {source}: not in a folder of a GLUE task. Expected a folder named {known}")
    files = {stem: paths[-1] for stem, paths in list_tables(folder).items()}
    found = {row: next((files[stem] for stem in row.stems if stem in files), None) for row in rows}
    chosen = {row: str(file) for row, file in found.items() if file and (path.is_dir() or file == path.absolute())}
    if not chosen:
        wanted = ", ".join(f"{stem}.tsv" for row in rows for stem in row.stems)
        raise RailkdError(f"--test {source}: no test rows of {rows[0].folder}. Expected {wanted}")
    return chosen


def read_numbers(source: str, count: int) -> list[Any]:
    """Return the row numbers of a test file, or numbers from 0 if it has none.

    Args:
        source: the test file.
        count: the number of its rows.
    """
    rows = load_rows(source)
    column = next((name for name in INDEX_COLUMNS if name in rows.column_names), None)
    return list(rows[column]) if column else list(range(count))


def check_model(
    row: Submission, model_names: Sequence[str], *, model: str, label_map: Mapping[str, str] | None = None
) -> dict[int, str]:
    """Match the classes of a model with those of a task, by name.

    Args:
        row: the submission.
        model_names: classes in output order.
        model: its name, for messages.
        label_map: class of the task -> class of the model, where the names differ.

    Returns:
        Index of a class of the model -> its answer in the file; empty if the answers are numbers.

    Raises:
        RailkdError: the model has other classes than the task, or is of another kind.
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
            f"{row.name} has the classes {', '.join(task.labels)}, '{model}' has {joined(more)} too. "
            "Fix: predict with a model of this task"
        )
    return found


def format_answers(row: Submission, logits: np.ndarray, words: Mapping[int, str]) -> list[str]:
    """Return the column ``prediction``.

    Args:
        row: the submission.
        logits: (N, C).
        words: from `check_model`.
    """
    if row.task.label_range is not None:
        return [f"{value:.3f}" for value in np.clip(logits[:, 0].astype(float), *row.task.label_range)]
    return [words[int(best)] for best in logits.argmax(axis=1)]


def format_file(index: Sequence[Any], given: Sequence[str]) -> str:
    r"""Return the text of the file.

    Args:
        index: the row numbers.
        given: the answers, one for each row.

    Example:
        >>> format_file([0, 1], ["entailment", "not_entailment"])
        'index\tprediction\n0\tentailment\n1\tnot_entailment\n'
    """
    lines = [f"{number}\t{answer}" for number, answer in zip(index, given, strict=True)]
    return "\n".join(["index\tprediction", *lines]) + "\n"
