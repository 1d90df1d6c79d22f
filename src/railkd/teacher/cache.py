"""The teacher as files: run once, read at every step after that.

Opening checks the manifest and the sizes of the files; a row's checksum is compared when it is first touched;
`TeacherCache.verify` reads everything. Reading goes through memory maps: nothing is loaded but the rows of the batch.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from railkd.data.keys import KEY
from railkd.data.tokens import KeyedTokens, keyed_tokens
from railkd.errors import RailkdError
from railkd.models.checkpoints import Checkpoint
from railkd.models.limits import check_length
from railkd.runtime import ranks, typed
from railkd.signals import Moments, Signals, checked_poolings
from railkd.teacher.identity import Identity, identify
from railkd.teacher.live import LiveTeacher
from railkd.teacher.manifest import File, Manifest
from railkd.teacher.shards import Shard
from railkd.teacher.writer import FORMAT, INDEX_HEADER, MANIFEST, VERSION, CacheWriter, manifest_checksum

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


class TeacherCache:
    """A teacher's logits and pooled block states, keyed by the content of the examples.

    Use `build` or `open`. A cache is a `railkd.teacher.Teacher`: training cannot tell it from a live one.

    Attributes:
        path: the folder. info: who the teacher is. identity: what the numbers depend on. poolings: stored. rows: how
            many.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.info, self.identity, self.poolings = manifest.teacher, manifest.identity, manifest.poolings
        self.rows, self._entries = manifest.rows, manifest.shards
        self._shards: list[Shard | None] = [None] * len(self._entries)
        self._moments: dict[str, Moments] = {}
        self._starts = np.cumsum([0] + [entry.rows for entry in self._entries])
        self._index = index = path / manifest.index.file
        try:
            with index.open("rb") as file:
                if zlib.crc32(file.read(INDEX_HEADER)) != manifest.index.header_crc:
                    raise ValueError("its header does not fit")
            table = np.load(index, mmap_mode="r", allow_pickle=False)
            if table.shape != (3, self.rows) or table.dtype != np.int64 or self.rows != self._starts[-1]:
                raise ValueError(f"it is of shape {table.shape}, the manifest of {self.rows} rows")
            # As plain arrays: a memory map's own class makes every small read of it slow.
            self._high, self._low, self._row = np.asarray(table)
        except (ValueError, OSError) as error:
            raise RailkdError(
                f"cache file '{index}' was altered ({error}); delete the cache and build it again"
            ) from error

    @classmethod
    def open(cls, path: str | Path) -> TeacherCache:
        """Open a finished cache.

        Raises:
            RailkdError: no cache there, an unfinished one, a manifest that was edited, a file missing or of another
                size.
        """
        folder = Path(path)
        if not (folder / MANIFEST).is_file():
            built = any(folder.glob("shard-*")) if folder.is_dir() else False
            command = f"railkd cache --teacher DIR --train FILE --cache {path}"
            raise RailkdError(
                f"'{path}' holds an unfinished cache; build it again and it goes on from there"
                if built
                else f"no teacher cache at '{path}'; build one with '{command}'"
            )
        try:
            text = (folder / MANIFEST).read_text(encoding="utf-8")
            values = typed.from_json(dict[str, Any], text)
            known = values["format"] == FORMAT and values["checksum"] == manifest_checksum(values)
        except (ValueError, KeyError, OSError) as error:
            raise RailkdError(
                f"'{folder / MANIFEST}' cannot be read ({error}); delete the cache and build it again"
            ) from error
        if not known:
            raise RailkdError(
                f"'{folder / MANIFEST}' was altered: its checksum does not fit; delete the cache and build it again"
            )
        if values.get("version") != VERSION:
            raise RailkdError(
                f"'{path}' is a cache of format {values.get('version')!r}, this railkd reads {VERSION}; "
                "build it again with --overwrite"
            )
        try:
            manifest = typed.from_json(Manifest, text)
            for entry in (manifest.index, *manifest.shards):
                _check_file(folder, entry)
            return cls(folder, manifest)
        except RailkdError:
            raise
        except (ValueError, OverflowError) as error:
            raise RailkdError(
                f"'{folder / MANIFEST}' does not describe a cache ({error}); delete the cache and build it again"
            ) from error

    @classmethod
    def build(
        cls,
        teacher: str | Path | Checkpoint | nn.Module,
        dataset: Any,
        path: str | Path,
        *,
        tokenizer: Any = None,
        text_columns: Sequence[str] | None = None,
        max_length: int = 128,
        pooling: str | Sequence[str] = ("mean",),
        dtype: str = "float16",
        batch_size: int = 64,
        bf16: bool = False,
        blocks: str | None = None,
        overwrite: bool = False,
        on_progress: Progress | None = None,
    ) -> TeacherCache:
        """Run the teacher over the rows that the cache at ``path`` does not hold yet, and open it.

        Several ranks share the work; each must call this.

        Args:
            teacher: folder, hub name, `Checkpoint`, or a module (then give its ``tokenizer``).
            dataset: rows with text columns, or rows tokenised by the teacher's tokenizer with a key column.
            text_columns: one or two names; None: found by convention.
            max_length: in tokens. pooling: ``mean``, ``cls`` or both. dtype: of the stored states.
            bf16: run the teacher under bfloat16 autocast.
            blocks: see `railkd.models.blocks.find_blocks`.
            overwrite: replace a cache of another teacher; otherwise that is an error which names the difference.
            on_progress: called with (rows done, rows to do).
        """
        poolings = checked_poolings([pooling] if isinstance(pooling, str) else pooling)
        checkpoint = None if isinstance(teacher, nn.Module) else Checkpoint.find(teacher)
        if tokenizer is None:
            if checkpoint is None:
                raise RailkdError("got a teacher module without a tokenizer; pass tokenizer=, or the teacher's folder")
            tokenizer = checkpoint.tokenizer
        identity = identify(
            checkpoint or teacher,
            tokenizer,
            max_length=max_length,
            precision="bfloat16" if bf16 else "float32",
            states_dtype=dtype,
            blocks=blocks,
        )
        target = Path(path)
        if not overwrite and (target / MANIFEST).is_file():
            present = cls.open(target)
            present.check(identity, poolings)
            poolings = present.poolings
        rows = keyed_tokens(dataset, tokenizer, text=text_columns, max_length=max_length)
        config: Any = teacher.config if checkpoint is None else checkpoint.config  # type: ignore[union-attr]
        check_length(config, rows.lengths, max_length, "the teacher")
        if not overwrite and (target / MANIFEST).is_file() and not len(cls.open(target).missing(rows.keys)):
            return cls.open(target)
        # A model of ours goes where it runs fastest; a module of the caller's stays where it is.
        module: Any = teacher if checkpoint is None else checkpoint.frozen()
        live = LiveTeacher(module, tokenizer, max_length=max_length, poolings=poolings, bf16=bf16, blocks=blocks)
        with CacheWriter(target, live.info, identity, poolings, overwrite=overwrite, together=True) as writer:
            todo = writer.missing(rows.keys)
            with live.in_a_row():
                _run(live, rows, todo, writer, batch_size, on_progress)
        return cls.open(target)

    def __call__(self, batch: Mapping[str, Tensor], pooling: str | None) -> Signals:
        """See `railkd.teacher.Teacher`: a gather by ``example_key`` (B, 2)."""
        keys = batch[KEY].cpu().numpy()
        found = self.find(keys)
        if (found < 0).any():
            for number in range(len(self._entries)):
                self._check_index(number)  # are they really not there?
            raise RailkdError(
                f"{int((found < 0).sum())} of {len(keys)} examples are not in the cache '{self.path}' "
                f"(first key {keys[int(np.argmax(found < 0))].tolist()}); build it again with these rows"
            )
        if pooling is not None:
            self.check_pooling(pooling)
        which = np.searchsorted(self._starts, found, side="right") - 1
        logits: np.ndarray | None = None
        states: np.ndarray | None = None
        for number in np.unique(which):
            at = np.flatnonzero(which == number)
            shard, rows = self._shard(int(number)), found[at] - self._starts[number]
            part = shard.logits(rows, keys[at])
            logits = _placed(logits, part, at, len(keys))
            if pooling is not None:
                states = _placed(states, shard.states(rows, keys[at], pooling), at, len(keys))
        device = batch[KEY].device
        if logits is None:
            raise RailkdError("got an empty batch, wanted at least one example")
        held = None if states is None else torch.from_numpy(states).to(device)
        return Signals(torch.from_numpy(logits).to(device), held)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Row of each key (N, 2), or -1."""
        place = np.searchsorted(self._high, keys[:, 0])
        found = np.full(len(keys), -1, dtype=np.int64)
        todo = np.arange(len(keys))
        while len(todo):
            todo = todo[place[todo] < self.rows]
            todo = todo[self._high[place[todo]] == keys[todo, 0]]
            hit = self._low[place[todo]] == keys[todo, 1]
            found[todo[hit]] = self._row[place[todo[hit]]]
            todo = todo[~hit]  # equal in the first 64 bits only: once in a universe
            place[todo] += 1
        if (found >= self.rows).any() or (found < -1).any():
            raise self._altered_index()
        return found

    def _check_index(self, number: int) -> None:
        """Hold the index against the keys of a shard."""
        shard = self._shard(number)
        if (self.find(np.asarray(shard.keys)) != np.arange(shard.rows) + self._starts[number]).any():
            raise self._altered_index()

    def _altered_index(self) -> RailkdError:
        return RailkdError(
            f"cache file '{self._index}' was altered, or the keys of a shard; delete the cache and build it again"
        )

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Positions of the keys (N, 2) that the cache does not hold."""
        return np.flatnonzero(self.find(keys) < 0)

    def check(self, wanted: Identity, poolings: Sequence[str] = (), *, ignore: tuple[str, ...] = ()) -> None:
        """Refuse to stand in for another teacher.

        Raises:
            RailkdError: names every difference, or the pooling that is not stored.
        """
        differences = self.identity.differences(wanted, ignore=ignore)
        if differences:
            raise RailkdError(
                f"the cache '{self.path}' is of another teacher run: {'; '.join(differences)}; "
                "name another cache folder, or build it again with 'railkd cache --overwrite'"
            )
        for name in poolings:
            self.check_pooling(name)
        moved = {
            k: (v, wanted.versions.get(k)) for k, v in self.identity.versions.items() if v != wanted.versions.get(k)
        }
        for name, (then, now) in moved.items():
            logger.warning(
                "the cache '%s' was built with %s %s, this is %s: last digits may differ", self.path, name, then, now
            )

    def check_pooling(self, pooling: str) -> None:
        """Refuse a pooling that is not stored, by name."""
        if pooling not in self.poolings:
            raise RailkdError(
                f"the cache '{self.path}' stores the pooling {', '.join(self.poolings)}, but '{pooling}' is wanted; "
                f"build it with --pooling {','.join(dict.fromkeys([*self.poolings, pooling]))} --overwrite"
            )

    def verify(self, on_progress: Progress | None = None) -> None:
        """Read every byte and compare every checksum; raises at the first that does not fit, naming the file."""
        for number in range(len(self._entries)):
            shard = self._shard(number)
            shard.verify()
            self._check_index(number)
            if on_progress is not None:
                on_progress(int(self._starts[number + 1]), self.rows)

    def moments(self, pooling: str = "mean") -> Moments:
        """Mean and covariance of every block over all rows of the cache, in float64, one shard at a time.

        The order of the sums is that of the files, so the same cache gives the same numbers.
        """
        self.check_pooling(pooling)
        if pooling in self._moments:
            return self._moments[pooling]
        n, d = self.info.shape
        total = torch.zeros(n, d, dtype=torch.float64)
        products = torch.zeros(n, d, d, dtype=torch.float64)
        shift: Tensor | None = None  # the first rows' mean: small numbers keep their digits when squared
        for states in self._blocks_of(pooling):
            x = states.double().transpose(0, 1)  # (n, R, d)
            if shift is None:
                shift = x.mean(dim=1, keepdim=True)
            x = x - shift
            total += x.sum(dim=1)
            products += x.transpose(1, 2) @ x
        if shift is None or self.rows < 2:
            raise RailkdError(f"the cache '{self.path}' holds {self.rows} rows, wanted at least 2 to fit anything on")
        mean = total / self.rows
        covariance = (products - self.rows * mean.unsqueeze(2) * mean.unsqueeze(1)) / (self.rows - 1)
        self._moments[pooling] = Moments(self.rows, mean + shift.squeeze(1), covariance)
        return self._moments[pooling]

    def _blocks_of(self, pooling: str, rows: int = 2048) -> Iterator[Tensor]:
        for number in range(len(self._entries)):
            shard = self._shard(number)
            for start in range(0, shard.rows, rows):
                some = np.arange(start, min(start + rows, shard.rows))
                yield torch.from_numpy(shard.states(some, np.asarray(shard.keys[some]), pooling))

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())

    def _shard(self, number: int) -> Shard:
        shard = self._shards[number]
        if shard is None:
            entry = self._entries[number]
            shard = Shard(self.path / entry.file, entry.header_crc)
            wanted: dict[str, tuple[int, ...]] = {"logits": (entry.rows, len(self.info.labels))}
            wanted |= dict.fromkeys(self.poolings, (entry.rows, *self.info.shape))
            for name, shape in wanted.items():
                if name not in shard.arrays or shard.arrays[name].shape != shape:
                    raise RailkdError(
                        f"cache file '{shard.path}' holds no {name} of shape {shape}, which its manifest names; "
                        "delete the cache and build it again"
                    )
            self._shards[number] = shard
        return shard


