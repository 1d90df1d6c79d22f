"""Plain checks of what YAML gave: what does not fit is noted, and something that fits is returned."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from railkd.errors import Problems, did_you_mean
from railkd.jobs.settings import shown


def slug(name: str) -> str:
    """A name as part of a folder's: other characters become dashes.

    >>> slug("rail-kd-l redraw=step"), slug("<b>")
    ('rail-kd-l-redraw=step', 'b')
    """
    return re.sub(r"[^\w.=]+", "-", name).strip("-.")[:80] or "x"


class Reader:
    """Collects problems; ``where`` is the place in the file that they are said of.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        self.problems = Problems(path)

    def mapping(self, value: Any, where: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """A mapping with text for keys, dashes as underscores."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.problems.add(f"{where}: got {shown(value)}, wanted a mapping, with lines such as 'name: value'")
            return {}
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            self.problems.add(f"{where}: the key {shown(odd[0])} is no name; wanted text")
        named = {key: item for key, item in value.items() if isinstance(key, str)}
        if where != "tasks":  # names of tasks stay as they are
            named = {key.replace("-", "_"): item for key, item in named.items()}
        if keys is not None:
            self.known(named, tuple(keys), where)
        return named

    def known(self, given: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
        for key in given:
            if key not in keys:
                inside = f"{where}: " if where else ""
                self.problems.add(
                    f"{inside}unknown key '{key}'.{did_you_mean(key, keys) or ' Known: ' + ', '.join(keys)}"
                )

    def missing(self, given: Mapping[str, Any], *keys: str, where: str = "") -> None:
        for key in keys:
            if given.get(key) in (None, "", [], {}):
                self.problems.add(
                    f"{where + ': ' if where else ''}'{key}' is missing; railkd bench --copy smoke shows how"
                )

    def list_of(self, value: Any, where: str) -> list[Any]:
        return value if isinstance(value, list) else [] if value is None else [value]

    def text(self, value: Any, where: str) -> str:
        """Text; what is missing altogether (None) is said by `missing`."""
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value).strip():
            return str(value)
        if value is not None:
            self.problems.add(f"{where}: got {shown(value)}, wanted text")
        return ""

    def unique(self, given: Sequence[str], where: str) -> list[str]:
        """Names that are there twice are said; those of folders must differ in more than case and odd characters."""
        seen: dict[str, str] = {}
        for name in given:
            key = slug(name).casefold()
            if key in seen:
                same = f"'{name}' is there twice" if seen[key] == name else f"'{seen[key]}' and '{name}' are too alike"
                self.problems.add(f"{where}: {same}; keep one, or rename it")
            seen.setdefault(key, name)
        return list(seen.values())
