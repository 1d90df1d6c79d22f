"""Read the variables that torchrun and accelerate set for the processes of one job. Needs no torch."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Return True in the process of rank 0, and in one without a launcher."""
    return os.environ.get("RANK", "0") == "0"


def launched_processes() -> int:
    """Return the number of processes that the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))
