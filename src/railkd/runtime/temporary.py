"""Temporary folders that last until the process ends."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

_folders: list[Path] = []


def temporary_folder() -> Path:
    """Return a new folder, which is deleted when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="railkd-"))
    _folders.append(folder)
    return folder


@atexit.register
def delete_temporary_folders() -> None:
    """Delete them all. A process that leaves without Python's clean-up calls this first."""
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)
