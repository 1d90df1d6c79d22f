"""Reads a text file as UTF-8, unpacked as a stream, and within the memory of this machine."""

from __future__ import annotations

import codecs
import contextlib
import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from railkd.data.packed import open_unpacked, packing_of
from railkd.errors import RailkdError
from railkd.runtime.words import size

#: Bytes that are read at once: of a file that is read whole, and of one that is read line by line.
_CHUNK, _PIECE = 1 << 22, 1 << 16
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


def read_bytes(path: Path) -> bytes:
    """Return the content of a file of text, unpacked.

    Args:
        path: of the file.

    Returns:
        Its bytes. `RailkdError` says that they are of another encoding than UTF-8, not complete, or larger than memory.
    """
    return b"".join(_chunks(path, memory_limit()))


def decoded(path: Path, data: bytes) -> str:
    """Return the content of a file as text without a byte order mark.

    Args:
        path: of the file, for messages.
        data: its content.

    Returns:
        Its text, which is not blank.

    Raises:
        RailkdError: the file is not UTF-8, or blank.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind the byte order mark.
        at = error.start + len(data) - len(error.object)
        raise RailkdError(_not_utf8(path, data[at], at, data.count(b"\n", 0, at) + 1)) from None
    if not text.strip():
        raise RailkdError(f"{path}: expected a header line and rows, got an empty file.")
    return text


def text_lines(path: Path, newline: str) -> Iterator[str]:
    """Yield the lines of a file of any size; see `decoded`.

    Args:
        path: of the file.
        newline: as for `open`: which marks end a line.

    Yields:
        Lines with the marks at their ends.

    Raises:
        RailkdError: the file is not UTF-8, or blank.
    """
    pieces = _Pieces(_chunks(path, None, _PIECE))
    blank: list[str] | None = []  # the blank lines before the first other one
    try:
        with io.TextIOWrapper(io.BufferedReader(pieces, _PIECE), encoding="utf-8-sig", newline=newline) as lines:
            for line in lines:
                if blank is not None and not line.strip():
                    blank.append(line)
                    continue
                yield from blank or ()
                blank = None
                yield line
    except UnicodeDecodeError:
        raise RailkdError(_find_damage(path)) from None
    if blank is not None:
        raise RailkdError(f"{path}: expected a header line and rows, got an empty file.")


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _find_damage(path: Path) -> str:
    """Return the message for a file that is not UTF-8, with the place."""
    decoder, before, line = codecs.getincrementaldecoder("utf-8")(), 0, 1
    for chunk in itertools.chain(_chunks(path, None), [b""]):
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            held = len(error.object) - len(chunk)  # bytes of the chunk before
            at = before - held + error.start
            line += chunk.count(b"\n", 0, max(0, error.start - held))
            return _not_utf8(path, error.object[error.start], at, line)
        before, line = before + len(chunk), line + chunk.count(b"\n")
    return f"{path}: is not UTF-8. Fix: convert the file from its encoding."


def _not_utf8(path: Path, byte: int, at: int, line: int) -> str:
    return (
        f"{path}: byte 0x{byte:02x} at offset {at} (line {line}) is not UTF-8. "
        "Fix: convert the file from its encoding, e.g. iconv -f latin1 -t utf-8."
    )


def _chunks(path: Path, limit: int | None, piece: int = _CHUNK) -> Iterator[bytes]:
    """Yield the bytes of a file, unpacked, piece by piece; at most so many, unless the limit is None."""
    packed, total = path.stat().st_size, 0
    if limit is not None and packed > limit:
        raise RailkdError(too_large(path, packed))
    with open_unpacked(path) as file:
        while chunk := file.read(piece):
            total += len(chunk)
            if _ZEROS in chunk:
                raise RailkdError(
                    f"{path}: expected text, got a run of zero bytes before offset {total}. The file is damaged, "
                    "sparse or no text. Fix: write it again."
                )
            if packing_of(path) and total > max(MOST_UNPACKED, MOST_RATIO * packed):
                raise RailkdError(
                    f"{path}: {size(packed)} unpack to more than {MOST_RATIO} times their size. "
                    "Fix: unpack the file yourself if you trust it."
                )
            if limit is not None and total > limit:
                raise RailkdError(too_large(path, total))
            if total == len(chunk):
                _refuse_other_encodings(path, chunk)
            yield chunk


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
