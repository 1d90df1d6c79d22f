"""Handle signals of the operating system for the duration of a block."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def handling(names: Sequence[str], handle: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """Call a function when a signal arrives inside the block.

    A signal that the process ignores at the start stays ignored. Examples are SIGINT in a background job of a script
    and SIGHUP under nohup. Only the main thread may install handlers; in other threads the block runs without them. A
    forked process inherits the handlers, but ends at these signals as if it had none.

    Args:
        names: of the signals. Those that the platform lacks are left out, as SIGHUP is on Windows.
        handle: receives the number of a signal.

    Yields:
        A function that restores the previous handlers before the block ends.
    """
    before: dict[int, Any] = {}
    owner = os.getpid()

    def handler(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            handle(number)
        else:  # a forked data loader worker
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        honoured = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        before.update({number: signal.signal(number, handler) for number in honoured})
    try:
        yield restore
    finally:
        restore()
