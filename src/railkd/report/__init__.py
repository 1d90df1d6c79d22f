"""Turn the records of runs into a report: records -> statistics -> one plain dict -> HTML, Markdown, CSV. No torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from railkd.errors import RailkdError
from railkd.runtime.words import listed


def require_extra(find: Callable[[str], Any] = find_spec) -> None:
    """Check that the libraries of the HTML page are installed.

    Args:
        find: returns None for the name of a module that is not installed.

    Raises:
        RailkdError: jinja2 or matplotlib is not installed.
    """
    missing = [name for name in ("jinja2", "matplotlib") if find(name) is None]
    if missing:
        raise RailkdError(
            f"The HTML page needs {listed(missing)}. Fix: pip install 'railkd[report]', or write --markdown and "
            "--csv, which do not need it."
        )
