"""Reads a text file as UTF-8, unpacked as a stream, and within the memory of this machine."""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from railkd.errors import RailkdError
from railkd.runtime.words import size

_CHUNK = 1 << 22
#: Text shrinks to a tenth, tables of numbers to a hundredth. A larger ratio is the mark of a file made to fill memory.
MOST_UNPACKED, MOST_RATIO = 64 << 20, 200
_ZEROS = bytes(1024)
#: Longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def memory_limit() -> int:
    """Return how many bytes of text may be read: a third of what this process may use, because text becomes objects."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    with contextlib.suppress(OSError, ValueError):  # There may be no such limit, or it is "max".
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [soft] if soft != resource.RLIM_INFINITY else []
    except ImportError:  # Windows has no such limit.
        pass
    return min(found, default=64 << 30) // 3


def too_large(path: Path, read: int) -> str:
    """Return the message for a file that does not fit in memory.

    Args:
        path: of the file.
        read: bytes of its content, as far as they are known.
    """
    return (
        f"{path}: {size(path.stat().st_size)} on disk with a content of {size(read)} or more do not fit in memory "
        f"(at most {size(memory_limit())} do). Fix: split the file, or check that it is what it should be."
    )


def read_text(path: Path) -> str:
    """Return a UTF-8 file as text without a byte order mark; a file named .gz is decompressed.

    Args:
        path: of the file.

    Returns:
        Its text, which is not blank.

    Raises:
        RailkdError: the file is not UTF-8, not a complete gzip file, blank, or larger than memory.
    """
    data = b"".join(_chunks(path))
    _refuse_other_encodings(path, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind the byte order mark.
        at = error.start + len(data) - len(error.object)
        line = data.count(b"\n", 0, at) + 1
        raise RailkdError(
            f"{path}: byte 0x{data[at]:02x} at offset {at} (line {line}) is not UTF-8. "
            "Fix: convert the file from its encoding, e.g. iconv -f latin1 -t utf-8."
        ) from None
    if not text.strip():
        raise RailkdError(f"{path}: expected a header line and rows, got an empty file.")
    return text


def _chunks(path: Path) -> Iterator[bytes]:
    packed, limit, total = path.stat().st_size, memory_limit(), 0
    zipped = path.name.lower().endswith(".gz")
    if packed > limit:
        raise RailkdError(too_large(path, packed))
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total += len(chunk)
                if _ZEROS in chunk:
                    raise RailkdError(
                        f"{path}: expected text, got a run of zero bytes before offset {total}. The file is damaged, "
                        "sparse or no text. Fix: write it again."
                    )
                if zipped and total > max(MOST_UNPACKED, MOST_RATIO * packed):
                    raise RailkdError(
                        f"{path}: {size(packed)} unpack to more than {MOST_RATIO} times their size. "
                        "Fix: unpack the file yourself if you trust it."
                    )
                if total > limit:
                    raise RailkdError(too_large(path, total))
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise RailkdError(
            f"{path}: not a complete gzip file. Fix: compress it again, or remove .gz from its name if it is text."
        ) from None


def _refuse_other_encodings(path: Path, data: bytes) -> None:
    """Refuse UTF-16 and UTF-32, by the byte order mark or by the zero bytes between letters."""
    found = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    start = data[:400]
    if found is None and len(start) > 3 and max(start[::2].count(0), start[1::2].count(0)) > len(start) // 5:
        found = "UTF-32" if start.count(0) > len(start) // 2 else "UTF-16"
    if found:
        raise RailkdError(
            f"{path}: expected UTF-8, got {found}. Fix: iconv -f {found} -t UTF-8, or save the file as UTF-8."
        )
