"""Say in one line that a disk is full. Each library has an error of its own for it, and most name no folder."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from railkd.errors import RunFailed
from railkd.runtime.words import size

_FULL = {getattr(errno, name) for name in ("ENOSPC", "EFBIG", "EDQUOT") if hasattr(errno, name)}
#: Rust libraries (safetensors, tokenizers) write the number of the error, torch does not tell which error it met.
_RUST = re.compile(r"\(os error (\d+)\)")
_TORCH = re.compile(r"inline_container\.cc|PytorchStreamWriter|file write failed")


class DiskFull(RunFailed):
    """Raised if a file cannot be written because its disk, a quota or a limit on the size of files is exhausted."""


def is_full(error: BaseException) -> bool:
    """Return True if an error says that a disk is full, whatever library raised it.

    Args:
        error: of Python, torch, safetensors or tokenizers.

    Returns:
        The answer. An error of torch's writer counts, because it has no other cause worth a name.
    """
    if isinstance(error, OSError):
        return error.errno in _FULL
    number = _RUST.search(str(error))
    return int(number[1]) in _FULL if number else bool(_TORCH.search(str(error)))


@contextmanager
def told(folder: Path, what: str, needed: Callable[[], int]) -> Iterator[None]:
    """Raise `DiskFull` if the ``with`` block finds the disk full. Other errors pass.

    Args:
        folder: that is written into.
        what: is written, for the message.
        needed: returns its bytes, about.

    Yields:
        Nothing.
    """  # noqa: DOC501 - other errors pass
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        above = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
        raise DiskFull(
            f"Cannot write into '{folder}': its disk is full, or a quota or a limit on file sizes is reached. {what} "
            f"needs {size(needed())}, and {size(shutil.disk_usage(above).free)} are free. Fix: free space"
        ) from error
