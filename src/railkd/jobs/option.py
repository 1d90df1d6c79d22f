"""Declares one option of a job. `railkd.jobs.options` lists the options of each job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

from railkd.errors import RailkdError

DEFAULT_MAX_LENGTH = 128
#: A function that takes a line for the user.
Say = Callable[[str], None]


def option(help: str, default: Any = None, **metadata: Any) -> Any:
    """Return a dataclass field with its help text.

    Args:
        help: the line that ``--help`` shows.
        default: of the field; a list is copied for each instance.
        metadata: ``choices`` and ``metavar``, as HfArgumentParser keeps them; ``group``, the heading in ``--help``;
            ``required``, true if the job cannot run without it, or the flags (A or B) that can stand in its place;
            ``single``, true for a list of which the job takes one value; ``repeats``, true for a value that may also be
            a list of several.
    """
    metadata["help"] = help
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def required(value: Any, flag: str) -> Any:
    """Return a value that a job needs.

    Args:
        value: of the option.
        flag: of the command line, for the message.

    Raises:
        RailkdError: the value is missing.
    """
    if value in (None, "", []):
        raise RailkdError(f"{flag} is missing. Fix: see the example in --help")
    return value
