"""Records of runs into one page: records -> statistics -> one plain dict -> HTML, Markdown, CSV. Without torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from railkd.errors import RailkdError
from railkd.runtime.words import listed


def require_extra(find: Callable[[str], Any] = find_spec) -> None:
    """What the page is written and drawn with is there; ``find`` tells, by name."""
    gone = [name for name in ("jinja2", "matplotlib") if find(name) is None]
    if gone:
        raise RailkdError(
            f"the page needs {listed(gone)}, not installed here; wanted: pip install 'railkd[report]' "
            "(--markdown and --csv do without)"
        )
