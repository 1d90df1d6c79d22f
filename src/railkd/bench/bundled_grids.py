"""The grids that come with railkd, to be copied and edited."""

from __future__ import annotations

from importlib import resources
from typing import Any

from railkd.errors import RailkdError, did_you_mean


def list_grids() -> list[str]:
    """Return the names of the bundled grids, sorted."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def read_grid(name: str) -> str:
    """Return the text of a bundled grid.

    Args:
        name: one of `list_grids`.

    Raises:
        RailkdError: no bundled grid has this name.
    """
    names = list_grids()
    if name not in names:
        raise RailkdError(f"--copy: expected one of {', '.join(names)}, got '{name}'.{did_you_mean(name, names)}")
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def _folder() -> Any:
    return resources.files("railkd.bench") / "grids"
