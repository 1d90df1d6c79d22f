"""Faces of packages: names are imported from their files when they are first used, so that a face costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package that hands out names from elsewhere.

    Args:
        package: its ``__name__``.
        homes: name -> module that defines it.

    >>> get, names = lazy("shapes", {"sqrt": "math"})
    >>> get("sqrt")(9.0), names()
    (3.0, ['sqrt'])
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name]), name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get, lambda: sorted(homes)
