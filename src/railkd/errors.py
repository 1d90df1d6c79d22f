"""Errors for users. A message says what was expected, what came, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class RailkdError(ValueError):
    """Raised for bad input: a file, a column, a name or a number that railkd cannot use.

    The command line prints the message without a traceback and exits with code 2. It is a ``ValueError``, so library
    users can catch it without an import.
    """


class RunFailed(Exception):
    """Raised if valid input was used but the run failed. The command line prints the message and exits with code 1."""


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """Return a hint with the known name that is most similar.

    Args:
        got: the unknown name.
        known: the known names.

    Returns:
        The hint, with a space before it; empty if no name is similar.

    >>> did_you_mean("rail-kd", ["kd", "rail-kd-l"])
    " Did you mean 'rail-kd-l'?"
    """
    near = difflib.get_close_matches(got, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


class Problems:
    """Collects problems, so that a user sees all of them at once. `report` raises them as one error.

    Args:
        where: the file or setting that all problems are about; the message starts with it.

    Attributes:
        messages: the problems so far.
    """

    def __init__(self, where: str = "") -> None:
        self.messages: list[str] = []
        self.where = where

    def add(self, message: str) -> None:
        """Add a problem.

        Args:
            message: the problem, in words.
        """
        self.messages.append(message)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Add the message of a `RailkdError` raised inside the ``with`` block, and continue after the block.

        Yields:
            Nothing.
        """
        try:
            yield
        except RailkdError as error:
            self.messages.append(str(error))

    def require(self, options: Any, *names: str) -> None:
        """Add a problem if required settings are missing.

        Args:
            options: the settings, as attributes.
            names: names of the required settings.
        """
        missing = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) in (None, "", [])]
        if missing:
            are = "is" if len(missing) == 1 else "are"
            self.add(f"{' and '.join(missing)} {are} missing. Fix: see the example in --help.")

    def report(self) -> None:
        """Raise the problems, if there are any.

        Raises:
            RailkdError: there is at least one problem. The message has one line for the first and one for the others.
        """
        if self.messages:
            first, *others = dict.fromkeys(self.messages)
            prefix = f"{self.where}: " if self.where else ""
            raise RailkdError(prefix + first + (f"\nalso: {'; '.join(others)}" if others else ""))
