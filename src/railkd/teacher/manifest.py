"""The manifest of a cache: which files belong to it, whose numbers they hold, and what they were built with.

A manifest may come from an untrusted source. `railkd.runtime.typed` checks its types, and its checksum, file names and
file sizes are checked before anything else in the folder is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from railkd.errors import RailkdError
from railkd.runtime import files, typed
from railkd.signals import checked_poolings
from railkd.teacher.identity import Identity
from railkd.teacher.number_formats import states_bytes
from railkd.teacher.protocol import Count, TeacherInfo

MANIFEST = "manifest.json"
FORMAT, VERSION = "railkd teacher cache", 1
#: Bytes of the index, a .npy file, before its numbers.
INDEX_HEADER = 128
#: Bound on the numbers of one pooling of an example: a cache without rows has no bytes to compare with.
_MOST_NUMBERS = 2**26
#: The end of every message about a file that cannot be used.
REBUILD = "Fix: delete the cache and build it again."


def _known(poolings: tuple[str, ...]) -> tuple[str, ...]:
    if poolings and not checked_poolings(poolings):
        raise ValueError(f"expected names of poolings or nothing, got {', '.join(poolings)}")
    return poolings


@dataclass(frozen=True)
class File:
    """A file of the cache.

    Attributes:
        file: its name.
        bytes: its size.
        header_crc: CRC-32 of its header.
    """

    file: str
    bytes: Count
    header_crc: Count


@dataclass(frozen=True)
class ShardFile(File):
    """A shard; see `railkd.teacher.shards`.

    Attributes:
        rows: how many it holds.
        states: False if it holds outputs alone, True if it holds every pooling of the cache too.
    """

    rows: Count
    states: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as JSON holds it, without what the first release did not know unless it says something."""
        return {name: value for name, value in asdict(self).items() if name != "states" or not value}


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``, its version and checksum aside.

    Attributes:
        teacher: the properties of the teacher that a student needs.
        identity: everything that the stored numbers depend on.
        poolings: stored for every row of a shard with states; empty: the cache holds outputs alone.
        rows: how many.
        index: of the rows by key.
        shards: the rows, in this order.
    """

    teacher: TeacherInfo
    identity: Identity
    poolings: Annotated[tuple[str, ...], AfterValidator(_known)]
    rows: Count
    index: File
    shards: tuple[ShardFile, ...]

    @property
    def files(self) -> tuple[File, ...]:
        """The files of the cache."""
        return (self.index, *self.shards)

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder. From then on the folder is a complete cache.

        Args:
            folder: the one that holds the files.
        """
        parts = {"format": FORMAT, "version": VERSION, **asdict(self)}
        for name in ("states_dim", "components"):  # the first releases did not know them
            if parts["identity"][name] is None:
                del parts["identity"][name]
        parts["shards"] = [entry.as_dict() for entry in self.shards]
        parts["checksum"] = manifest_checksum(json.loads(json.dumps(parts)))
        files.write_text(folder / MANIFEST, json.dumps(parts, indent=1), durable=True)


