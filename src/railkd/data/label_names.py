"""Names of classes: reads them from cells, renames them, and compares them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from railkd.errors import RailkdError
from railkd.runtime.words import named, quoted, shortened

#: What programs write as text for a missing value.
LIKE_MISSING = frozenset(
    ("nan", "-nan", "inf", "-inf", "none", "null", "<na>", "na", "nat", "n/a", "#n/a", "#na"),
)
#: Labels that hide one beside classes from 0.
_HIDDEN = frozenset(("-1", "-100"))
#: A whole number as pandas writes it in a column with gaps.
_WHOLE_WITH_FRACTION = re.compile(r"-?(0|[1-9]\d*)\.0+")


def parse_label_map(items: Iterable[str]) -> dict[str, str]:
    """Parse texts ``OLD=NEW``; several OLD may share one NEW.

    Args:
        items: the texts.

    Returns:
        Old name -> new name.

    Raises:
        RailkdError: a text has another form, or one OLD has two NEW.

    Example:
        >>> parse_label_map(["neutral=no", "contradiction=no"])
        {'neutral': 'no', 'contradiction': 'no'}
    """
    mapping: dict[str, str] = {}
    for item in items:
        old, _, new = (part.strip() for part in item.partition("="))
        old = label_name(old)
        if not old or not new:
            raise RailkdError(f"--label-map: expected OLD=NEW, e.g. 0=negative, got {shortened(item)!r}.")
        if mapping.get(old, new) != new:
            raise RailkdError(
                f"--label-map: {named([old])} is renamed to both {named([mapping[old], new])}. Fix: keep one."
            )
        mapping[old] = new
    return mapping


def apply_label_map(values: Iterable[Any], mapping: Mapping[str, str]) -> list[Any]:
    """Rename the labels that a map has; others, and missing ones, stay.

    Args:
        values: one label a row.
        mapping: old name -> new name.

    Returns:
        One label a row.

    Example:
        >>> apply_label_map([0, "1", None], {"0": "negative", "1": "positive"})
        ['negative', 'positive', None]
    """
    if not mapping:
        return list(values)
    return [value if is_missing(value) else mapping.get(label_name(value), value) for value in values]


def describe_doubt(names: Collection[str], label_map: Mapping[str, str]) -> str:
    """Return a warning about labels that look like missing ones. They are read as labels.

    Args:
        names: of the classes, or the numbers, of one source.
        label_map: old name -> new name. Names in it were chosen by the user.

    Returns:
        The warning; empty if there are no such labels.

    Example:
        >>> describe_doubt(["0", "1", "-1"], {})[:23]
        "warning: the label '-1'"
    """
    parts = {part.strip() for name in names for part in re.split(r"[|;,]", name)}
    suspects = {name for name in {*names} | parts if name.casefold() in LIKE_MISSING}
    others = [parse_number(name) for name in {*names} - _HIDDEN]
    if len(others) > 1 and all(number is not None and number >= 0 for number in others):
        suspects |= {*names} & _HIDDEN
    if not suspects or suspects & {*label_map, *label_map.values()}:
        return ""
    return (
        f"warning: the label {named(sorted(suspects))} is read as a label like others, not as a missing one. "
        "Fix: leave the cell empty if the label is missing."
    )


def describe_look_alikes(names: Iterable[str], label_map: Mapping[str, str]) -> str:
    """Return a warning about classes that differ in case or separators only. They are kept apart.

    Args:
        names: of the classes of training rows.
        label_map: old name -> new name. Names in it were chosen by the user.

    Returns:
        The warning with the flag that makes them one; empty if there are no such classes.

    Example:
        >>> describe_look_alikes(["bad", "Good", "good"], {})[-21:]
        '--label-map good=Good'
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(normalize(name), []).append(name)
    chosen = {*label_map, *label_map.values()}
    groups = [sorted(group) for group in alike.values() if len(group) > 1 and not chosen & set(group)]
    if not groups:
        return ""
    merged = (quoted(f"{shortened(other)}={shortened(keep)}") for keep, *others in groups for other in others)
    return (
        f"warning: the classes {' and '.join(named(group) for group in groups)} differ in case or separators only and "
        f"are kept apart. To make them one: --label-map {' '.join(merged)}"
    )


def is_missing(value: Any) -> bool:
    """Return whether a cell holds no label: null, NaN, an empty text, or a list of NaN."""
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(isinstance(entry, float) and math.isnan(entry) for entry in value)
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def no_label(where: str, row: int) -> str:
    """Return the message for a row without a label.

    Args:
        where: the source.
        row: its number, from 1.
    """
    return f"{where}: row {row} has no label. Fix: fill it in, or give the rows as --unlabelled."


def label_name(value: Any, *, where: str = "labels") -> str:
    """Return the name of a class as text. 1, 1.0, "1.0" (from a column that once had gaps) and "1" are one class.

    Args:
        value: one cell.
        where: source and row, for messages.

    Raises:
        RailkdError: it is neither a text nor a number.

    Example:
        >>> [label_name(value) for value in (1, 1.0, " 1", "1.0", True, "pos", "01")]
        ['1', '1', '1', '1', 'true', 'pos', '01']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        name = str(value).strip()
        return name.partition(".")[0] if _WHOLE_WITH_FRACTION.fullmatch(name) else name
    raise RailkdError(f"{where}: expected one name or one number per row, got a label of type {type(value).__name__}.")


def parse_number(value: Any) -> float | None:
    """Return a label as a number, or None if it is not one."""
    try:
        return None if isinstance(value, bool) or "_" in str(value) else float(value)
    except (TypeError, ValueError):
        return None


def has_default_names(names: Sequence[str]) -> bool:
    """Return whether classes have the default names of transformers: LABEL_0, LABEL_1, ..."""
    return all(name == f"LABEL_{index}" for index, name in enumerate(names))


def normalize(name: str) -> str:
    """Return a name without case and without separators inside. A sign in front counts: -1 is not 1."""
    return re.sub(r"(?<=[^\W_])[-_ ]+(?=[^\W_])", "", name.strip().casefold())
