"""Write files that are complete or absent."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from railkd.runtime.disk import told

#: What systems answer that cannot open or sync a folder.
_NO_SYNC_OF_FOLDERS = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.EBADF, errno.EISDIR, errno.ENOTSUP, errno.ENOSYS}
_TEMPORARY = re.compile(r"(\..+\.[0-9a-f]+)\.([0-9a-f]{8})\.tmp", re.DOTALL)


def temporary_beside(target: Path, number: int | None = None) -> Path:
    """Return a new name in the folder of a target, for what is written before it is renamed to the target.

    The name is random, so nobody can put a link there in advance. It ends with check digits, by which `is_temporary`
    knows what a killed process left.

    Args:
        target: what the temporary file or folder becomes.
        number: takes the place of the random number, where several processes must agree on the name.

    Returns:
        A path such as ``.metrics.json.53b1c0d9a2e4.0d4a1f0b.tmp``. Nothing is created.
    """
    stem = f".{target.name[:50]}.{secrets.randbits(47) if number is None else number:012x}"
    return target.with_name(f"{stem}.{zlib.crc32(stem.encode(errors='surrogateescape')):08x}.tmp")


def is_temporary(path: Path) -> bool:
    """Return whether a name was made by `temporary_beside`. Other files may end in ``.tmp`` too.

    Args:
        path: whose last part is looked at.

    Returns:
        True if the check digits of the name fit.
    """
    found = _TEMPORARY.fullmatch(path.name)
    return found is not None and zlib.crc32(found[1].encode(errors="surrogateescape")) == int(found[2], 16)


def write_bytes(path: str | Path, data: bytes, *, durable: bool = False) -> None:
    """Write a temporary file beside the target and rename it, so that the target is complete or absent.

    The temporary name is random and its file must be new, so a link that someone placed there is never followed and two
    writers never share a file. The file gets the permissions that `open` would give it.

    `OSError` is raised if the folder is missing or not writable, and `railkd.runtime.disk.DiskFull` if the disk is
    full. No temporary file is left behind then.

    Args:
        path: the target; a file that stands there is replaced.
        data: its content.
        durable: return only when the content and the name survive a power failure.
    """
    with written(path, durable=durable, size=len(data)) as file:
        file.write(data)


@contextmanager
def written(path: str | Path, *, durable: bool = False, size: int | None = None) -> Iterator[BinaryIO]:
    """Write a file piece by piece, so that it is complete or absent; see `write_bytes`.

    Args:
        path: the target; a file that stands there is replaced when the ``with`` block ends without an error.
        durable: leave the block only when the content and the name survive a power failure.
        size: of the content in bytes, for the message about a full disk; None: what was written until then.

    Yields:
        The temporary file to write to.
    """
    target = Path(path)
    temporary = temporary_beside(target)
    try:
        with told(target.parent, target.name, lambda: temporary.stat().st_size if size is None else size):
            with temporary.open("xb") as file:  # "x" refuses whatever has this name, a link included
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync(target.parent)


def write_text(path: str | Path, text: str, *, durable: bool = False) -> None:
    """Write text as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode(), durable=durable)


def write_json(path: str | Path, value: Any, *, indent: int | None = 1) -> None:
    """Write a value as JSON, with a line break at the end; see `write_bytes`."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


@contextmanager
def usual_permissions(folder: Path) -> Iterator[None]:
    """Give the files that the ``with`` block writes into a folder the permissions that `open` gives.

    safetensors 0.8 writes files that only their owner may read, whatever the umask is. A file that stood there before
    keeps its own permissions.

    Args:
        folder: files in folders below it are left alone.

    Yields:
        Nothing.
    """
    before = {path.name: path.stat().st_mode & 0o777 for path in _files_in(folder)}
    yield
    probe = temporary_beside(folder / "probe")
    probe.touch(exist_ok=False)
    usual = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in _files_in(folder):
        wanted = before.get(path.name, usual)
        if path.stat().st_mode & 0o777 != wanted:
            path.chmod(wanted)


def _files_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_file() and not path.is_symlink())


def sync(path: Path) -> None:
    """Return when a file, or the list of names in a folder, is on the disk itself.

    Windows cannot open a folder, and some network file systems cannot sync one; they keep its names by their own rules.

    Args:
        path: of a file or folder.

    Raises:
        OSError: the disk fails, or something else does.
    """
    folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY if folder else _to_sync(path))
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not (folder and error.errno in _NO_SYNC_OF_FOLDERS):
            raise


def _to_sync(path: Path) -> int:
    # Windows syncs only what is open for writing.
    return os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY


def sync_all(folder: Path) -> None:
    """Sync a folder and everything below it."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
