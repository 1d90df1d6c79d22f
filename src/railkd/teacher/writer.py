"""Writing a cache: rows in, finished shards on disk, and at the end an index and a manifest.

A cache folder without a manifest is an unfinished build. Shards carry their teacher's identity and their rows' keys, so
a build that died is resumed by adopting the shards that stand there, and a cache grows by new rows the same way.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock

from railkd.data.keys import key_array
from railkd.errors import RailkdError
from railkd.runtime import files, ranks
from railkd.teacher import shards
from railkd.teacher.identity import Identity
from railkd.teacher.protocol import TeacherInfo

MANIFEST = "manifest.json"
FORMAT, VERSION = "railkd teacher cache", 1
ROWS_PER_SHARD = 8192
#: Bytes of a .npy file before its numbers.
INDEX_HEADER = 128


class CacheWriter:
    """Writes the signals of one teacher into a folder; a context manager that holds the folder's lock.

    A second builder waits at the door and then finds the rows there already.

    Args:
        path: the folder; made if missing.
        info: who the teacher is. identity: what its numbers depend on.
        poolings: stored for every row, in this order.
        overwrite: delete the cache that stands there, once the lock is held.
        together: all ranks of this job write, each its own rows; the first holds the lock and finishes. Every rank must
            enter and leave.

    Raises:
        RailkdError: the folder belongs to another teacher.
    """

    def __init__(
        self,
        path: str | Path,
        info: TeacherInfo,
        identity: Identity,
        poolings: Sequence[str] = ("mean",),
        *,
        overwrite: bool = False,
        together: bool = False,
    ) -> None:
        self._overwrite, self._together = overwrite, together and ranks.world_size() > 1
        self._leads = not self._together or ranks.is_main_process()
        self.path, self.info, self.identity, self.poolings = Path(path), info, identity, tuple(poolings)
        self._digest = identity.digest()
        self._lock = FileLock(self.path / ".lock")
        self._keys: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []
        self._states: dict[str, list[np.ndarray]] = {name: [] for name in self.poolings}
        self._shards: list[dict[str, Any]] = []
        self._known = np.empty((0, 2), dtype=np.int64)

    def __enter__(self) -> CacheWriter:
        if self.path.exists() and not self.path.is_dir():
            raise RailkdError(f"cache '{self.path}' is a file, wanted a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            if self._leads:
                self._lock.acquire()
                if self._overwrite:
                    clear(self.path)
                for leftover in self.path.glob(".*.tmp"):
                    leftover.unlink(missing_ok=True)
            self._meet()
            self._adopt_all()
            self._meet()  # nobody writes before all have looked: all see the same rows missing
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
                self._meet()
                if self._together and self._leads:
                    self._adopt_all()  # and the shards of the other ranks
                if self._leads:
                    self._finish()
                self._meet()
            else:
                self.flush()  # rows that are good already: the next build goes on from them
        finally:
            self._lock.release()

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Positions of the first occurrence of each key (N, 2) that no finished shard holds."""
        _, first = np.unique(keys, axis=0, return_index=True)
        known = {tuple(key) for key in self._known.tolist()}
        return np.asarray([i for i in np.sort(first) if tuple(keys[i].tolist()) not in known], dtype=np.int64)

    def add(self, keys: np.ndarray, logits: np.ndarray, states: Mapping[str, np.ndarray]) -> None:
        """Append rows: keys (R, 2), logits (R, C), pooling -> (R, n, d). A full shard goes to disk at once.

        Raises:
            RailkdError: a number that is not finite; says where.
        """
        for name, array in {"logits": logits, **states}.items():
            bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            if bad.any():
                raise RailkdError(
                    f"the teacher gave {name} that are no numbers (NaN or infinite) for the row with key "
                    f"{keys[int(np.argmax(bad))].tolist()}; run it in float32 (--no-bf16) or look at its weights"
                )
        self._keys.append(keys)
        self._logits.append(logits)
        for name in self.poolings:
            self._states[name].append(states[name])
        if sum(map(len, self._keys)) >= ROWS_PER_SHARD:
            self.flush()

    def flush(self) -> None:
        """Write the rows in hand as a shard."""
        if not self._keys:
            return
        keys = key_array(np.concatenate(self._keys))
        data = shards.pack(
            keys,
            np.concatenate(self._logits),
            self._states,
            self.identity.states_dtype,
            self._digest,
        )
        name = hashlib.blake2b(keys.tobytes() + self._digest.encode(), digest_size=8).hexdigest()
        files.write_bytes(self.path / f"shard-{name}{shards.SUFFIX}", data, durable=True)
        self._adopt(self.path / f"shard-{name}{shards.SUFFIX}")
        self._known = np.concatenate([self._known, keys])
        self._keys, self._logits = [], []
        self._states = {name: [] for name in self.poolings}

    def _meet(self) -> None:
        if self._together:
            ranks.barrier()

    def _adopt_all(self) -> None:
        self._shards = []
        found = [self._adopt(path) for path in sorted(self.path.glob(f"shard-*{shards.SUFFIX}"))]
        if found:
            self._known = np.concatenate(found)

    def _adopt(self, path: Path) -> np.ndarray:
        shard = shards.Shard(path)
        if shard.identity != self._digest:
            raise RailkdError(
                f"'{self.path}' holds states of another teacher, max length or precision ({path.name}); "
                "name another cache folder, or build it again with 'railkd cache --overwrite'"
            )
        if shard.poolings != self.poolings:
            raise RailkdError(
                f"'{self.path}' stores the poolings {', '.join(shard.poolings)}, wanted {', '.join(self.poolings)}; "
                "name another cache folder, or build it again with 'railkd cache --overwrite'"
            )
        size = path.stat().st_size
        entry = {"file": path.name, "bytes": size, "rows": shard.rows, "header_crc": shard.header_crc}
        self._shards.append(entry)
        return np.array(shard.keys)

    def _finish(self) -> None:
        self._shards.sort(key=lambda entry: entry["file"])
        keys = [np.array(shards.Shard(self.path / e["file"]).keys) for e in self._shards]
        every = np.concatenate(keys) if keys else self._known
        order = np.lexsort((every[:, 1], every[:, 0]))
        # (3, N): high half of the keys, low half, row; each contiguous, so that a search reads no more than it needs.
        table = np.stack([every[order, 0], every[order, 1], order]).astype("<i8")
        index_name = f"index-{hashlib.blake2b(every.tobytes(), digest_size=8).hexdigest()}.npy"
        index = _npy(table)
        files.write_bytes(self.path / index_name, index, durable=True)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "identity": vars(self.identity) | {"versions": dict(self.identity.versions)},
            "teacher": self.info.as_dict(),
            "poolings": list(self.poolings),
            "rows": len(every),
            "index": {"file": index_name, "bytes": len(index), "header_crc": zlib.crc32(index[:INDEX_HEADER])},
            "shards": self._shards,
        }
        manifest["checksum"] = manifest_checksum(manifest)
        # The index of the manifest before this one stays until the next build: someone may have read that manifest.
        keep = {index_name, _index_of(self.path / MANIFEST)}
        files.write_text(self.path / MANIFEST, json.dumps(manifest, indent=1), durable=True)
        for old in self.path.glob("index-*.npy"):
            if old.name not in keep:
                old.unlink(missing_ok=True)


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over everything in a manifest but its checksum."""
    kept = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _index_of(manifest: Path) -> str | None:
    try:
        return str(json.loads(manifest.read_text(encoding="utf-8"))["index"]["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def clear(path: str | Path) -> None:
    """Delete the cache in a folder: its own files only, the manifest first, so that it is never half trusted."""
    folder = Path(path)
    for pattern in (MANIFEST, "index-*.npy", f"shard-*{shards.SUFFIX}"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
