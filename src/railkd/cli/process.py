"""Prepare the process of a command: its standard streams and its signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

#: Signals that end a command in order. SIGHUP comes when a terminal is closed; Windows lacks it.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


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
    """Raise `Terminated` inside the block at SIGTERM or SIGHUP.

    A signal that was ignored at the start, as SIGHUP is under nohup, stays ignored. Only the main thread may install
    handlers; in other threads the block runs without them.

    Yields:
        Nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked data loader worker inherits the handler; it must end as if it had none
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Terminated

    honoured = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, terminate) for number in honoured}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
