"""Writes a cache: rows come in, finished shards go to disk, and at the end an index and a manifest.

A cache folder without a manifest is an unfinished build. Every shard holds the identity of its teacher and the keys of
its rows. So a build that was killed is continued by adopting the finished shards, and a cache grows in the same way.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from railkd.data.keys import key_array
from railkd.errors import RailkdError
from railkd.runtime import files, ranks
from railkd.runtime.ownership import check_writable, lock_of
from railkd.teacher import index, shards
from railkd.teacher.components import FILE, Components, settle
from railkd.teacher.identity import Identity
from railkd.teacher.manifest import FORMAT, MANIFEST, Manifest, ShardFile, stored_manifest
from railkd.teacher.outputs import StoredOutputs
from railkd.teacher.protocol import TeacherInfo

ROWS_PER_SHARD = 8192
_PATTERNS = MANIFEST, "index-*.npy", "components-*.safetensors", f"shard-*{shards.SUFFIX}"
#: The names of the files that railkd writes, each with what its first bytes hold.
_SHARD = re.compile(r"shard-[0-9a-f]{16}" + re.escape(shards.SUFFIX)), b'"railkd"'
_INDEX = re.compile(r"index-[0-9a-f]{16}\.npy"), b"\x93NUMPY"
_COMPONENTS = FILE, b'"railkd"'
#: The names of the files beside the manifest.
OWN_NAME = re.compile("|".join(name.pattern for name, _ in (_SHARD, _INDEX, _COMPONENTS)))


class CacheWriter:
    """Writes the signals of one teacher into a folder. Use it in a ``with`` block, which holds the folder's lock.

    A second process that builds the same cache waits for the lock, then reuses the rows the first one wrote.

    A folder of shards without states (written with no poolings) gets states in a second pass: `missing` returns their
    rows again, the outputs of both passes are compared, and the stored ones stay.

    Args:
        path: the folder; created if it does not exist.
        info: the properties of the teacher that a student needs.
        identity: everything that the numbers depend on.
        poolings: stored for every row, in this order; empty: outputs alone.
        overwrite: delete the cache in the folder, once the lock is held.
        components: that states are projected on, kept for later rows. Those that another process has stored since they
            were fitted replace them.
        together: all ranks of this job write, each its own rows. The first holds the lock and finishes the cache. Every
            rank must enter and leave the ``with`` block.

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
        components: Components | None = None,
        together: bool = False,
    ) -> None:
        self.components = components
        self._overwrite, self._together = overwrite, together and ranks.world_size() > 1
        self._leads = not self._together or ranks.is_main_process()
        self.path, self.info, self.identity, self.poolings = Path(path), info, identity, tuple(poolings)
        self._keys: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []
        self._states: dict[str, list[np.ndarray]] = {name: [] for name in self.poolings}
        self._shards: list[ShardFile] = []
        self._stored_poolings = self.poolings
        self._outputs_alone: list[Path] = []
        self._outputs = StoredOutputs((), identity.precision)
        self._known = np.empty((0, 2), dtype=np.int64)

    def __enter__(self) -> CacheWriter:
        if self.path.exists() and not self.path.is_dir():
            raise RailkdError(f"The cache '{self.path}' is a file, wanted a folder. Fix: name another path.")
        check_writable(self.path, "--cache")
        self.path.mkdir(parents=True, exist_ok=True)
        own = own_files(self.path)
        for foreign in sorted(path for name in _PATTERNS for path in self.path.glob(name) if path not in own)[:1]:
            raise RailkdError(
                f"'{foreign}' has the name of a file of a cache, but railkd did not write it, or it is no regular "
                "file. Fix: move it elsewhere, or name another cache folder."
            )
        self._lock = lock_of(self.path)
        try:
            if self._leads:
                self._lock.acquire()
                if self._overwrite:
                    clear(self.path)
                _remove(path for path in self.path.iterdir() if _is_leftover(path))
                self.components, self.identity = settle(self.path, self.components, self.identity)
            self._barrier()
            self.components, self.identity = settle(self.path, self.components, self.identity)  # as the first rank did
            self._adopt_all()
            self._barrier()  # nobody writes before all have looked, so all see the same rows missing
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()  # after an error too: the next build goes on from these rows
            if kind is None:
                self._barrier()
                if self._leads:
                    if self._together:
                        self._adopt_all()  # includes the shards of the other ranks
                    self._finish()
                self._barrier()
        finally:
            self._lock.release()

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Return the positions of the first occurrence of each key that no finished shard holds.

        Args:
            keys: (N, 2).

        Returns:
            Positions in ascending order.
        """
        _, first = np.unique(keys, axis=0, return_index=True)
        known = {tuple(key) for key in self._known.tolist()}
        return np.asarray([i for i in np.sort(first) if tuple(keys[i].tolist()) not in known], dtype=np.int64)

    def add(self, keys: np.ndarray, logits: np.ndarray, states: Mapping[str, np.ndarray]) -> None:
        """Append rows. A full shard is written at once.

        Args:
            keys: (R, 2).
            logits: (R, C).
            states: pooling -> (R, n, d).

        Raises:
            RailkdError: a number is NaN or infinite, or the outputs are not those of the first pass; the message names
                the row.
        """
        if not len(keys):
            return
        for name, array in {"logits": logits, **states}.items():
            bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            if bad.any():
                raise RailkdError(
                    f"The teacher gave {name} that are no numbers (NaN or infinite) for the row with key "
                    f"{keys[int(np.argmax(bad))].tolist()}. Fix: run it in float32 (--teacher-dtype float32 --no-bf16) "
                    "or check its weights."
                )
        kept = self._outputs.keep(keys, logits)
        self._keys.append(keys)
        self._logits.append(kept)
        for name in self.poolings:
            self._states[name].append(states[name])
        if sum(map(len, self._keys)) >= ROWS_PER_SHARD:
            self.flush()

    def adopt(self, path: Path) -> bool:
        """Move a finished shard from elsewhere into the cache. None of its rows may be there yet.

        A shard of another teacher or with other poolings raises `RailkdError`.

        Args:
            path: of the shard, on the disk of the cache.

        Returns:
            False if its outputs must be compared with stored ones. Nothing is moved then.
        """
        shard, target = shards.Shard(path), self.path / path.name
        self._check(shard, anything=True)
        if self._outputs_alone or shard.poolings != self.poolings:
            return False
        path.replace(target)
        files.sync(self.path)
        self._shards.append(_entry(shards.Shard(target)))
        self._known = np.concatenate([self._known, np.asarray(shard.keys)])
        return True

    def flush(self) -> None:
        """Write the rows in memory as a shard."""
        if not self._keys:
            return
        keys = key_array(np.concatenate(self._keys))
        self._shards.append(self._write_shard(keys, np.concatenate(self._logits), self._states))
        self._known = np.concatenate([self._known, keys])
        self._keys, self._logits = [], []
        self._states = {name: [] for name in self.poolings}

    def _barrier(self) -> None:
        """Wait for the other ranks that write this cache."""
        if self._together:
            ranks.barrier()

    def _adopt_all(self) -> None:
        """Take over all finished shards in the folder that this writer can go on from."""
        stored = stored_manifest(self.path)
        named = {entry.file for entry in stored.shards} if stored else set()
        paths = sorted(self.path.glob(_PATTERNS[-1]), key=lambda path: (path.name not in named, path.name))
        full: list[shards.Shard] = []
        alone: list[shards.Shard] = []
        for path in paths:
            shard = shards.Shard(path)
            if named and shard.poolings and not self.poolings and path.name not in named:
                continue  # of a second pass that was killed, which may go on
            self._check(shard, anything=stored is not None)
            if shard.poolings == self.poolings:
                # A second pass that was killed at its end leaves rows that the manifest names in another file.
                if path.name in named or not (named and not self.poolings and _overlap(shard, full)):
                    full.append(shard)
            elif not shard.poolings:
                alone.append(shard)
            elif path.name in named:  # this writer adds outputs alone to a cache with states
                full.append(shard)
        self._stored_poolings = self.poolings or (stored.poolings if stored else ())
        self._known = np.concatenate([self._known[:0], *(np.asarray(shard.keys) for shard in full)])
        self._shards = [_entry(shard) for shard in full]
        self._outputs_alone = [shard.path for shard in alone]
        self._outputs = StoredOutputs(alone, self.identity.precision)

    def _check(self, shard: shards.Shard, *, anything: bool) -> None:
        """Refuse a shard of another teacher, or with poolings that this writer cannot go on from.

        Args:
            shard: a finished one.
            anything: the folder has a manifest, which says what outputs alone are added to.

        Raises:
            RailkdError: the shard belongs to another teacher or stores other poolings.
        """
        fix = "Fix: name another cache folder, or build it again with 'railkd cache --overwrite'."
        second = self.poolings and not shard.poolings
        known = self.identity.digests_of_outputs() if second else {self.identity.digest(shard.poolings)}
        if shard.identity not in known:
            raise RailkdError(
                f"The cache '{self.path}' holds states of another teacher, max length, precision or release of railkd "
                f"({shard.path.name}). {fix}"
            )
        if shard.poolings not in ((), self.poolings) and not (anything and not self.poolings):
            raise RailkdError(
                f"The cache '{self.path}' stores the poolings {', '.join(shard.poolings)}, wanted "
                f"{', '.join(self.poolings) or 'none'}. {fix}"
            )

    def _write_shard(
        self, keys: np.ndarray, logits: np.ndarray, states: Mapping[str, Sequence[np.ndarray]]
    ) -> ShardFile:
        """Write rows as a shard and return its entry; outputs alone never share a name with the same rows in full."""
        digest = self.identity.digest(tuple(states))
        data = shards.pack(keys, logits, states, self.identity.states_dtype, digest)
        kind = b"" if states else b"outputs alone"
        name = hashlib.blake2b(keys.tobytes() + digest.encode() + kind, digest_size=8).hexdigest()
        path = self.path / f"shard-{name}{shards.SUFFIX}"
        files.write_bytes(path, data, durable=True)
        return _entry(shards.Shard(path))

    def _finish(self) -> None:
        """Write the index and then the manifest, which makes the cache complete."""
        rest, logits = self._outputs.without(self._known)
        if len(rest):  # rows that this build did not read: they keep their outputs
            self._shards.append(self._write_shard(rest, logits, {}))
        self._shards.sort(key=lambda entry: entry.file)
        keys = [np.array(shards.Shard(self.path / entry.file).keys) for entry in self._shards]
        every = np.concatenate(keys) if keys else self._known
        entry, table = index.pack(every)
        files.write_bytes(self.path / entry.file, table, durable=True)
        manifest = Manifest(self.info, self.identity, self._stored_poolings, len(every), entry, tuple(self._shards))
        # The files of the previous manifest stay until the next build: a reader may have opened that manifest.
        keep = {file.file for each in (manifest, stored_manifest(self.path)) if each for file in each.files}
        manifest.write(self.path)
        done = (path for path in own_files(self.path) if _INDEX[0].fullmatch(path.name) or path in self._outputs_alone)
        _remove(path for path in done if path.name not in keep)


def _overlap(shard: shards.Shard, others: Sequence[shards.Shard]) -> bool:
    """Return True if a key of a shard stands in others too."""
    keys = set(map(tuple, shard.keys.tolist()))
    return any(not keys.isdisjoint(map(tuple, other.keys.tolist())) for other in others)


def poolings_of_unfinished(folder: Path) -> tuple[str, ...]:
    """Return the poolings that an unfinished build in a folder stores; empty if there is none.

    Args:
        folder: of a cache, which need not exist.
    """
    if (folder / MANIFEST).exists():
        return ()
    return next((shards.Shard(path).poolings for path in sorted(folder.glob(_PATTERNS[-1]))), ())


def _entry(shard: shards.Shard) -> ShardFile:
    """Return the entry of a shard for the manifest."""
    size = shard.path.stat().st_size
    return ShardFile(shard.path.name, size, shard.header_crc, shard.rows, states=bool(shard.poolings))


def clear(path: str | Path) -> None:
    """Delete the files of the cache in a folder. The manifest goes first, so that the rest is never taken for a cache.

    Args:
        path: the folder. What railkd did not write stays in it.
    """
    own = own_files(Path(path))
    _remove(file for file in own if file.name == MANIFEST)
    _remove(own)


def own_files(folder: Path) -> set[Path]:
    """Return the files of a cache that railkd wrote: by name, and by the manifest or by their first bytes.

    Args:
        folder: that exists.
    """
    own: set[Path] = set()
    manifest, named = folder / MANIFEST, b""
    if manifest.is_file() and not manifest.is_symlink():
        named = manifest.read_bytes()
        if FORMAT.encode() in named or (b'"identity"' in named and b'"shards"' in named):  # one of them may be damaged
            own.add(manifest)
    for name, start in (_SHARD, _INDEX, _COMPONENTS):
        for path in folder.iterdir():
            if name.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    if start in file.read(4096) or (manifest in own and path.name.encode() in named):
                        own.add(path)
    return own


def _is_leftover(path: Path) -> bool:
    """Return whether a build that was killed left this file under a temporary name."""
    return files.is_temporary(path) and path.name.startswith((".shard-", ".index-", ".components-", f".{MANIFEST}."))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
