"""The one kind of error a user is meant to read: what was got, what was wanted, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class RailkdError(ValueError):
    """Bad input: a file, a column, a name or a number that railkd cannot work with.

    The command line prints the message alone, without a traceback, and exits with code 2.
    It is a ``ValueError`` so that library users need no import to catch it.
    """


class RunFailed(Exception):
    """What ran and failed, in words: the command line prints the message alone and exits with code 1."""


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, or an empty string.

    >>> did_you_mean("rail-kd", ["kd", "rail-kd-l"])
    " Did you mean 'rail-kd-l'?"
    """
    near = difflib.get_close_matches(got, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


class Problems:
    """Collects what is wrong; `report` raises it as one error of at most two lines.

    Args:
        where: what all of them are about, such as a file.
    """

    def __init__(self, where: str = "") -> None:
        self.found: list[str] = []
        self.where = where

    def add(self, message: str) -> None:
        self.found.append(message)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep a `RailkdError` raised inside."""
        try:
            yield
        except RailkdError as error:
            self.found.append(str(error))

    def required(self, options: Any, *names: str) -> None:
        """Settings that must be given."""
        missing = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) in (None, "", [])]
        if missing:
            self.add(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; see --help for an example"
            )

    def report(self) -> None:
        """Raise, if there is anything to say."""
        if self.found:
            first, *others = dict.fromkeys(self.found)
            prefix = f"{self.where}: " if self.where else ""
            raise RailkdError(prefix + first + (f"\nalso: {'; '.join(others)}" if others else ""))
