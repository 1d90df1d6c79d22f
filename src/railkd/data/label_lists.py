"""Decides how lists of labels are read: as classes by name, or as a 0 or 1 for each class (multi-hot).

Lists of one length, two or more, that hold only 0 and 1 are multi-hot. Other lists hold classes: names or numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from railkd.data.label_names import is_missing
from railkd.errors import RailkdError
from railkd.runtime.words import shortened

#: Names of classes whose renaming by --label-map says that lists hold classes, not flags.
FLAG_NAMES = frozenset(("0", "1", "false", "true"))


def is_flag(value: Any) -> bool:
    """Return whether a value is 0 or 1 as a number of any type, or a bool."""
    return isinstance(value, bool | int | float) and value in (0, 1)


def multi_hot_width(cells: Sequence[Any], *, where: str) -> int:
    """Return the length of multi-hot lists, or 0 if the cells are anything else.

    Args:
        cells: N labels as a file holds them; None: a row without a label.
        where: the source, for messages.

    Returns:
        The number of classes.

    Raises:
        RailkdError: lists of shares (soft labels), or of 0 and 1 but of unequal lengths.

    Example:
        >>> multi_hot_width([[1, 0, 1], None, [0, 0, 0]], where="f"), multi_hot_width([[1], [0, 1]], where="f")
        (3, 0)
    """
    lists = [
        (row, cell) for row, cell in enumerate(cells, 1) if isinstance(cell, list | tuple) and not is_missing(cell)
    ]
    for row, cell in lists:
        refuse_shares(cell, f"{where}: row {row}")
    if not lists or not all(is_flag(value) for _, cell in lists for value in cell):
        return 0
    lengths = {len(cell) for _, cell in lists}
    if len(lengths) == 1:
        return width if (width := lengths.pop()) > 1 else 0
    # A list of class numbers names no class twice, so that a list such as [0, 0, 1] must be multi-hot.
    if any(len(set(cell)) < len(cell) for _, cell in lists):
        row, other = next((row, cell) for row, cell in lists if len(cell) != len(lists[0][1]))
        raise RailkdError(
            f"{where}: expected lists of 0 and 1 of one length, got {len(lists[0][1])} entries in row {lists[0][0]} "
            f"and {len(other)} in row {row}. Fix: write a 0 or 1 for each class in every row."
        )
    return 0


def refuse_shares(cell: Sequence[Any], where: str) -> None:
    """Refuse lists of numbers with fractions, which are neither classes nor flags.

    Args:
        cell: one list.
        where: source and row, for the message.

    Raises:
        RailkdError: the list holds such numbers.
    """
    if any(isinstance(value, float) and not (math.isfinite(value) and value.is_integer()) for value in cell):
        numbers = [value for value in cell if isinstance(value, int | float)]
        soft = "soft labels (they sum to 1)" if abs(sum(numbers) - 1) < 1e-2 else "neither classes nor 0 and 1"
        raise RailkdError(
            f"{where}: the numbers {shortened(str(list(cell)))} are {soft}. Expected the classes that apply, or a 0 or "
            "1 for each class. Fix: round them, or distil from the model that gave them."
        )


def refuse_lists_in_text(texts: Sequence[str], where: str) -> None:
    """Refuse cells of text that spell lists, such as ``[1, 0, 1]`` in a csv file.

    Args:
        texts: the cells of one column.
        where: the source, for the message.

    Raises:
        RailkdError: every cell spells a list.
    """
    number = r"[-+.\deE]+|true|false|'[^']*'|\"[^\"]*\""
    spelled = re.compile(rf"\[\s*(({number})([,\s]+({number}))*)?\s*,?\s*\]", re.IGNORECASE)
    if texts and all(spelled.fullmatch(text.strip()) for text in texts):
        raise RailkdError(
            f"{where}: the labels are lists written as text, e.g. {shortened(texts[0])}. "
            "Fix: save them as lists in a jsonl or parquet file, or separate names by '|'."
        )
