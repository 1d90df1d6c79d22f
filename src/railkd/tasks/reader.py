"""Labels of a user's data set: names, indices or lists of them, to what a student trains on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from railkd.data.labels import MISSING, LabelSpace, is_missing, label_name, match_label_space, unnamed
from railkd.errors import RailkdError


class ClassReader:
    """Reads labels as indices of a student's outputs. Text is a name, a whole number an index: so do datasets keep
    them.

    Args:
        names: of the student, in output order.
        ids: its ``label2id``.
        given: names of a ClassLabel column, whose numbers mean these names and not the student's.
    """

    def __init__(self, names: Sequence[str], ids: Mapping[str, int], given: Sequence[str] | None = None) -> None:
        self.names, self.ids = names, ids
        self.known: dict[str, int | None] = {}
        self.of_class = given is not None
        self.by_name = list(given) if given is not None else None
        # A student that kept LABEL_0, LABEL_1, ... has no names to go by: the order is all there is.
        in_order = given is not None and unnamed(names) and len(given) == len(names)
        if in_order and any(self._named(name) is None for name in given or ()):
            self.by_name = None

    def index(self, value: Any) -> int:
        """Of one label; missing ones (None, NaN, an empty text, -100) are marked as such.

        Raises:
            ValueError: a label that the student does not know.
        """
        if is_missing(value) or value == MISSING or (isinstance(value, float) and math.isnan(value)):
            return MISSING
        given = value
        if not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        ):
            value = int(value)
            if value < 0 and self.of_class:  # datasets' own mark of a missing ClassLabel
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
                f"got the label {given!r}, the student knows {', '.join(self.names)}; wanted one of these or a number "
                f"below {len(self.names)}; set id2label and label2id of its config to the names of the data, or, if "
                "the labels are in another column, name it (label_column=, rename_column)"
            )
        return found

    def vector(self, value: Any) -> list[float]:
        """A list of C floats stands as it is; a list of names or indices says which classes apply."""
        count = len(self.names)
        if value is None:
            return [float("nan")] * count
        if not isinstance(value, list):
            raise ValueError(f"got the label {value!r}, wanted a list for a student of several labels a row")
        if len(value) == count and all(isinstance(number, float) for number in value):
            return value
        chosen = {self.index(name) for name in value}
        return [float(index in chosen) for index in range(count)]

    def _named(self, name: str) -> int | None:
        """The output of a name: as the command line matches them, or as label2id has it where id2label was not set."""
        if name not in self.known:
            try:
                self.known[name] = int(match_label_space(self.names, LabelSpace((name,))).spellings[name])
            except RailkdError:
                self.known[name] = {str(key): int(index) for key, index in self.ids.items()}.get(name)
        return self.known[name]
