"""The teacher as files: it runs once, and every later step reads its signals.

Opening a cache checks the manifest and the sizes of the files. The checksum of a row is compared when the row is first
read; `TeacherCache.verify` reads everything. Memory maps are used, so only the rows of a batch are loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from railkd.errors import RailkdError
from railkd.models.checkpoints import Checkpoint
from railkd.runtime.words import size
from railkd.signals import Moments
from railkd.teacher.build import BuildOptions, PassSettings, TeacherPass
from railkd.teacher.identity import OF_STATES, Identity
from railkd.teacher.index import Index
from railkd.teacher.manifest import MANIFEST, REBUILD, Manifest, read_manifest
from railkd.teacher.moments import moments_of
from railkd.teacher.number_formats import states_bytes
from railkd.teacher.runner import Progress
from railkd.teacher.shards import Shard, place
from railkd.teacher.stored import StoredTeacher, no_states

logger = logging.getLogger(__name__)


class TeacherCache(StoredTeacher):
    """The logits and pooled block states of a teacher, keyed by the content of the examples.

    Use `build` or `open`. A cache is a `railkd.teacher.Teacher`: training cannot tell it from a live one.

    Args:
        path: the folder.
        manifest: read from it.

    Attributes:
        path: the folder.
        info: the properties of the teacher that a student needs.
        identity: everything that the stored numbers depend on.
        poolings: of the stored states; empty if the cache holds outputs alone.
        rows: how many.
        entries: of the shards, in the order of the rows.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.info, self.identity, self.poolings = manifest.teacher, manifest.identity, manifest.poolings
        self.rows, self.entries = manifest.rows, manifest.shards
        self._shards: list[Shard | None] = [None] * len(self.entries)
        self._moments: dict[str, Moments] = {}
        self._starts = np.cumsum([0] + [entry.rows for entry in self.entries])
        self._has_states = np.asarray([entry.states and bool(self.poolings) for entry in self.entries], dtype=bool)
        self._index = Index(path / manifest.index.file, manifest.index, self.rows)
        if self.rows != self._starts[-1]:
            raise self._index.altered()

    @classmethod
    def open(cls, path: str | Path) -> TeacherCache:
        """Open a finished cache.

        `RailkdError` is raised if the cache is missing or unfinished, or if a file was altered or is missing.

        Args:
            path: the folder.

        Returns:
            The cache. No signals have been read yet.
        """
        folder = Path(path)
        return cls(folder, read_manifest(folder))

    @staticmethod
    def is_built(path: str | Path) -> bool:
        """Return True if a folder holds a finished cache.

        Args:
            path: the folder, which need not exist.
        """
        return (Path(path) / MANIFEST).is_file()

    @classmethod
    def build(
        cls,
        teacher: str | Path | Checkpoint | nn.Module,
        dataset: Any,
        path: str | Path,
        **options: Unpack[BuildOptions],
    ) -> TeacherCache:
        """Run the teacher over the rows that the cache does not hold yet, and open the cache.

        Several ranks share the work; each must call this. `RailkdError` is raised if the folder holds a cache of
        another teacher, or if the rows cannot be read.

        Args:
            teacher: folder, hub name, `Checkpoint`, or a module (then give its ``tokenizer``).
            dataset: rows with text columns, or rows tokenised by the teacher's tokenizer with a key column: a
                `Dataset`, a list of dicts or texts, or a pandas data frame.
            path: folder of the cache; created if it does not exist.
            **options: see `railkd.teacher.build.PassSettings`: ``tokenizer``, ``pooling``, ``dtype``, ...

        Returns:
            The cache, which holds at least these rows.
        """
        settings, target = PassSettings(**options), Path(path)
        grows = not settings.overwrite
        stored = cls.open(target) if grows and cls.is_built(target) else None
        if stored and settings.teacher_dtype is None and not isinstance(teacher, Checkpoint | nn.Module):
            settings = replace(settings, teacher_dtype=stored.identity.teacher_dtype)
        if stored and not (stored.poolings or settings.poolings):
            settings = replace(settings, dtype=stored.identity.states_dtype)
        poolings, work = settings.poolings, TeacherPass(teacher, settings)
        if stored:  # the second pass of a cache of outputs adds states, and chooses how they are stored
            stored.check(work.identity, stored.poolings and poolings, ignore=() if stored.poolings else OF_STATES)
            poolings = stored.poolings or poolings
        rows = work.tokenize(dataset)
        # Opened anew: another process may have finished it while this one tokenised.
        current = cls.open(target) if grows and cls.is_built(target) else None
        if current is None or len(current.missing(rows.keys, states=bool(poolings))):
            work.run(rows, target, poolings)
        return cls.open(target)

    def gather(self, keys: np.ndarray, pooling: str | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the logits and the states of examples, as arrays in the precision they are stored in.

        Args:
            keys: (B, 2) of the examples.
            pooling: which states; None: logits only.

        Returns:
            Logits (B, C), and states (B, n, d) or None.

        Raises:
            RailkdError: an empty batch, an example or a pooling that the cache does not hold, bytes that were altered.
        """
        found = self.find(keys)
        if (found < 0).any():
            for number in range(len(self.entries)):
                self.check_index(number)  # rules out that a damaged index hides the rows
            raise RailkdError(
                f"{int((found < 0).sum())} of {len(keys)} examples are not in the cache '{self.path}' (first key "
                f"{keys[int(np.argmax(found < 0))].tolist()}). Fix: build it again with these rows; stored ones stay."
            )
        if pooling is not None:
            self.check_pooling(pooling)
        which = self._shard_of(found)
        if pooling is not None and not self._has_states[which].all():
            raise RailkdError(self._second_pass(pooling))
        logits: np.ndarray | None = None
        states: np.ndarray | None = None
        for number in np.unique(which):
            at = np.flatnonzero(which == number)
            shard, rows = self.shard(int(number)), found[at] - self._starts[number]
            logits = place(logits, shard.logits(rows, keys[at]), at, len(keys))
            if pooling is not None:
                states = place(states, shard.states(rows, keys[at], pooling), at, len(keys))
        if logits is None:
            raise RailkdError("Expected a batch of at least one example, got an empty one.")
        return logits, states

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key, or -1 if the cache does not hold it.

        Args:
            keys: (N, 2).

        Returns:
            (N,) int64.
        """
        return self._index.find(keys)

    def missing(self, keys: np.ndarray, *, states: bool = False) -> np.ndarray:
        """Return the positions of the keys that the cache does not hold.

        Args:
            keys: (N, 2).
            states: a row of outputs alone is missing too.
        """
        found = self.find(keys)
        absent = found < 0
        if states:
            absent[~absent] = ~self._has_states[self._shard_of(found[~absent])]
        return np.flatnonzero(absent)

    def check(self, wanted: Identity, poolings: Sequence[str] = (), *, ignore: tuple[str, ...] = ()) -> None:
        """Refuse to be used in place of another teacher. Log a warning if only library versions differ.

        Args:
            wanted: identity of the teacher that is asked for.
            poolings: that must be stored.
            ignore: fields of the identity that may differ.

        Raises:
            RailkdError: names every difference, or the pooling that is not stored.
        """
        differences = self.identity.differences(wanted, ignore=ignore)
        if differences:
            raise RailkdError(
                f"the cache '{self.path}' is of another teacher run: {'; '.join(differences)}. Fix: name another cache "
                "folder, or build it again with 'railkd cache --overwrite'."
            )
        for name in poolings:
            self.check_pooling(name)
        for name, then in self.identity.versions.items():
            if (now := wanted.versions.get(name)) != then:
                logger.warning(
                    "The cache '%s' was built with %s %s; this is %s. The last digits may differ.",
                    *(self.path, name, then, now),
                )

    def check_pooling(self, pooling: str) -> None:
        """Refuse a pooling that is not stored.

        Args:
            pooling: its name.

        Raises:
            RailkdError: it is not stored, or an earlier release read it from the wrong place.
        """
        if self.gaps:
            raise RailkdError(no_states(self.path, pooling))
        if not self.poolings:
            raise RailkdError(self._second_pass(pooling))
        if pooling not in self.poolings:
            raise RailkdError(
                f"the cache '{self.path}' stores the pooling {', '.join(self.poolings)}, but '{pooling}' is wanted. "
                f"Fix: build it with --pooling {','.join(dict.fromkeys([*self.poolings, pooling]))} --overwrite."
            )
        if self.identity.is_read_anew([pooling]):
            for number in np.flatnonzero(self._has_states):
                if self.shard(int(number)).identity != self.identity.digest(self.poolings):
                    raise RailkdError(
                        f"the cache '{self.path}' holds {pooling} states that an earlier release read from the wrong "
                        f"place of a {self.identity.config['model_type']}. Fix: build it again with --overwrite."
                    )

    def verify(self, on_progress: Progress | None = None) -> None:
        """Read every byte and compare every checksum.

        If a file was altered, `RailkdError` names the first one.

        Args:
            on_progress: called with (rows done, rows to do).
        """
        for number in range(len(self.entries)):
            self.shard(number).verify()
            self.check_index(number)
            if on_progress is not None:
                on_progress(int(self._starts[number + 1]), self.rows)

    def moments(self, pooling: str = "mean") -> Moments:
        """Return the mean and covariance of every block over all rows with states, in float64; the result is kept.

        Args:
            pooling: of the states.

        Raises:
            RailkdError: the pooling is not stored, or the cache has fewer than 2 rows.
        """
        self.check_pooling(pooling)
        rows = sum(entry.rows for entry in self.entries if entry.states)
        if rows < 2:
            raise RailkdError(f"Expected at least 2 rows in the cache '{self.path}' to fit on, got {rows}.")
        if pooling not in self._moments:
            self._moments[pooling] = moments_of(self._states_in_parts(pooling), rows, self.info.shape)
        return self._moments[pooling]

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())

    @property
    def described(self) -> str:
        """Rows, bytes, shape and path in one line."""
        states, dtype = "outputs alone", self.identity.states_dtype
        if self.poolings:
            kept = f"{self.info.width} principal components" if self.identity.states_dim else str(self.info.width)
            states = f"{self.info.blocks} blocks of {kept}{'' if dtype == 'float16' else f' in {dtype}'}"
        each = f" ({self.row_bytes:,} bytes a row)" if self.rows else ""
        return f"teacher cache: {self.rows:,} rows, {size(self.bytes)}{each}, {states}, at {self.path}"

    @property
    def row_bytes(self) -> int:
        """Bytes on disk for each row, on average; 0 without rows."""
        return round(self.bytes / self.rows) if self.rows else 0

    def _states_in_parts(self, pooling: str, rows: int = 2048) -> Iterator[Tensor]:
        """Yield all states, (at most ``rows``, n, d) at a time, in the order of the files."""
        for number in np.flatnonzero(self._has_states):
            shard = self.shard(int(number))
            for start in range(0, shard.rows, rows):
                some = np.arange(start, min(start + rows, shard.rows))
                yield torch.from_numpy(shard.states(some, np.asarray(shard.keys[some]), pooling))

    def cost_of_states(self, pooling: str, dtype: str | None = None, dim: int | None = None) -> str:
        """Return what a second pass of the teacher costs and adds, in words.

        Args:
            pooling: of the states.
            dtype: in which they are stored; None: as the cache says.
            dim: number of principal components that are stored; None: as the cache says.
        """
        rows = sum(entry.rows for entry in self.entries if not entry.states)
        each = states_bytes(dtype or self.identity.states_dtype, self.info.blocks, dim or self.info.width)
        added = size(rows * each)
        return (
            f"a second pass of the teacher over {rows:,} rows adds their {pooling} states ({added}); the outputs stay"
        )

    def _second_pass(self, pooling: str) -> str:
        """Return the message for rows whose states are wanted and not stored."""
        return (
            f"The cache '{self.path}' holds outputs alone, for some rows at least, but the {pooling} states are "
            f"wanted: {self.cost_of_states(pooling)}. Fix: give --teacher beside --cache, or run 'railkd cache "
            f"--teacher DIR --train FILE --cache {self.path} --pooling {pooling}'."
        )

    def _shard_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of the shard of each row (N,)."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def check_index(self, number: int) -> None:
        """Compare the index with the keys of a shard, given by its number."""
        self._index.check(np.asarray(self.shard(number).keys), int(self._starts[number]))

    def shard(self, number: int) -> Shard:
        """Return a shard by its number, opened and compared with the manifest when it is first used."""
        shard = self._shards[number]
        if shard is None:
            entry = self.entries[number]
            shard = Shard(self.path / entry.file, entry.header_crc)
            wanted: dict[str, tuple[int, ...]] = {"logits": (entry.rows, len(self.info.labels))}
            wanted |= dict.fromkeys(self.poolings if entry.states else (), (entry.rows, *self.info.shape))
            for name, shape in wanted.items():
                if name not in shard.arrays or shard.arrays[name].shape != shape:
                    raise RailkdError(
                        f"Expected {name} of shape {shape} in the cache file '{shard.path}', as its manifest says. "
                        f"{REBUILD}"
                    )
            self._shards[number] = shard
        return shard