def _check_file(folder: Path, entry: File) -> None:
    """A file that a manifest names: of this folder, wherever a manifest from elsewhere might point, and whole."""
    name = entry.file
    if Path(name).name != name or "\0" in name or (folder / name).is_symlink():
        raise RailkdError(
            f"'{folder / MANIFEST}' names the file {name!r}, wanted a file of the cache's own folder and no link; "
            "delete the cache and build it again"
        )
    file = folder / name
    size = file.stat().st_size if file.is_file() else None
    if size != entry.bytes:
        state = "is missing" if size is None else f"has {size} bytes, wanted {entry.bytes}"
        raise RailkdError(f"cache file '{file}' {state}; delete the cache and build it again")


def _run(
    live: LiveTeacher,
    rows: KeyedTokens,
    todo: np.ndarray,
    writer: CacheWriter,
    batch_size: int,
    on_progress: Progress | None,
) -> None:
    """The teacher pass: longest rows first, so that the time left is not underestimated and a lack of memory shows at
    once.
    """
    order = todo[np.argsort(-rows.lengths[todo], kind="stable")]
    stride = batch_size * ranks.world_size()
    for start in range(batch_size * ranks.rank(), len(order), stride):
        chosen = order[start : start + batch_size].tolist()
        unpadded = {name: [values[i] for i in chosen] for name, values in rows.inputs.items()}
        batch = live.tokenizer.pad(unpadded, return_tensors="pt")
        logits, states = live.run(batch, live.poolings)
        writer.add(
            rows.keys[chosen],
            logits.float().cpu().numpy(),
            {name: value.float().cpu().numpy() for name, value in states.items()},
        )
        if on_progress is not None:
            on_progress(min(start + stride, len(order)), len(order))  # of all ranks, as far as this one can tell


def _placed(whole: np.ndarray | None, part: np.ndarray, at: np.ndarray, rows: int) -> np.ndarray:
    """Put the rows of one shard into their places in the batch, in the widest precision met."""
    if len(at) == rows:
        return part
    if whole is None:
        whole = np.empty((rows, *part.shape[1:]), dtype=part.dtype)
    elif part.dtype.itemsize > whole.dtype.itemsize:
        whole = whole.astype(part.dtype)
    whole[at] = part
    return whole