def read_manifest(folder: Path, *, files_there: bool = True) -> Manifest:
    """Read and check the manifest of a cache, and the sizes of the files that it names.

    Args:
        folder: the cache.
        files_there: False checks the manifest alone, before its files are fetched.

    Returns:
        The manifest. Its files lie in the folder and have the sizes it names.

    Raises:
        RailkdError: there is no manifest, it was altered, or a file is missing or has another size.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise RailkdError(_missing(folder))
    try:
        text = path.read_text(encoding="utf-8")
        values = typed.from_json(dict[str, Any], text)
        known = values["format"] == FORMAT and values["checksum"] == manifest_checksum(values)
    except (ValueError, KeyError, OSError) as error:
        raise RailkdError(f"Cannot read the cache manifest '{path}' ({error}). {REBUILD}") from error
    if not known:
        raise RailkdError(f"The cache manifest '{path}' was altered: its checksum does not match. {REBUILD}")
    if values.get("version") != VERSION:
        raise RailkdError(
            f"Expected a cache of format {VERSION} at '{folder}', got format {values.get('version')!r}. "
            "Fix: build it again with --overwrite."
        )
    try:
        manifest: Manifest = typed.from_json(Manifest, text)
        _check_sizes(manifest)
        for entry in manifest.files if files_there else ():
            _check_file(folder, entry)
        components = folder / f"components-{manifest.identity.components}.safetensors"
        if files_there and manifest.identity.components and not components.is_file():
            raise RailkdError(f"The cache at '{folder}' lacks its file '{components.name}'. {REBUILD}")
    except RailkdError:
        raise
    except (ValueError, OverflowError) as error:
        raise RailkdError(f"The file '{path}' does not describe a cache ({error}). {REBUILD}") from error
    return manifest


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything in a manifest except its checksum.

    Args:
        manifest: as JSON holds it.
    """
    kept = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def stored_manifest(folder: Path) -> Manifest | None:
    """Return the manifest in a folder without a check of its files; None if there is none that can be read."""
    try:
        manifest: Manifest = typed.from_json(Manifest, (folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, OverflowError):
        return None
    return manifest


def _missing(folder: Path) -> str:
    """Return the message for a folder without a manifest."""
    if folder.is_dir() and any(folder.glob("shard-*")):
        return f"The cache at '{folder}' is unfinished. Fix: build it again; finished rows are kept."
    command = f"railkd cache --teacher DIR --train FILE --cache {folder}"
    return f"There is no teacher cache at '{folder}'. Fix: build one with '{command}'."


def _check_sizes(manifest: Manifest) -> None:
    """Compare the shapes that a manifest claims with the bytes that its files have, before anything is allocated."""
    blocks, width = manifest.teacher.shape
    numbers = blocks * width
    if numbers > _MOST_NUMBERS:
        raise ValueError(f"teacher: expected at most {_MOST_NUMBERS} numbers of states, got {blocks} x {width}")
    if manifest.rows != sum(entry.rows for entry in manifest.shards):
        raise ValueError(f"rows: expected the sum of the rows of the shards, got {manifest.rows}")
    if manifest.index.bytes != INDEX_HEADER + 24 * manifest.rows:
        raise ValueError(f"index.bytes: expected {INDEX_HEADER + 24 * manifest.rows}, got {manifest.index.bytes}")
    states = states_bytes(manifest.identity.states_dtype, blocks, width)
    if not manifest.poolings and any(entry.states for entry in manifest.shards):
        raise ValueError("poolings: got no pooling, expected those of the shards with states")
    for entry in manifest.shards:
        poolings = len(manifest.poolings) if entry.states else 0
        # A key, the outputs, the states and the checksums.
        row = 16 + 4 * len(manifest.teacher.labels) + poolings * states + 4 * (1 + poolings)
        if entry.bytes < entry.rows * row:
            raise ValueError(
                f"{entry.file}: expected at least {entry.rows * row} bytes for {entry.rows} rows of {blocks} blocks of "
                f"{width}, got {entry.bytes}"
            )


def _check_file(folder: Path, entry: File) -> None:
    """Check that a file lies in the folder itself, is no link, and has its size."""
    name = entry.file
    if Path(name).name != name or "\0" in name or (folder / name).is_symlink():
        raise RailkdError(
            f"Expected names of files in the cache's own folder and no links in '{folder / MANIFEST}', got {name!r}. "
            f"{REBUILD}"
        )
    file = folder / name
    size = file.stat().st_size if file.is_file() else None
    if size is None:
        raise RailkdError(f"The cache file '{file}' is missing. {REBUILD}")
    if size != entry.bytes:
        raise RailkdError(f"Expected {entry.bytes} bytes in the cache file '{file}', got {size}. {REBUILD}")
