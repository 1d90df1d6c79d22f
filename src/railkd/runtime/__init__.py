"""The machine a job runs on: hardware, processes of one job, progress bars, files and the environment.

The public names; each is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from railkd.runtime.faces import lazy

if TYPE_CHECKING:
    from railkd.runtime.hardware import fast_bf16

__all__ = ["fast_bf16"]

__getattr__, __dir__ = lazy(__name__, {"fast_bf16": "railkd.runtime.hardware"})
