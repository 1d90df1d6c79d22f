"""Counts values that the host reads from tensors, and says whose line of code read them.

On a device each such read makes the host wait. On a CPU nothing waits, so they are counted instead, and the same count
holds for every device.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import accelerate
import torch
import transformers
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import railkd

#: Operations whose result, or its size, the host must know: `.item()`, `bool(...)` and `float(...)` are the first.
READS = frozenset({"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"})
#: Methods that hand a whole tensor to the host. On a CPU they run no operation.
COPIES = frozenset({"tolist", "numpy", "cpu", "__array__"})

_HOMES = {
    module.__name__: str(Path(module.__file__ or "").parent) + os.sep for module in (railkd, transformers, accelerate)
}


def reader(depth: int = 1) -> tuple[str, str]:
    """Return (package, "file.py:line") of the innermost frame of railkd, transformers or accelerate, else "other"."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        path = frame.f_code.co_filename
        for package, home in _HOMES.items():
            if path.startswith(home):
                place = Path(path).relative_to(home).as_posix()
                return package, f"{package}/{place}:{frame.f_lineno}"
        frame = frame.f_back
    return "other", "other"


class HostReads:
    """Context manager that counts reads made inside it, of its own thread.

    Attributes:
        found: how often, by (package, operation, "file.py:line").
    """

    def __init__(self) -> None:
        self.found: Counter[tuple[str, str, str]] = Counter()
        self._modes = (_Operations(self._note), _Methods(self._note))

    def __enter__(self) -> HostReads:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def count(self, package: str, names: Iterable[str] = READS) -> int:
        """Return the number of reads by a package's own lines; ``names``: which operations or methods count."""
        wanted = frozenset(names)
        return sum(number for (who, name, _), number in self.found.items() if who == package and name in wanted)

    def _note(self, name: str) -> None:
        package, place = reader(3)
        self.found[package, name, place] += 1


class _Operations(TorchDispatchMode):
    def __init__(self, note: Any) -> None:
        super().__init__()
        self._note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.").split(".")[0]
        if name in READS or (name == "index" and _by_mask(args)):
            self._note("nonzero" if name == "index" else name)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, note: Any) -> None:
        super().__init__()
        self._note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in COPIES:
            self._note(name)
        return func(*args, **(kwargs or {}))


def _by_mask(args: Any) -> bool:
    """True where a tensor is indexed by a mask: the size of the result is a value on the device."""
    return len(args) > 1 and any(
        isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8) for part in args[1]
    )
