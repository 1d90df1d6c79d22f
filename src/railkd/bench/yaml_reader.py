"""Validates values from YAML: records each problem and returns a placeholder, so that all are reported together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from railkd.errors import Problems, did_you_mean
from railkd.jobs.settings import shown


def slugify(name: str) -> str:
    """Return a name as a part of a folder's name, with other characters as dashes.

    Args:
        name: of a task, teacher, student or arm.

    Example:
        >>> slugify("rail-kd-l redraw=step"), slugify("<b>")
        ('rail-kd-l-redraw=step', 'b')
    """
    return re.sub(r"[^\w.=]+", "-", name).strip("-.")[:80] or "x"


class YamlReader:
    """Validates values and collects the problems.

    The parameter ``where`` of its methods is the place in the file that a problem is reported for, such as
    ``tasks.RTE``.

    Args:
        path: of the file, for the error.
    """

    def __init__(self, path: str) -> None:
        self.problems = Problems(path)

    def read_mapping(self, value: Any, where: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """Return a mapping whose keys are text, with underscores for dashes.

        Args:
            value: from YAML. None counts as an empty mapping.
            where: place in the file. Keys of ``tasks`` are names and keep their dashes.
            keys: the known keys; others are a problem. None: any key.

        Returns:
            The mapping without keys that are no text; empty if ``value`` is no mapping.
        """
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.problems.add(f"{where}: expected a mapping, with lines such as 'name: value', got {shown(value)}")
            return {}
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            self.problems.add(f"{where}: expected text as the key, got {shown(odd[0])}")
        named = {key: item for key, item in value.items() if isinstance(key, str)}
        if where != "tasks":
            named = {key.replace("-", "_"): item for key, item in named.items()}
        if keys is not None:
            self.check_known(named, tuple(keys), where)
        return named

    def check_known(self, given: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
        """Report keys that are not known, with the nearest known key.

        Args:
            given: what the user wrote.
            keys: the known keys.
            where: place in the file; empty at the top.
        """
        for key in given:
            if key not in keys:
                inside = f"{where}: " if where else ""
                self.problems.add(
                    f"{inside}unknown key '{key}'.{did_you_mean(key, keys) or ' Known keys: ' + ', '.join(keys)}"
                )

    def check_missing(self, given: Mapping[str, Any], *keys: str, where: str = "") -> None:
        """Report keys that are missing or empty.

        Args:
            given: what the user wrote.
            *keys: the keys that must be given.
            where: place in the file; empty at the top.
        """
        inside = f"{where}: " if where else ""
        for key in keys:
            if given.get(key) in (None, "", [], {}):
                self.problems.add(
                    f"{inside}'{key}' is missing. Fix: see the example that railkd bench --copy smoke writes"
                )

    def as_list(self, value: Any) -> list[Any]:
        """Return a list as it is, None as an empty list, and another value as a list of that one value.

        Args:
            value: from YAML.
        """
        return value if isinstance(value, list) else [] if value is None else [value]

    def read_text(self, value: Any, where: str) -> str:
        """Return text or a number as text.

        Args:
            value: from YAML. None is no problem here: `check_missing` reports it.
            where: place in the file.

        Returns:
            The text; empty if ``value`` is something else.
        """
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value).strip():
            return str(value)
        if value is not None:
            self.problems.add(f"{where}: expected text, got {shown(value)}")
        return ""

    def unique_names(self, given: Sequence[str], where: str) -> list[str]:
        """Report names that occur twice, or that differ only in case and characters that folders replace.

        Args:
            given: the names.
            where: place in the file.

        Returns:
            The names without the repeated ones.
        """
        seen: dict[str, str] = {}
        for name in given:
            key = slugify(name).casefold()
            if key in seen:
                same = f"'{name}' occurs twice" if seen[key] == name else f"'{seen[key]}' and '{name}' are too similar"
                self.problems.add(f"{where}: {same}. Fix: remove or rename one of them")
            seen.setdefault(key, name)
        return list(seen.values())
