"""Rows that a Python caller gives: a `datasets.Dataset`, a list or a data frame."""

from __future__ import annotations

from typing import Any

from railkd.errors import RailkdError
from railkd.runtime.words import listed

_KINDS = "a datasets.Dataset, a list of dicts, a list of texts, or a pandas DataFrame"


def as_dataset(rows: Any) -> Any:
    """Return rows as a `datasets.Dataset`. A `Dataset`, or what has its ``column_names`` and columns, stays as it is.

    Args:
        rows: a `Dataset`, a list of dicts, a list of texts (column ``text``) or a pandas data frame (without its
            index).

    Returns:
        The rows. Nothing is copied from a `Dataset`.

    Raises:
        RailkdError: several splits, a stream, no rows, cells of mixed types, or another type of object.
    """
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

    if isinstance(rows, DatasetDict | IterableDatasetDict):
        raise RailkdError(
            f"Expected the rows of one split, got {type(rows).__name__} with the splits {listed(rows)}. Fix: pass "
            f"one of them, such as dataset[{next(iter(rows), 'train')!r}]."
        )
    if isinstance(rows, IterableDataset):
        raise RailkdError(
            "Expected rows that can be read twice, got a stream (IterableDataset). Fix: load them with "
            "streaming=False, or run the teacher live."
        )
    if hasattr(rows, "column_names"):
        return rows
    frame = type(rows).__module__.partition(".")[0] == "pandas" and hasattr(rows, "columns")
    if not frame and not isinstance(rows, list | tuple):
        raise RailkdError(f"Expected {_KINDS}, got {type(rows).__name__}.")
    if not len(rows):
        raise RailkdError("Expected at least one row, got none.")
    try:
        if frame:
            return Dataset.from_pandas(rows.rename(columns=str), preserve_index=False)
        kinds = {type(row) for row in rows}
        if kinds == {str}:
            return Dataset.from_dict({"text": list(rows)})
        if all(isinstance(row, dict) for row in rows):
            # The columns are those of all rows: from_list takes the keys of the first row only.
            names = dict.fromkeys(str(name) for row in rows for name in row)
            return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    except (TypeError, ValueError) as error:  # pyarrow's errors are ValueErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RailkdError(f"Expected cells of one type in each column, got rows that do not fit ({reason}).") from error
    raise RailkdError(f"Expected {_KINDS}, got a list of {listed(sorted(kind.__name__ for kind in kinds))}.")
