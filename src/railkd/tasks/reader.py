"""Reads the labels of a user's data set (names, indices, or lists of them) as a student trains on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from railkd.data.label_lists import is_flag, refuse_shares
from railkd.data.label_names import has_default_names, is_missing, label_name
from railkd.data.labels import MISSING, LabelSpace, match_label_space
from railkd.errors import RailkdError
from railkd.runtime.words import named, shortened

#: From one label of a user's data set to what the model trains on.
ReadLabel = Callable[[Any], Any]


class ClassReader:
    """Reads labels as indices of a student's outputs. Text is a name and a whole number is an index, as in `datasets`.

    Args:
        names: of the student, in output order.
        ids: its ``label2id``.
        given: names of a ClassLabel column, whose numbers mean these names and not the student's.
    """

    def __init__(self, names: Sequence[str], ids: Mapping[str, int], given: Sequence[str] | None = None) -> None:
        self.names, self.ids = names, ids
        self.known: dict[str, int | None] = {}
        self.forms: set[str] = set()
        self.of_class = given is not None
        self.by_name = list(given) if given is not None else None
        # A student with the default names LABEL_0, LABEL_1, ... has no names to match, so that the order counts.
        in_order = given is not None and has_default_names(names) and len(given) == len(names)
        if in_order and any(self._named(name) is None for name in given or ()):
            self.by_name = None

    def index(self, value: Any) -> int:
        """Return the index of one label; -100 for None, NaN, an empty text and -100.

        Args:
            value: the label.

        Raises:
            ValueError: the student does not know this label.
        """
        if is_missing(value) or value == MISSING or (isinstance(value, float) and math.isnan(value)):
            return MISSING
        given = value
        if not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        ):
            value = int(value)
            if value < 0 and self.of_class:  # `datasets` marks a missing ClassLabel so.
                return MISSING
            if self.by_name is not None:
                given = value = self.by_name[value]
            elif 0 <= value < len(self.names):
                return value
        found = self._named(label_name(value)) if isinstance(value, str | bool) else None
        if found is None and isinstance(value, bool) and int(value) < len(self.names):
            return int(value)
        if found is None:
            raise ValueError(
                f"expected one of the student's classes {named(self.names)} or a number below {len(self.names)}, "
                f"got the label {shortened(repr(given))}. Fix: set id2label and label2id of its config to the names of "
                "the data, or name another label column (label_column=, rename_column)."
            )
        return found

    def vector(self, value: Any) -> list[float]:
        """Return (C,) which classes apply. A list of C flags (0 or 1) stays; other lists hold names or indices.

        Args:
            value: the label. A list of C floats from 0 to 1 stays too. A list of missing labels has no label.

        Raises:
            ValueError: it is not a list, holds an unknown label or soft labels, misses some labels, or its 0 and 1 can
                mean two things.
        """
        count = len(self.names)
        if value is None:
            return [math.nan] * count
        if not isinstance(value, list | tuple):
            raise ValueError(
                f"expected a list for a student of several labels a row, got the label {shortened(repr(value))}."
            )
        gaps = [self._is_gap(entry) for entry in value]
        if any(gaps):
            if all(gaps):
                return [math.nan] * count
            raise ValueError(
                f"expected labels in the whole list {shortened(repr(value))}, got gaps. Fix: fill them "
                "in, or write None in place of the list."
            )
        if not self.of_class and value and all(map(is_flag, value)):
            return self._flags(value)
        if len(value) == count and all(isinstance(share, float) and not (share < 0 or share > 1) for share in value):
            if abs(sum(value) - 1) < 1e-2:
                refuse_shares(value, "the list")
            return list(value)
        chosen = {self.index(name) for name in value}
        return [float(index in chosen) for index in range(count)]

    def _is_gap(self, entry: Any) -> bool:
        """Return whether an entry of a list is a missing label. `datasets` marks one of a ClassLabel by -1."""
        hidden = self.of_class and isinstance(entry, int) and entry < 0
        return hidden or (not isinstance(entry, str) and (is_missing(entry) or entry == MISSING))

    def _flags(self, value: Sequence[Any]) -> list[float]:
        """Read a list of 0 and 1 as flags if it has one for each class, else as indices; refuse both in one column."""
        count, certain = len(self.names), any(isinstance(flag, bool | float) for flag in value)
        flags = len(value) == count and (certain or count > 1)
        self.forms.add("flags" if flags else "indices")
        if len(self.forms) > 1 or (not flags and (len(set(value)) < len(value) or count == 1)):
            raise ValueError(
                f"the list {shortened(repr(value))} may hold a flag (0 or 1) for each of {count} classes, or the "
                f"numbers of the classes that apply. Fix: write {count} flags as floats, or names, in every row."
            )
        chosen = {int(index) for index in value}
        return [float(flag) for flag in value] if flags else [float(index in chosen) for index in range(count)]

    def _named(self, name: str) -> int | None:
        """Return the index of a name: matched as in files, or from label2id if id2label was not set."""
        if name not in self.known:
            try:
                self.known[name] = int(match_label_space(self.names, LabelSpace((name,))).spellings[name])
            except RailkdError:
                self.known[name] = {str(key): int(index) for key, index in self.ids.items()}.get(name)
        return self.known[name]
