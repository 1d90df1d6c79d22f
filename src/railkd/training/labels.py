"""Labels of training rows: cells to class numbers, vectors or numbers of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from railkd.data.labels import LabelSpace, is_missing, label_name, match_label_space
from railkd.errors import RailkdError
from railkd.functional import UNLABELLED
from railkd.models.heads import label_names
from railkd.training.pairing import _unnamed


class _Classes:
    """Labels to indices of a student's outputs. Text is a name, a whole number an index: so do datasets keep them.

    Args:
        config: the student's. names: of a ClassLabel column, whose numbers mean these names and not the student's.
    """

    def __init__(self, config: Any, names: Sequence[str] | None = None) -> None:
        self.config, self.names = config, label_names(config)
        self.known: dict[str, int | None] = {}
        self.of_class = names is not None
        self.by_name = list(names) if names is not None else None
        # A student that kept LABEL_0, LABEL_1, ... has no names to go by: the order is all there is.
        in_order = names is not None and _unnamed(self.names) and len(names) == len(self.names)
        if in_order and any(self._named(name) is None for name in names or ()):
            self.by_name = None

    def index(self, value: Any) -> int:
        """Of one label; missing ones (None, NaN, an empty text, -100) are marked as such.

        Raises:
            ValueError: a label that the student does not know.
        """
        if is_missing(value) or value == UNLABELLED or (isinstance(value, float) and math.isnan(value)):
            return UNLABELLED
        given = value
        if not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        ):
            value = int(value)
            if value < 0 and self.of_class:  # datasets' own mark of a missing ClassLabel
                return UNLABELLED
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
                self.known[name] = {str(key): int(index) for key, index in self.config.label2id.items()}.get(name)
        return self.known[name]
