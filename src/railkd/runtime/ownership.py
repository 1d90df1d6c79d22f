"""Keep a list of the files that railkd wrote into a folder, and a lock.

railkd deletes, renames and overwrites only files on the list. The file of the list marks a folder as one of railkd. The
folder of another program has no mark, whatever the names of its files are.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from railkd.errors import RailkdError
from railkd.runtime.files import write_json

#: The mark of a folder, with its list, and the lock file.
MARK, LOCK = "files.json", ".lock"
_FORMAT = "railkd folder"


class Ledger:
    """The list of the files that railkd wrote in a folder.

    A file is put on the list before it is written, so that what a killed process left is known too.

    Args:
        folder: it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self) -> bool:
        """Return whether the folder bears the mark of railkd."""
        return bool(self._read())

    def names(self) -> set[str]:
        """Return the files on the list, as paths relative to the folder; no such path leaves the folder."""
        names = map(PurePosixPath, self._read().get("files", ()))
        return {str(name) for name in names if not name.is_absolute() and ".." not in name.parts}

    def facts(self) -> dict[str, Any]:
        """Return what was noted beside the list."""
        return dict(self._read().get("started with", {}))

    def add(self, *names: str) -> None:
        """Put files on the list, and give the folder the mark.

        Args:
            names: relative to the folder, with slashes.
        """
        known = self.names()
        if not known.issuperset(names) or not self.exists():
            self._write(known | set(names), self.facts())

    def note(self, facts: dict[str, Any]) -> None:
        """Note facts beside the list, in place of those noted before.

        Args:
            facts: plain values by name.
        """
        self._write(self.names(), facts)

    def owns(self, path: Path) -> bool:
        """Return whether a path is a file that railkd wrote: on the list, and neither a link nor behind one.

        Args:
            path: in the folder.
        """
        return path.relative_to(self.folder).as_posix() in self.names() and self._is_plain(path)

    def foreign(self, places: Iterable[Path]) -> list[Path]:
        """Return what stands at places where railkd writes, and was not written by it.

        Args:
            places: files and folders in the folder; they need not exist.

        Returns:
            Files and links, and folders that are empty.
        """
        names, found = self.names(), []
        for path in (path for place in places for path in _within(place)):
            if path.relative_to(self.folder).as_posix() not in names or not self._is_plain(path):
                found.append(path)
        return found

    def remove(self, names: Iterable[str] | None = None) -> None:
        """Delete files on the list, and the folders that are empty then.

        Args:
            names: those of them to delete; None: all, and the mark.
        """
        known = self.names()
        chosen = known if names is None else known & set(names)
        paths = [self.folder / name for name in sorted(chosen)]
        for path in filter(self._is_plain, paths):
            path.unlink(missing_ok=True)
        for parent in sorted({parent for path in paths for parent in self._parents(path)}, reverse=True):
            with contextlib.suppress(OSError):  # something else is in it
                parent.rmdir()
        if names is not None:
            self._write(known - chosen, self.facts())
        elif self.exists():
            (self.folder / MARK).unlink()

    def _is_plain(self, path: Path) -> bool:
        return path.is_file() and not any(part.is_symlink() for part in (path, *self._parents(path)))

    def _parents(self, path: Path) -> list[Path]:
        return [parent for parent in path.parents if self.folder in parent.parents]

    def _read(self) -> dict[str, Any]:
        path = self.folder / MARK
        try:
            held = json.loads(path.read_bytes()) if not path.is_symlink() else None
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(held, dict) or held.get("format") != _FORMAT:
            return {}
        sound = isinstance(held.get("files"), list) and all(isinstance(name, str) for name in held["files"])
        return held if sound and isinstance(held.get("started with"), dict) else {}

    def _write(self, names: set[str], facts: dict[str, Any]) -> None:
        write_json(self.folder / MARK, {"format": _FORMAT, "started with": facts, "files": sorted(names)})


def _within(place: Path) -> Iterator[Path]:
    """Yield a file or link itself; for a folder, yield the files, links and empty folders below it."""
    inside = sorted(place.iterdir()) if place.is_dir() and not place.is_symlink() else []
    if inside:
        for path in inside:
            yield from _within(path)
    elif os.path.lexists(place):
        yield place


@contextmanager
def hold(folder: Path, busy: str) -> Iterator[None]:
    """Hold the lock of a folder. It is free again when the process that holds it ends, however it ends.

    Args:
        folder: made if it does not exist.
        busy: the message if another process holds the lock.

    Yields:
        Nothing.

    Raises:
        RailkdError: another process holds the lock, or a file that is no lock has its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RailkdError(busy) from None
    try:
        yield
    finally:
        lock.release()


def lock_of(folder: Path) -> FileLock:
    """Return the lock of a folder.

    Args:
        folder: that exists.

    Returns:
        The lock, not yet held.

    Raises:
        RailkdError: a file that is no lock has its name.
    """
    path = folder / LOCK
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file() or path.stat().st_size):
        raise RailkdError(
            f"'{path}' is not a lock of railkd: expected an empty file. Fix: move it elsewhere, or name another folder"
        )
    return FileLock(path)


def check_writable(path: Path, flag: str) -> None:
    """Refuse a folder that this user may not write into, before any work is done for it.

    Args:
        path: the folder, or where it will be created.
        flag: that named it.

    Raises:
        RailkdError: the message names the owner of the folder.
    """
    above = next((parent for parent in (path, *path.absolute().parents) if parent.is_dir()), path)
    if not os.access(above, os.W_OK | os.X_OK):
        raise RailkdError(
            f"{flag}: '{above}' belongs to {_owner(above)}, and this user may not write into it. Fix: name another "
            f"{flag}"
        )


def check_may_read(folder: Path, flag: str) -> None:
    """Refuse a folder that this user may not list, or that holds files that this user may not read.

    Args:
        folder: that exists.
        flag: that named it.

    Raises:
        RailkdError: the message names the path and its owner.
    """
    closed = [folder] if not os.access(folder, os.R_OK | os.X_OK) else []
    closed = closed or [path for path in sorted(folder.iterdir()) if path.is_file() and not os.access(path, os.R_OK)]
    for path in closed[:1]:
        raise RailkdError(
            f"{flag}: '{path}' belongs to {_owner(path)}, and this user may not read it. Fix: ask for 'chmod -R a+rX "
            f"{folder}', or name another {flag}"
        )


def _owner(path: Path) -> str:
    try:
        return f"the user '{path.owner()}'"
    except (KeyError, OSError, NotImplementedError):
        return f"user number {path.stat().st_uid}"
