"""Where rows come from: a file, a folder of splits (GLUE's layout), an Arrow folder, or a name on the hub.

A source is one string::

    reviews.tsv                       a file: csv, tsv, jsonl, json, parquet; text also as .gz
    glue/RTE    glue/RTE:dev          a folder with train.tsv, dev.tsv, ...; the split behind a colon
    saved/      saved/:validation     what datasets' save_to_disk wrote
    stanfordnlp/imdb:test             a hub name; with a config: nyu-mll/glue:rte:validation

Cheap checks come first: ``datasets`` is imported only once the rows have been read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from railkd.data.formats import check_names, format_of, known_suffixes, read_table, stem_of
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
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_FILE_SUFFIX = re.compile(r"\.[A-Za-z]\w{0,7}(\.gz)?$")


def load_rows(source: str, *, split: str | None = None) -> datasets.Dataset:
    """The raw rows of a source, in its own order and with its own columns.

    ``split`` (default ``"train"``) picks one where the source holds several: "dev" also finds "validation". A split
    spelled in the source itself (``glue/RTE:dev``) wins over it; a single file has none, and the argument does nothing.
    Columns that ``datasets`` knows as class labels come as their names, hidden labels (-1) as None.

    >>> load_rows("glue/CoLA:dev")[0]["sentence"]  # doctest: +SKIP
    'The sailors rode the breeze clear of the rocks.'
    """
    base, hints = _parse(source)
    if os.path.isdir(base):
        path, wanted = Path(base), hints[0] if hints else split
        try:
            arrow = any((path / name).is_file() for name in _ARROW_FILES)
            rows = _from_arrow(path, wanted, bool(hints)) if arrow else _from_file(_file_in(path, wanted), ())
        except OSError as error:
            raise RailkdError(f"{path}: cannot be read: {error.strerror or error}; check its permissions.") from None
    elif os.path.exists(base):
        rows = _from_file(Path(base), hints)
    else:
        rows = _from_hub(source, split)
    if rows.num_rows == 0:
        raise RailkdError(f"{source}: holds no rows; wanted at least one.")
    check_names(rows.column_names, source)
    return _with_label_names(rows)


def parse_named(spec: str) -> tuple[str, str]:
    """``[NAME=]FILE`` -> (name, source). Without a name it is the file's; train, dev and test take their folder along.

    >>> parse_named("hans=ood/HANS/test.tsv"), parse_named("glue/RTE/dev.tsv"), parse_named("data/imdb.csv.gz")
    (('hans', 'ood/HANS/test.tsv'), ('RTE-dev', 'glue/RTE/dev.tsv'), ('imdb', 'data/imdb.csv.gz'))
    """
    name, equals, path = spec.partition("=")
    # A path may hold a "=" itself: what exists is a path, and so is what has a slash before the "=".
    if not equals or os.path.exists(spec) or "/" in name:
        return _name_of(spec), spec
    if not name or not path:
        raise RailkdError(f"--test {spec}: wanted NAME=FILE with both parts, or FILE alone.")
    if name != _safe(name):
        raise RailkdError(f"--test {spec}: {name!r} cannot name files; use letters, digits, '-', '_' and '.'.")
    return name, path


def parse_named_all(specs: Iterable[str]) -> dict[str, str]:
    """Several ``[NAME=]FILE`` -> name -> source, in their order; every name once.

    >>> parse_named_all(["glue/RTE:dev", "hans=ood/HANS/test.tsv"])
    {'RTE-dev': 'glue/RTE:dev', 'hans': 'ood/HANS/test.tsv'}
    """
    found: dict[str, str] = {}
    for spec in specs:
        name, path = parse_named(spec)
        if name in found:
            raise RailkdError(f"--test: {found[name]} and {path} are both called {name!r}; name one: NAME={path}.")
        found[name] = path
    return found


# ---- names ---------------------------------------------------------------------------------------------------------


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def _name_of(source: str) -> str:
    base, hints = _parse(source)
    path = Path(base)
    stem = stem_of(path)
    splits = {name for names in SPLITS.values() for name in names} | {"dev_mismatched", "test_mismatched"}
    parts = [path.absolute().parent.name, stem] if stem in splits else [stem or path.absolute().name]
    return _safe("-".join((*parts, *hints))) or "data"


def _parse(source: str) -> tuple[str, tuple[str, ...]]:
    """``base[:hint...]``; an existing path is a base as it stands, colons and all.

    >>> _parse("no-such-folder/RTE:dev")
    ('no-such-folder/RTE', ('dev',))
    """
    if os.path.exists(source):
        return source, ()
    front, _, last = source.rpartition(":")
    if front and last and os.path.exists(front):
        return front, (last,)
    base, *hints = source.split(":")
    return base, tuple(hint for hint in hints if hint)


# ---- sources -------------------------------------------------------------------------------------------------------


def _dataset(table: Any) -> datasets.Dataset:
    import datasets
    from datasets.table import InMemoryTable

    return datasets.Dataset(InMemoryTable(table))


def _from_file(path: Path, hints: Sequence[str]) -> datasets.Dataset:
    if hints:
        raise RailkdError(f"{path}:{hints[0]}: a file has no splits; give {path} alone, or a folder of splits.")
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
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and format_of(path) and not path.name.startswith("."):
            files.setdefault(stem_of(path), []).append(path)
    if not files:
        raise RailkdError(
            f"{folder}: is a folder without data files; wanted a file, or a folder with train.tsv, dev.tsv, ... "
            f"({known_suffixes()})."
        )
    found = files[_pick(wanted, files, folder)]
    if len(found) > 1:
        raise RailkdError(f"{folder}: has {listed(path.name for path in found)}; name the file you mean.")
    return found[0]


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


def _from_hub(source: str, split: str | None) -> datasets.Dataset:
    """``name[:split]`` or ``name:config:split``; a colon at the end (``name:config:``) leaves the split open."""
    name, *hints = source.split(":")
    # data/RTE beside an existing data/ is a slip of the pen, not a user of the hub called "data".
    local = "/" in name and os.path.isdir(os.path.dirname(name))
    if not _HUB_NAME.fullmatch(name) or len(name) > 96 or _FILE_SUFFIX.search(name) or local or len(hints) > 2:
        _missing(source)
    config, spelled = hints if len(hints) == 2 else (None, hints[0] if hints else None)

    import datasets

    # To datasets "csv" or "text" is a builder, which would take whatever lies in the working directory.
    if name.isidentifier() and importlib.util.find_spec(f"datasets.packaged_modules.{name}"):
        _missing(source)
    try:
        # All splits, for their names: the builders fetch every file of a config anyway.
        with _offline_if_unreachable():
            rows: Any = datasets.load_dataset(name, config or None)
    except Exception as error:  # network, hub, builder and Arrow errors have no common class
        raise RailkdError(
            f"{source}: no such file or folder, and no data set on the hub that loads ({_line(error)}); "
            "check the spelling, or the network and HF_HUB_OFFLINE."
        ) from None
    return rows[_pick(spelled or split, rows, name)]


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


def _missing(source: str) -> NoReturn:
    """Say that there is no such file, with the nearest name beside it."""
    if not source.strip():
        raise RailkdError("no file given; wanted a csv, tsv, jsonl or parquet file, a folder of splits or a hub name.")
    shown = repr(source if len(source) <= 200 else source[:197] + "...")
    folder, name = os.path.split(_parse(source)[0])
    beside: list[str] = []
    if os.path.isdir(folder or "."):
        with contextlib.suppress(OSError):  # the suggestion is a courtesy
            beside = os.listdir(folder or ".")
    elif folder:
        raise RailkdError(f"{shown}: no such file: there is no folder {folder[:200]!r}; check the path.")
    raise RailkdError(f"{shown}: no such file; check the path.{did_you_mean(name, beside)}")


def _line(error: BaseException) -> str:
    """The first line of any error, with its class, cut to a readable length."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _with_label_names(rows: datasets.Dataset) -> datasets.Dataset:
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
