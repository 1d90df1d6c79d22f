"""Prepare the process of a command: its standard streams and its signals."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from railkd.runtime.handlers import handling


class Terminated(BaseException):
    """Raised by SIGTERM and SIGHUP, so that jobs leave through their ``finally`` clauses.

    No ``except Exception`` catches it.
    """


class _LastingStream:
    """Writes to a stream until it fails, and then nowhere: a closed terminal or pipe must not end a long job.

    Args:
        stream: such as stderr.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make the standard streams usable inside the block.

    A stream that was closed before the start is replaced by one that writes nowhere. Otherwise ``print`` to a closed
    stderr would write to stdout, and the next file that is opened would get the number of the closed stream. Messages
    to stderr never fail. A failure of stdout is raised, because results would be lost.

    Yields:
        Nothing.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    if None in before:
        for number in range(3):
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    with open(os.devnull) as source, open(os.devnull, "w") as nowhere:
        sys.stdin = sys.stdin or source
        sys.stdout = sys.stdout or nowhere
        sys.stderr = _LastingStream(sys.stderr or nowhere)
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = before


@contextmanager
def termination() -> Iterator[None]:
    """Raise `Terminated` inside the block at SIGTERM or SIGHUP, which comes when a terminal is closed.

    Yields:
        Nothing.
    """

    def terminate(number: int) -> None:
        raise Terminated

    with handling(("SIGTERM", "SIGHUP"), terminate):
        yield
