"""Opens compressed files: gzip, bzip2, xz, Zstandard, and zip archives that hold one file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from railkd.errors import RailkdError
from railkd.runtime.words import listed


def _open_zstd(path: Path) -> Any:
    import pyarrow as pa

    return pa.input_stream(str(path), compression="zstd")


def _open_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = _members(archive)
        if len(names) != 1:
            raise RailkdError(
                f"{path}: expected one file in the archive, got {listed(names) or 'none'}. Fix: unpack it, and name "
                "the file or the folder."
            )
        try:
            return archive.open(names[0])  # it keeps the archive open
        except RuntimeError as error:  # a password, or a method that Python does not know
            raise RailkdError(f"{path}: cannot be unpacked ({error}). Fix: unpack it yourself.") from None


def _members(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the files in a zip archive, without those that macOS adds."""
    names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    return [name for name in names if not name.startswith("__MACOSX/") and not Path(name).name.startswith(".")]


#: Suffix -> the name of the format, and what opens a file of it.
PACKINGS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    ".gz": ("gzip", gzip.open),
    ".bz2": ("bzip2", bz2.open),
    ".xz": ("xz", lzma.open),
    ".zst": ("Zstandard", _open_zstd),
    ".zip": ("zip", _open_zip),
}
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


def packing_of(path: Path) -> str:
    """Return the suffix that names the compression of a file; empty: it has none.

    Args:
        path: of the file, which need not exist.

    Example:
        >>> packing_of(Path("rows.csv.ZST")), packing_of(Path("rows.csv"))
        ('.zst', '')
    """
    suffix = path.suffix.lower()
    return suffix if suffix in PACKINGS else ""


def unpacked_name(path: Path) -> str:
    """Return the name of a file without its compression; of a zip archive, the name of the file that it holds.

    Args:
        path: of the file, which need not exist.

    Example:
        >>> unpacked_name(Path("more/rows.csv.gz"))
        'rows.csv'
    """
    packing = packing_of(path)
    if packing == ".zip":
        with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            if len(names := _members(archive)) == 1:
                return Path(names[0]).name
    return path.name[: -len(packing)] if packing else path.name


@contextlib.contextmanager
def open_unpacked(path: Path) -> Iterator[Any]:
    """Open a file for reading bytes, unpacked as its name says.

    Args:
        path: of the file.

    Yields:
        The file.

    Raises:
        RailkdError: the file is damaged, or is not compressed as its name says.
        OSError: the system cannot read it.
    """
    if not (packing := packing_of(path)):
        with path.open("rb") as file:
            yield file
        return
    name, open_file = PACKINGS[packing]
    try:
        with open_file(path) as file:
            yield file
    except (OSError, *_DAMAGE) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system, and not of the format
            raise
        raise RailkdError(
            f"{path}: not a complete {name} file. Fix: compress it again, or remove {packing} from its name if it is "
            "text."
        ) from None
