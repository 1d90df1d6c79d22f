"""Write files that are complete or absent."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any


def write_bytes(path: str | Path, data: bytes, *, durable: bool = False) -> None:
    """Write a temporary file beside the target and rename it, so that the target is complete or absent.

    The temporary name is random and its file must be new, so a link that someone placed there is never followed and two
    writers never share a file. The file gets the permissions that `open` would give it.

    Args:
        path: the target; a file that stands there is replaced.
        data: its content.
        durable: return only when the content and the name survive a power failure.

    Raises:
        OSError: the folder is missing, not writable or full. Nothing is left behind.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:  # "x" refuses whatever has this name, a link included
            file.write(data)
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


def sync(path: Path) -> None:
    """Return when a file, or the list of names in a folder, is on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(folder: Path) -> None:
    """Sync a folder and everything below it."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
