"""Rows out of the places where they are kept: a file, a folder of splits, an Arrow folder, the hub.

``datasets`` is imported only once the rows have been read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from railkd.data.formats import known_suffixes, read_table, tables_in
from railkd.errors import RailkdError, did_you_mean
from railkd.runtime.words import listed

if TYPE_CHECKING:
    import datasets

# What a split may be called where it is kept; the first that is there is taken.
SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "dev": ("dev", "validation", "valid", "val", "dev_matched", "validation_matched"),
    "test": ("test", "test_matched"),
}
_ALIASES = {name: names for names in SPLITS.values() for name in names[:4]}
_ARROW_FILES = ("dataset_dict.json", "state.json")


def _dataset(table: Any) -> datasets.Dataset:
    import datasets
    from datasets.table import InMemoryTable

    return datasets.Dataset(InMemoryTable(table))


def from_file(path: Path) -> datasets.Dataset:
    """Read one file of any of the formats."""
    return _dataset(read_table(path))


def _pick(wanted: str | None, there: Iterable[str], where: object) -> str:
    """The name under which the wanted split is kept."""
    names = sorted(there)
    split = wanted or "train"
    # The name itself first: a folder that has both "val" and "dev" means what it says.
    for name in (split, *_ALIASES.get(split, ())):
        if name in names:
            return name
    raise RailkdError(
        f"{where}: has no split {split!r}; there: {', '.join(names)}.{did_you_mean(split, names)} "
        f"Name one behind a colon: {where}:{names[0]}"
    )


def _file_in(folder: Path, wanted: str | None) -> Path:
    """The file of a split in a folder such as GLUE's."""
    files = tables_in(folder)
    if not files:
        raise RailkdError(
            f"{folder}: is a folder without data files; wanted a file, or a folder with train.tsv, dev.tsv, ... "
            f"({known_suffixes()})."
        )
    found = files[_pick(wanted, files, folder)]
    if len(found) > 1:
        raise RailkdError(f"{folder}: has {listed(path.name for path in found)}; name the file you mean.")
    return found[0]


def from_folder(folder: Path, wanted: str | None, *, spelled: bool) -> datasets.Dataset:
    """Read a split of a folder: an Arrow folder, or one of files named for their splits.

    Args:
        wanted: the split; None: train. spelled: the user named it, so there must be splits.
    """
    try:
        if any((folder / name).is_file() for name in _ARROW_FILES):
            return _from_arrow(folder, wanted, spelled)
        return from_file(_file_in(folder, wanted))
    except OSError as error:
        raise RailkdError(f"{folder}: cannot be read: {error.strerror or error}; check its permissions.") from None


def is_builder(name: str) -> bool:
    """True for the name of a file format of ``datasets``, as "csv", which would read the working directory."""
    return name.isidentifier() and importlib.util.find_spec(f"datasets.packaged_modules.{name}") is not None


def from_hub(text: str, name: str, config: str | None, revision: str | None, split: str | None) -> datasets.Dataset:
    """Read a split of a set on the hub, or of its copy in the local cache. ``text`` is what the user wrote."""
    import datasets

    try:
        # All splits, for their names: the builders fetch every file of a config anyway.
        with _offline_if_unreachable():
            rows: Any = datasets.load_dataset(name, config, revision=revision)
    except Exception as error:  # network, hub, builder and Arrow errors have no common class
        raise RailkdError(
            f"{text}: no such file or folder, and no data set on the hub that loads ({_line(error)}); "
            "check the spelling, or the network and HF_HUB_OFFLINE."
        ) from None
    return rows[_pick(split, rows, name)]


def _from_arrow(folder: Path, wanted: str | None, spelled: bool) -> datasets.Dataset:
    """What save_to_disk wrote: one data set, or a dictionary of splits."""
    import datasets

    try:
        rows: Any = datasets.load_from_disk(str(folder))
    except Exception as error:  # broken folders raise JSON, key, type, Arrow and file errors alike
        raise RailkdError(f"{folder}: is no whole Arrow folder ({_line(error)}); save it again.") from None
    if isinstance(rows, datasets.Dataset):
        if spelled:
            raise RailkdError(f"{folder}:{wanted}: holds one data set without splits; give {folder} alone.")
        return rows
    return rows[_pick(wanted, rows, folder)]


@contextlib.contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Without a network go to the local cache at once: the hub's client would warn and retry for half a minute."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    if not before and "https" not in urllib.request.getproxies():  # behind a proxy names need not resolve here
        try:
            socket.getaddrinfo(urllib.parse.urlsplit(config.HF_ENDPOINT).hostname, None)
        except OSError:
            config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _line(error: BaseException) -> str:
    """The first line of any error, with its class, cut to a readable length."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def with_label_names(rows: datasets.Dataset) -> datasets.Dataset:
    """Class labels as their names: indices mean different things in different files."""
    import datasets

    for column, feature in list(rows.features.items()):
        if isinstance(feature, datasets.ClassLabel) and feature.names:
            names = [None if value is None or value < 0 else feature.names[value] for value in rows[column]]
            rows = rows.remove_columns(column).add_column(column, names)
            continue
        inner = getattr(feature, "feature", None)  # a list of them: several labels a row
        if isinstance(inner, datasets.ClassLabel) and inner.names:
            lists = [None if row is None else [inner.names[value] for value in row] for row in rows[column]]
            rows = rows.remove_columns(column).add_column(column, lists)
    return rows
