"""The one kind of error a user is meant to read: what was got, what was wanted, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RailkdError(ValueError):
    """Bad input: a file, a column, a name or a number that railkd cannot work with.

    The command line prints the message alone, without a traceback, and exits with code 2.
    It is a ``ValueError`` so that library users need no import to catch it.
    """


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, or an empty string.

    >>> did_you_mean("rail-kd", ["kd", "rail-kd-l"])
    " Did you mean 'rail-kd-l'?"
    """
    near = difflib.get_close_matches(got, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
