"""Sealed folders: a folder with a list of its files, their sizes and their digests.

A damaged file is found before it is read, and only the files on the list are ever deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import xxhash

from railkd.runtime.files import write_json

#: The list, written last.
SEAL = "files.json"
_FORMAT = "railkd sealed folder"


def seal(folder: Path) -> None:
    """List the files of a folder in `SEAL`.

    Args:
        folder: its files are all written. Folders in it are left out.
    """
    files = {
        path.name: {"bytes": path.stat().st_size, "xxh3": _digest(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != SEAL
    }
    write_json(folder / SEAL, {"format": _FORMAT, "checksum": _checksum(files), "files": files})


def find_damage(folder: Path) -> str | None:
    """Compare the files of a sealed folder with its list. This reads all of them.

    Args:
        folder: any folder. Of one that railkd 0.1.0 wrote, only the sizes are known.

    Returns:
        What is wrong, in words; None if every listed file is as it was written.
    """
    try:
        files = _entries(folder)
        for name, entry in files.items():
            path = folder / Path(name).name
            if path.is_symlink() or not path.is_file():
                return f"{path.name} is missing"
            if path.stat().st_size != entry["bytes"]:
                return f"{path.name} has {path.stat().st_size} bytes instead of {entry['bytes']}"
            if "xxh3" in entry and _digest(path) != entry["xxh3"]:
                return f"{path.name} is damaged: its content is not what was written"
    except OSError as error:
        return f"{Path(error.filename or SEAL).name} cannot be read ({error.strerror})"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return f"it has no {SEAL} that can be trusted"
    return None


def listed(folder: Path) -> set[str]:
    """Return the names on the list of a sealed folder, `SEAL` included.

    Args:
        folder: any folder.

    Returns:
        Names of files; empty if the folder has no list, or one that cannot be trusted.
    """
    try:
        return {SEAL, *_entries(folder)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return set()


def remove(folder: Path, names: set[str]) -> None:
    """Delete files of a folder, and the folder itself if nothing else is in it.

    Args:
        folder: a link is left alone.
        names: of files in it. Links and folders of these names are left alone.
    """
    if folder.is_symlink():
        return
    for name in names:
        path = folder / Path(name).name
        if path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _entries(folder: Path) -> dict[str, Any]:
    path = folder / SEAL
    held: Any = json.loads(path.read_bytes()) if not path.is_symlink() else None
    if held and all(isinstance(size, int) for size in held.values()):
        return {name: {"bytes": size} for name, size in held.items()}  # of railkd 0.1.0
    if held["format"] != _FORMAT or held["checksum"] != _checksum(held["files"]):
        raise ValueError(held["format"])
    return dict(held["files"])


def _checksum(files: dict[str, Any]) -> str:
    return str(xxhash.xxh3_128_hexdigest(json.dumps(files, sort_keys=True).encode()))


def _digest(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return str(hashlib.file_digest(file, xxhash.xxh3_128).hexdigest())
