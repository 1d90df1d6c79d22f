"""Copies a cache to a folder or to the hub, and back: what is there already and equal stays, the rest is verified.

A pushed copy is a cache itself. A pull adds the rows that the cache here lacks, so that the caches of one teacher from
several machines become one. Only files that the manifest names are read: shards, which are safetensors, and an index
without pickled objects. What arrives lies in a folder of its own until every checksum has been compared.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from railkd.errors import RailkdError
from railkd.runtime import files
from railkd.runtime.ownership import LOCK, MARK, check_writable, hold
from railkd.teacher.cache import TeacherCache
from railkd.teacher.components import Components, components_file
from railkd.teacher.dataset_card import CARD, card
from railkd.teacher.index import Index
from railkd.teacher.manifest import MANIFEST, REBUILD, Manifest, read_manifest
from railkd.teacher.places import Place
from railkd.teacher.runner import Progress
from railkd.teacher.writer import OWN_NAME, CacheWriter

Value = TypeVar("Value")
#: Holds what a pull has fetched until it is merged.
STAGING = ".railkd-pull"
#: Bound on the bytes of a manifest that is fetched.
_MOST_BYTES = 2**26
#: Files that may lie beside those of a cache in a place.
_BESIDE = {CARD, ".gitattributes", LOCK, MARK}
_AGAIN = "Fix: repeat the command; if it fails again, push the cache again from where it is whole."


@dataclass(frozen=True)
class Copied:
    """What a push or a pull did.

    Attributes:
        files: shards that were copied.
        kept: shards that were there already.
        rows: in the cache at the end.
        new: rows that a pull added; 0 for a push.
    """

    files: int
    kept: int
    rows: int
    new: int = 0


def push(folder: Path, place: Place, on_progress: Progress | None = None) -> Copied:
    """Copy a cache to a place. Shards that are there already stay; the manifest is written last.

    `RailkdError` is raised if the cache is damaged, or if the place holds another teacher, rows that this cache lacks,
    or files that are not of a cache.

    Args:
        folder: of the cache. All its checksums are compared first.
        place: that gets the copy.
        on_progress: called with (rows verified, rows to verify).

    Returns:
        What was copied.
    """
    cache = TeacherCache.open(folder)
    cache.verify(on_progress)
    manifest = read_manifest(folder)
    with place.held(), tempfile.TemporaryDirectory(prefix="railkd-push-") as name:
        there = _manifest_of(place, Path(name))
        stale = _stale(place, there, manifest)
        if there is not None:
            _check_same(cache, manifest, there, place, f"the cache '{folder}'")
            _check_superset(cache, _index_of(place, there, Path(name)), there, place)
        before = place.fetch(CARD, Path(name)).read_text(encoding="utf-8") if CARD in place.sizes() else ""
        shards = [folder / entry.file for entry in manifest.shards]
        beside = components_file(folder, manifest.identity.components)
        new = [path for path in shards if not place.holds(path)]
        written = Path(name) / CARD
        files.write_text(written, card(cache, before))
        last = [*beside, folder / manifest.index.file, written, folder / MANIFEST]
        if new or not all(map(place.holds, last)):
            place.store([*new, *last], stale)
    return Copied(len(new), len(shards) - len(new), cache.rows)


def pull(place: Place, folder: Path, on_progress: Progress | None = None) -> Copied:
    """Copy a cache from a place, or add its rows to the cache of the same teacher that is here.

    Args:
        place: that holds a cache.
        folder: of the cache here; created if it does not exist.
        on_progress: called with (shards done, shards to do).

    Returns:
        What was copied.

    Raises:
        RailkdError: the place holds no cache, a damaged one, or one of another teacher.
    """
    check_writable(folder, "--cache")
    staging = folder / STAGING
    if staging.is_symlink():
        raise RailkdError(f"Expected no link at '{staging}', where a pull keeps what has arrived. Fix: remove it.")
    with tempfile.TemporaryDirectory(prefix="railkd-pull-") as name:
        manifest = _manifest_of(place, Path(name))
    if manifest is None:
        raise RailkdError(f"Expected a teacher cache in {place.name}, got none: {place.lack}.")
    with hold(staging, f"Another pull into '{folder}' is running. Fix: repeat the command when it has ended."):
        local = TeacherCache.open(folder) if TeacherCache.is_built(folder) else None
        if local is not None:
            _check_same(local, read_manifest(folder), manifest, place, f"the cache '{folder}'")
        before = local.rows if local else 0
        wanted = _said(place, lambda: _wanted(manifest, _index_of(place, manifest, staging), local))
        theirs = _arrived(place, TeacherCache(staging, manifest), wanted, on_progress)
        for path in components_file(staging, manifest.identity.components):
            place.fetch(path.name, staging)
            _said(place, lambda path=path: Components.read(path))  # type: ignore[misc]
        if wanted or local is None:
            _merge(theirs, wanted, folder)
        shutil.rmtree(staging, ignore_errors=True)  # while the lock is held: the next pull has not begun
    rows = TeacherCache.open(folder).rows
    return Copied(len(wanted), len(manifest.shards) - len(wanted), rows, rows - before)


def _manifest_of(place: Place, folder: Path) -> Manifest | None:
    """Return the manifest of a place, checked as data from elsewhere; None if there is none."""
    size = place.sizes().get(MANIFEST)
    if size is None:
        return None
    if size > _MOST_BYTES:
        raise RailkdError(f"Expected a {MANIFEST} of at most {_MOST_BYTES:,} bytes in {place.name}, got {size:,}.")
    place.fetch(MANIFEST, folder)
    manifest = _said(place, lambda: read_manifest(folder, files_there=False))
    for entry in manifest.files:
        if not OWN_NAME.fullmatch(entry.file):
            raise RailkdError(
                f"Expected names such as shard-0123456789abcdef.safetensors in the {MANIFEST} of {place.name}, got "
                f"{entry.file!r}. Fix: do not use this cache: railkd did not write it."
            )
    return manifest


def _index_of(place: Place, manifest: Manifest, folder: Path) -> Index:
    """Return the index of a place, with the keys of its rows."""
    entry = manifest.index
    if place.sizes().get(entry.file) != entry.bytes:
        raise RailkdError(f"Expected {entry.bytes:,} bytes of '{entry.file}' in {place.name}. {_AGAIN}")
    place.fetch(entry.file, folder)
    return _said(place, lambda: Index(folder / entry.file, entry, manifest.rows))


def _stale(place: Place, there: Manifest | None, manifest: Manifest) -> list[str]:
    """Return the files of an earlier push that the manifest no longer names. Refuse files that are not of a cache."""
    foreign = sorted(name for name in place.sizes() if name not in _BESIDE and not OWN_NAME.fullmatch(name))
    if there is None and (foreign := [name for name in foreign if name != MANIFEST]):
        raise RailkdError(
            f"Expected an empty place or a teacher cache, got {place.name} with other files ('{foreign[0]}'). Fix: "
            "name another."
        )
    kept = {entry.file for entry in manifest.files}
    before = {entry.file for entry in there.files} if there is not None else set()
    return sorted((before - kept) & place.sizes().keys())


def _check_same(cache: TeacherCache, ours: Manifest, theirs: Manifest, place: Place, name: str) -> None:
    """Refuse to mix teachers, formats or poolings."""
    differences = cache.identity.differences(theirs.identity)
    if ours.teacher != theirs.teacher and not differences:
        differences = ["other blocks, widths or labels"]
    if ours.poolings != theirs.poolings and not differences:
        ours_, theirs_ = (", ".join(poolings) or "none" for poolings in (ours.poolings, theirs.poolings))
        differences = [f"the poolings are {ours_} in the cache, {theirs_} here"]
    if differences:
        raise RailkdError(
            f"Expected two caches of one teacher run, got {name} ('in the cache') and {place.name} ('here') with "
            f"{'; '.join(differences)}. Fix: name another place or another --cache."
        )


def _check_superset(cache: TeacherCache, index: Index, there: Manifest, place: Place) -> None:
    """Refuse a push that would drop rows, or states, of the place."""
    keys, lacking = index.keys(), 0
    for entry, part in zip(there.shards, _parts(there, keys), strict=True):
        lacking += len(cache.missing(part, states=entry.states))
    if lacking:
        raise RailkdError(
            f"Expected a cache with all rows of {place.name}, got one that lacks {lacking:,} of {there.rows:,}. Fix: "
            f"run 'railkd cache pull' into '{cache.path}' first, which adds them."
        )


def _parts(manifest: Manifest, keys: np.ndarray) -> list[np.ndarray]:
    """Return the keys of each shard."""
    return np.split(keys, np.cumsum([entry.rows for entry in manifest.shards])[:-1]) if manifest.shards else []


def _wanted(manifest: Manifest, index: Index, local: TeacherCache | None) -> list[int]:
    """Return the numbers of the shards with rows that the cache here lacks."""
    parts = zip(manifest.shards, _parts(manifest, index.keys()), strict=True)
    return [
        number
        for number, (entry, keys) in enumerate(parts)
        if local is None or len(local.missing(keys, states=entry.states))
    ]


def _arrived(place: Place, theirs: TeacherCache, wanted: list[int], on_progress: Progress | None) -> TeacherCache:
    """Fetch shards and compare all their checksums. Those that an interrupted pull has fetched stay."""
    for done, number in enumerate(wanted):
        entry = theirs.entries[number]
        path = theirs.path / entry.file
        if not path.is_file() or path.stat().st_size != entry.bytes:
            if place.sizes().get(entry.file) != entry.bytes:
                raise RailkdError(f"Expected {entry.bytes:,} bytes of '{entry.file}' in {place.name}. {_AGAIN}")
            place.fetch(entry.file, theirs.path)
        try:
            _said(place, lambda number=number: _verify(theirs, number))  # type: ignore[misc]
        except RailkdError:
            path.unlink(missing_ok=True)
            raise
        if on_progress is not None:
            on_progress(done + 1, len(wanted))
    return theirs


def _merge(theirs: TeacherCache, wanted: list[int], folder: Path) -> None:
    """Add the rows of verified shards to the cache here. Rows that it has stay as they are."""
    with_states = [number for number in wanted if theirs.entries[number].states]
    rounds = [(theirs.poolings, with_states)] if theirs.poolings else []
    alone = [number for number in wanted if not theirs.entries[number].states]
    components = [Components.read(path) for path in components_file(theirs.path, theirs.identity.components)]
    kept = components[0] if components else None
    for poolings, numbers in [*rounds, *([((), alone)] if alone or not rounds else [])]:
        with CacheWriter(folder, theirs.info, theirs.identity, poolings, components=kept) as writer:
            for number in numbers:
                _add(theirs, number, writer)


def _add(theirs: TeacherCache, number: int, writer: CacheWriter) -> None:
    """Move a shard into the cache, or copy those of its rows that are new."""
    path, keys = theirs.path / theirs.entries[number].file, np.array(theirs.shard(number).keys)
    new = writer.missing(keys)
    if len(new) == len(keys):
        files.sync(path)
        if writer.adopt(path):
            return
    if len(new):
        states = {name: np.asarray(theirs.gather(keys[new], name)[1], dtype=np.float32) for name in writer.poolings}
        writer.add(keys[new], theirs.gather(keys[new], None)[0], states)


def _verify(theirs: TeacherCache, number: int) -> None:
    """Compare all checksums of a shard, its keys with the index, and its teacher with the manifest."""
    shard = theirs.shard(number)
    shard.verify()
    theirs.check_index(number)
    if shard.identity != theirs.identity.digest(shard.poolings):
        raise RailkdError(
            f"The shard '{shard.path.name}' holds numbers of another teacher run than its {MANIFEST} says."
        )


def _said(place: Place, work: Callable[[], Value]) -> Value:
    """Return what a function returns, and name the place in its error."""
    try:
        return work()
    except RailkdError as error:
        raise RailkdError(
            f"What came from {place.name} cannot be used. {str(error).replace(REBUILD, _AGAIN)}"
        ) from error
