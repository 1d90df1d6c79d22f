"""Any number of classes a row: read from one cell, from a list, or from several columns of 0 and 1.

But: an empty cell or list is a row to which no class applies, as such sets mean it; only null is a missing label.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from railkd.data.labels import LabelSpace, label_name, match_label_space
from railkd.errors import RailkdError

if TYPE_CHECKING:
    import numpy as np

#: In this order: a file that has "|" anywhere may have commas inside its names.
SEPARATORS = ("|", ";", ",")
METRICS = ("micro_f1", "macro_f1", "subset_accuracy")
_FLAGS = {"0": False, "1": True, "false": False, "true": True}
Classes = tuple[str, ...] | None  # those of one row; None: no label


def split_cells(cells: Sequence[Any], *, where: str) -> list[Classes]:
    """The classes of each row, from cells of text or from lists.

    >>> split_cells(["sad|angry", "happy", "", None], where="train.tsv")
    [('sad', 'angry'), ('happy',), (), None]
    """
    texts = [cell for cell in cells if isinstance(cell, str)]
    separator = next((mark for mark in SEPARATORS if any(mark in text for text in texts)), None)
    rows: list[Classes] = []
    for number, cell in enumerate(cells, 1):
        if cell is None:
            rows.append(None)
            continue
        if isinstance(cell, str):
            parts: Iterable[Any] = cell.split(separator) if separator else [cell]
        else:
            parts = cell if isinstance(cell, list | tuple) else [cell]
        names = (label_name(part, where=f"{where}: row {number}") for part in parts)
        rows.append(tuple(dict.fromkeys(name for name in names if name)))
    return rows


def from_columns(columns: Mapping[str, Sequence[Any]], *, where: str) -> list[Classes]:
    """The classes of each row, from a column of 0 and 1 for each class.

    >>> from_columns({"sad": ["1", "0"], "angry": ["1", "0"]}, where="train.tsv")
    [('sad', 'angry'), ()]
    """
    rows: list[Classes] = []
    for number, cells in enumerate(zip(*columns.values(), strict=True), 1):
        if all(cell is None for cell in cells):
            rows.append(None)
            continue
        chosen = []
        for name, cell in zip(columns, cells, strict=True):
            flag = _FLAGS.get("" if cell is None else label_name(cell, where=f"{where}: row {number}").casefold())
            if flag is None:
                raise RailkdError(
                    f"{where}: row {number}: column {name!r} holds {str(cell)[:60]!r}, wanted 0 or 1: of several label "
                    "columns each says whether its class applies; name one --label-column for anything else."
                )
            if flag:
                chosen.append(name)
        rows.append(tuple(chosen))
    return rows


def infer(rows: Sequence[Classes], *, names: Sequence[str] | None, where: str) -> LabelSpace:
    """The classes: those of the columns, or all that occur, in the order of the alphabet."""
    found = sorted({name for row in rows if row for name in row})
    known = tuple(names or found)
    if len(known) < 2:
        raise RailkdError(
            f"{where}: {'no class occurs' if not known else f'{known[0]!r} is the only class'}; wanted two classes at "
            "least, separated by ',', ';' or '|' where a row has several."
        )
    return LabelSpace(known, multi=True)


def encode(
    rows: Sequence[Classes], names: Sequence[str], *, label_map: Mapping[str, str], model: str, where: str
) -> list[list[float]]:
    """A vector of 0 and 1 for each row, in the order of ``names``, which are matched as those of single labels are.

    >>> encode([("Sad", "angry"), ()], ["angry", "sad"], label_map={}, model="the model", where="dev.tsv")
    [[1.0, 1.0], [0.0, 0.0]]
    """
    seen = LabelSpace(tuple(dict.fromkeys(name for row in rows if row for name in row)))
    space = match_label_space(names, seen, label_map=label_map, model=model, where=where)
    vectors = []
    for number, row in enumerate(rows, 1):
        if row is None:
            raise RailkdError(f"{where}: row {number} has no label; fill it in, or give the rows as --unlabelled.")
        here = {int(index) for index in space.encode(row, where=where)}
        vectors.append([float(index in here) for index in range(len(names))])
    return vectors


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Micro and macro F1 and the share of rows with every class right; a class applies where its logit is above 0.

    Rows of nan are rows without labels and do not count.

    >>> import numpy as np
    >>> score(np.array([[2., -1.], [1., 3.]]), np.array([[1., 0.], [0., 1.]]))["subset_accuracy"]
    0.5
    """
    import numpy as np
    from sklearn.metrics import f1_score

    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if logits.ndim != 2 or labels.shape != logits.shape:
        raise RailkdError(f"got logits of shape {logits.shape} and labels of shape {labels.shape}; wanted both (N, C).")
    known = ~np.isnan(labels).any(axis=1)
    logits, labels = logits[known], labels[known]
    if not len(labels):
        raise RailkdError("no row has a label, so there is nothing to score; wanted labelled rows.")
    if not np.isfinite(logits).all():
        raise RailkdError("the model's outputs are not finite; lower the learning rate.")
    predicted, true = logits > 0, labels > 0.5
    return {
        "micro_f1": float(f1_score(true, predicted, average="micro", zero_division=0.0)),
        "macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0.0)),
        "subset_accuracy": float((predicted == true).all(axis=1).mean()),
    }


def missing(count: int) -> list[float]:
    """The label of a row without one."""
    return [math.nan] * count
