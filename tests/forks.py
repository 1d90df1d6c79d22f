"""Work in a fork of this process, which has imported the slow libraries already."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


class Fork:
    """A child process that works in a folder. What it prints goes to a file there.

    Args:
        folder: its working directory.
        work: returns the exit code; None means 0.
        name: of the file, without its ending.
    """

    def __init__(self, folder: Path, work: Callable[[], int | None], name: str = "output") -> None:
        self._output = folder / f"{name}.txt"
        self.process = os.fork()
        if self.process == 0:
            code = 99
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)  # Background jobs of a shell ignore it.
                os.chdir(folder)
                sys.stdout = sys.stderr = self._output.open("w", buffering=1)
                code = work() or 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def send(self, number: int) -> None:
        os.kill(self.process, number)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code (negative: a signal) and the output."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return code, self._output.read_text()
