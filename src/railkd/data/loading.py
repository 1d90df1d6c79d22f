"""Reads rows from a file, a folder of splits, an Arrow folder or the hub.

``datasets`` is imported only after the rows of a file have been read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from railkd.data.formats import list_suffixes, list_tables, read_table, stem_of
from railkd.errors import RailkdError, did_you_mean
from railkd.runtime.words import counted, listed

if TYPE_CHECKING:
    import datasets

# Split -> the names it may have in a folder or on the hub. The first that exists is taken.
SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "dev": ("dev", "validation", "valid", "val", "dev_matched", "validation_matched"),
    "test": ("test", "test_matched"),
}
_ALIASES = {name: names for names in SPLITS.values() for name in names[:4]}
#: Marks what the description of rows says about how their file was read.
NOTE = "railkd: "
_ARROW_FILES = ("dataset_dict.json", "state.json")
#: A file that holds a part of a split, as the hub names it: its split, its number from 0, and how many there are.
_PART = re.compile(r"(.+?)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{8,})?")


def read_file(path: Path) -> datasets.Dataset:
    """Read one file of a known format.

    Args:
        path: of the file.

    Returns:
        Its rows. A note for the user stands in ``info.description``, after `NOTE`.
    """
    import datasets
    from datasets.table import InMemoryTable

    table, note = read_table(path)
    info = datasets.DatasetInfo(description=f"{NOTE}{note}" if note else "")
    return datasets.Dataset(InMemoryTable(table), info=info)


def _pick_split(wanted: str | None, available: Iterable[str], where: object) -> str:
    """Return the name that the wanted split has here."""
    names = sorted(available)
    split = wanted or "train"
    # The exact name comes first, because a folder may have both "val" and "dev".
    for name in (split, *_ALIASES.get(split, ())):
        if name in names:
            return name
    raise RailkdError(
        f"{where}: no split {split!r}. Splits: {', '.join(names)}.{did_you_mean(split, names)} "
        f"Fix: name one after a colon: {where}:{names[0]}"
    )


def files_in(folder: Path, wanted: str | None) -> list[Path]:
    """Find the files of a split in a folder such as GLUE's or a copy of a set of the hub.

    Args:
        folder: must exist.
        wanted: the split; None: train.

    Returns:
        The files, mostly one; none: it is an Arrow folder.

    Raises:
        RailkdError: the folder cannot be read or has no such split, or a part of it is missing.
    """
    with _readable(folder):
        if any((folder / name).is_file() for name in _ARROW_FILES):
            return []
        splits = _splits_in(folder)
        inner = [] if splits else [path.name for path in sorted(folder.iterdir()) if path.is_dir() and _splits_in(path)]
    if not splits:
        hint = f" Fix: name one of its folders: {listed(inner)}." if inner else ""
        raise RailkdError(
            f"{folder}: the folder holds no data files. Expected a file, or a folder with train.tsv, dev.tsv, ... "
            f"({list_suffixes()}).{hint}"
        )
    split = _pick_split(wanted, splits, folder)
    _check_parts(folder, split, splits[split])
    return splits[split]


def has_split(folder: Path, split: str) -> bool:
    """Return whether a folder holds a split, by its name or another name for it.

    Args:
        folder: must exist.
        split: train, dev or test.
    """
    with _readable(folder):
        is_arrow = any((folder / name).is_file() for name in _ARROW_FILES)
        found = [path.name for path in folder.iterdir() if path.is_dir()] if is_arrow else _splits_in(folder)
    return any(name in found for name in SPLITS[split])


def _splits_in(folder: Path) -> dict[str, list[Path]]:
    """Return split -> files of a folder: ``train.tsv``, ``train-00000-of-00002.parquet``, ``data/``, or ``train/``."""
    files: dict[str, list[Path]] = {}
    for stem, paths in list_tables(folder).items():
        part = _PART.fullmatch(stem)
        files.setdefault(part[1] if part else stem, []).extend(paths)
    if files:
        return files
    if (folder / "data").is_dir():
        return _splits_in(folder / "data")
    names = [name for names in SPLITS.values() for name in names if (folder / name).is_dir()]
    found = {name: [path for paths in list_tables(folder / name).values() for path in paths] for name in names}
    return {name: paths for name, paths in found.items() if paths}


def _check_parts(folder: Path, split: str, files: list[Path]) -> None:
    """Refuse several files of a split that are not all of its parts."""
    parts = [_PART.fullmatch(stem_of(path)) for path in files]
    numbered = [part for part in parts if part]
    if len(files) > 1 and len(numbered) < len(files) and files[0].parent.name != split:
        raise RailkdError(
            f"{folder}: the split has several files: {listed(path.name for path in files)}. Fix: name one of them."
        )
    count = int(numbered[0][3]) if numbered else 0
    if numbered and sorted(int(part[2]) for part in numbered) != list(range(count)):
        raise RailkdError(
            f"{folder}: expected {counted(count, 'file')} of the split {split!r}, as their names say, got "
            f"{listed(path.name for path in files)}. Fix: fetch the parts that are missing, or name one of them."
        )


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RailkdError(f"{folder}: cannot be read: {error.strerror or error}. Fix: check its permissions.") from None


def is_builder(name: str) -> bool:
    """Return whether a name is a file format of ``datasets``, such as "csv", which would read the working directory.

    Args:
        name: on the hub.
    """
    return name.isidentifier() and importlib.util.find_spec(f"datasets.packaged_modules.{name}") is not None


def read_hub(text: str, name: str, config: str | None, revision: str | None, split: str | None) -> datasets.Dataset:
    """Read a split of a data set on the hub, or of its copy in the local cache.

    Args:
        text: what the user wrote, for messages.
        name: of the data set on the hub.
        config: of the data set; None: its default.
        revision: branch, tag or commit; None: the newest.
        split: None: train.

    Returns:
        The rows.

    Raises:
        RailkdError: the data set cannot be loaded or has no such split.
    """
    import datasets

    try:
        # Loads all splits, to know their names. The builders download every file of a config anyway.
        with _offline_if_unreachable():
            rows: Any = datasets.load_dataset(name, config, revision=revision)
    except Exception as error:  # Errors of network, hub, builders and Arrow have no common class.
        raise RailkdError(
            f"{text}: no such file or folder, and no data set that loads from the hub ({_line(error)}). "
            "Fix: check the spelling, the network and HF_HUB_OFFLINE."
        ) from None
    return rows[_pick_split(split, rows, name)]


def read_arrow(folder: Path, wanted: str | None, *, spelled: bool) -> datasets.Dataset:
    """Read the rows that ``save_to_disk`` wrote, of one data set or of a dictionary of splits.

    Args:
        folder: must exist.
        wanted: the split; None: train.
        spelled: the user named the split, so the folder must have splits.

    Returns:
        The rows.

    Raises:
        RailkdError: the folder cannot be read or has no such split.
    """
    import datasets

    try:
        rows: Any = datasets.load_from_disk(str(folder))
    except Exception as error:  # Damaged folders raise JSON, key, type, Arrow and file errors.
        raise RailkdError(f"{folder}: not a complete Arrow folder ({_line(error)}). Fix: save it again.") from None
    if isinstance(rows, datasets.Dataset):
        if spelled:
            raise RailkdError(
                f"{folder}:{wanted}: the folder holds one data set without splits. Fix: give {folder} alone."
            )
        return rows
    return rows[_pick_split(wanted, rows, folder)]


@contextlib.contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Use only the local cache if the hub cannot be reached: its client would warn and retry for half a minute."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    if not before and "https" not in urllib.request.getproxies():  # Behind a proxy, names need not resolve here.
        try:
            socket.getaddrinfo(urllib.parse.urlsplit(config.HF_ENDPOINT).hostname, None)
        except OSError:
            config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _line(error: BaseException) -> str:
    """Return the class and the first line of an error, at most 200 characters."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _names_in(row: list[int | None] | None, names: list[str]) -> list[str | None] | None:
    """Return the names of a row of class labels, with None for a hidden one (-1); None if all of them are hidden."""
    if row is None:
        return None
    found = [names[value] if value is not None and value >= 0 else None for value in row]
    return None if row and not any(found) else found


def with_label_names(rows: datasets.Dataset) -> datasets.Dataset:
    """Replace indices of class labels by their names, because an index means different classes in different files.

    Args:
        rows: as ``datasets`` read them.

    Returns:
        The rows, where a hidden label (-1) is None.
    """
    import datasets

    for column, feature in list(rows.features.items()):
        if isinstance(feature, datasets.ClassLabel) and feature.names:
            names = [None if value is None or value < 0 else feature.names[value] for value in rows[column]]
            rows = rows.remove_columns(column).add_column(column, names)
            continue
        inner = getattr(feature, "feature", None)  # A list of class labels: several labels a row.
        if isinstance(inner, datasets.ClassLabel) and inner.names:
            lists = [_names_in(row, inner.names) for row in rows[column]]
            rows = rows.remove_columns(column).add_column(column, lists)
    return rows
