"""Sources of rows: a file, a folder of splits (GLUE's layout), an Arrow folder, or a name on the hub.

A user writes a source as one string, and `Source.parse` parses it::

    reviews.tsv                       a file: csv, tsv, jsonl, json, parquet, arrow; text also as .gz, .zst, ...
    glue/RTE    glue/RTE:dev          a folder with train.tsv, dev.tsv, ...; the split after a colon
    copy/                             a folder as on the hub, with data/train-00000-of-00002.parquet, ...
    saved/      saved/:validation     a folder written by save_to_disk of datasets
    stanfordnlp/imdb:test             a hub name; with a config: nyu-mll/glue:rte:validation
    stanfordnlp/imdb@REVISION:test    the same at a branch, tag or commit of the hub
    'more/*.jsonl'                    all files that match, one after the other, as one
    https://example.org/rows.csv.gz   an address: also hf://, s3://; fetched once for each process
    -                                 the standard input, as csv, tsv, JSON lines or parquet
    'rows.tsv[:1000]'                 a part of the rows: glue/RTE:train[10%:20%], imdb:test[-500:]

Cheap checks come first: ``datasets`` is imported only after the rows of a file have been read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from railkd.data import loading
from railkd.data.delimited import check_names
from railkd.data.formats import stem_of
from railkd.data.glue import GlueTask
from railkd.data.loading import SPLITS
from railkd.data.ood import find_row
from railkd.data.slicing import name_of, split_slice, take
from railkd.data.spooled import STANDARD_INPUT, check_input, fetched, is_elsewhere, named_by, path_of
from railkd.data.stacking import matches, stack
from railkd.errors import RailkdError, did_you_mean

if TYPE_CHECKING:
    import datasets

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
#: Name of the rows that choose the epoch, in records, reports and folders. No test set may have it.
SELECTION_SET = "eval"
_FILE_SUFFIX = re.compile(r"\.[A-Za-z]\w{0,7}(\.(gz|bz2|xz|zst|zip))?$")


@dataclass(frozen=True)
class Source:
    """A source of rows, parsed from what a user wrote.

    Attributes:
        text: as written; messages quote it.
        base: the path, or the name on the hub.
        hints: the parts after the base, split at colons, including empty parts.
        name: of results on these rows, e.g. ``RTE-dev``; it can be part of a file name.
        on_disk: whether the base is a file or folder of this machine.
        revision: branch, tag or commit of a hub set; None: the newest.
        row: its row in the tables of `railkd.data.glue` and `railkd.data.ood`, or None.
        parts: the files that a pattern matches; empty: it is no pattern.
        cut: the slice of the rows, such as ``[:1000]``; empty: all of them.
    """

    text: str
    base: str
    hints: tuple[str, ...]
    name: str
    on_disk: bool
    revision: str | None
    row: GlueTask | None
    parts: tuple[Source, ...] = ()
    cut: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        """Parse a source as a user writes it. An existing path is taken whole, even if it holds colons.

        Args:
            text: e.g. ``glue/RTE:dev``.

        Returns:
            The source, which need not exist.

        Example:
            >>> source = Source.parse("nyu-mll/glue@main:rte:validation")
            >>> source.base, source.revision, source.config, source.split, source.row.name
            ('nyu-mll/glue', 'main', 'rte', 'validation', 'RTE')
        """
        whole, cut = split_slice(text)
        if cut and not os.path.exists(text):
            found = cls.parse(whole)
            return replace(found, text=text, cut=cut, name=found.name + name_of(cut))
        if is_elsewhere(text):
            path = str(path_of(text))
            return cls(text, text, (), _name_of(path, ()), False, None, find_row(path))
        if parts := tuple(map(cls.parse, matches(text))):
            name = _safe(Path(text).absolute().parent.name.replace("*", "")) or "data"
            return cls(text, text, (), name, True, None, parts[0].row, parts)
        base, hints = _parts(text)
        on_disk, revision = os.path.exists(base), None
        if not on_disk and "@" in base and not _FILE_SUFFIX.search(base):
            base, _, revision = base.partition("@")
        row = find_row(base, hints[0] if hints else "")
        return cls(text, base, hints, _name_of(base, hints), on_disk, revision or None, row)

    @classmethod
    def parse_named(cls, spec: str) -> Source:
        """Parse ``[NAME=]FILE``. Without a name, the file's name is used; for train, dev and test with the folder's.

        Args:
            spec: as a user writes it.

        Returns:
            The source, which need not exist.

        Raises:
            RailkdError: the name or the file is empty, or the name cannot be part of a file name.

        Example:
            >>> [Source.parse_named(spec).name for spec in ("hans=ood/HANS/test.tsv", "glue/RTE/dev.tsv", "imdb.csv")]
            ['hans', 'RTE-dev', 'imdb']
        """
        name, equals, path = spec.partition("=")
        # A path may hold "=" too: text that exists as a file, or that has a slash before the "=", is a path.
        if not equals or os.path.exists(spec) or "/" in name:
            return cls.parse(spec)
        if not name or not path:
            raise RailkdError(f"--test {spec}: expected NAME=FILE with both parts, or FILE alone.")
        if name != _safe(name):
            raise RailkdError(
                f"--test {spec}: {name!r} cannot be part of a file name. Fix: use letters, digits, '-', '_' and '.'."
            )
        return replace(cls.parse(path), name=name)

    @property
    def split(self) -> str | None:
        """The split that the text names after a colon, if any: ``name:split`` or ``name:config:split``."""
        return (self.hints[-1] or None) if self.hints else None

    @property
    def config(self) -> str | None:
        """The config of a hub set, if the text names one: ``name:config:split``, or ``name:config:``."""
        return self.hints[0] or None if len(self.hints) == 2 else None

    @property
    def scored_split(self) -> str:
        """The split to score: ``test``, or ``dev`` of a folder that has no such split."""
        return "test" if not os.path.isdir(self.base) or loading.has_split(Path(self.base), "test") else "dev"

    def check(self) -> None:
        """Refuse a path that does not exist. Names that can only be hub names, and addresses, are not checked here."""
        if is_elsewhere(self.base):
            if self.base == STANDARD_INPUT:
                check_input()
            return
        # With a folder data/, the source data/RTE is a misspelled path and not a data set of the hub user "data".
        local = "/" in self.base and os.path.isdir(os.path.dirname(self.base))
        hub = _HUB_NAME.fullmatch(self.base) and len(self.base) <= 96 and not _FILE_SUFFIX.search(self.base)
        if not self.on_disk and (not hub or local or len(self.hints) > 2):
            raise self._missing()

    def rows(self, split: str | None = None) -> datasets.Dataset:
        """Return the raw rows, in their own order and with their own columns.

        Columns that ``datasets`` knows as class labels come as their names, hidden labels (-1) as None.

        Args:
            split: which split of several to read (default ``"train"``); "dev" also finds "validation". A split in the
                text of the source overrides it. A single file has no splits.

        Returns:
            At least one row. `RailkdError` says that the source does not exist, cannot be read, or has no rows or no
            such split.
        """
        wanted = self.split or split
        if files := self._files(split):
            with named_by(self.base, files):
                rows = stack(self.text, files, [self._checked(loading.read_file(path)) for path in files])
        elif self.on_disk:
            rows = loading.read_arrow(Path(self.base), wanted, spelled=self.split is not None)
        else:
            self.check()
            if loading.is_builder(self.base):
                raise self._missing()
            rows = loading.read_hub(self.text, self.base, self.config, self.revision, wanted)
        return take(self._checked(rows), self.cut, self.text)

    def _checked(self, rows: datasets.Dataset) -> datasets.Dataset:
        if rows.num_rows == 0:
            raise RailkdError(f"{self.text}: expected at least one row, got none.")
        check_names(rows.column_names, self.text)
        return loading.with_label_names(rows)

    def file(self, split: str | None = None) -> Path | None:
        """Return the file that holds the rows, and no other rows.

        Args:
            split: as for `rows`.

        Returns:
            The file; None: the rows are in several files, a part of a file, in an Arrow folder or on the hub.
        """
        files = self._files(split)
        return files[0] if len(files) == 1 and not self.cut else None

    def _files(self, split: str | None) -> list[Path]:
        """Return the files that the rows lie in; none: they are in an Arrow folder or on the hub."""
        if self.parts:
            return [Path(part.base) for part in self.parts]
        if is_elsewhere(self.base):
            return list(fetched(self.base))
        if os.path.isdir(self.base):
            return loading.files_in(Path(self.base), self.split or split)
        if self.on_disk and self.split:
            raise RailkdError(
                f"{self.base}:{self.split}: a file has no splits. Fix: give {self.base} alone, or a folder of splits."
            )
        return [Path(self.base)] if self.on_disk else []

    def _missing(self) -> RailkdError:
        """Return the error for a source that does not exist, with the nearest name in its folder."""
        text = self.text
        if not text.strip():
            kinds = "a csv, tsv, jsonl or parquet file, a folder of splits or a hub name"
            return RailkdError(f"no file is given. Expected {kinds}.")
        shown = text if len(text) <= 200 else text[:197] + "..."
        shown = shown if shown.isprintable() else repr(shown)
        folder, name = os.path.split(self.base)
        if folder and not os.path.isdir(folder):
            return RailkdError(
                f"{shown}: no such file: the folder {folder[:200]!r} does not exist. Fix: check the path."
            )
        names: list[str] = []
        with contextlib.suppress(OSError):  # The suggestion is optional.
            names = os.listdir(folder or ".")
        return RailkdError(f"{shown}: no such file.{did_you_mean(name, names)} Fix: check the path.")


def load_rows(text: str, *, split: str | None = None) -> datasets.Dataset:
    """Return the raw rows of a source: `Source.parse`, then `Source.rows`.

    Args:
        text: as a user writes it.
        split: which split of several to read (default ``"train"``).

    Example:
        >>> load_rows("glue/CoLA:dev")[0]["sentence"]  # doctest: +SKIP
        'The sailors rode the breeze clear of the rocks.'
    """
    return Source.parse(text).rows(split)


def parse_named(specs: Iterable[str]) -> dict[str, Source]:
    """Parse several ``[NAME=]FILE``.

    Args:
        specs: as a user writes them.

    Returns:
        Name -> source, in the given order.

    Raises:
        RailkdError: two sources have the same name, or one has the name of the rows that choose the epoch.

    Example:
        >>> {name: source.text for name, source in parse_named(["glue/RTE:dev", "hans=ood/HANS/test.tsv"]).items()}
        {'RTE-dev': 'glue/RTE:dev', 'hans': 'ood/HANS/test.tsv'}
    """
    found: dict[str, Source] = {}
    seen: dict[str, Source] = {}
    for source in map(Source.parse_named, specs):
        spelled = source.name.casefold()  # files are named after sets, and some file systems ignore case
        if spelled == SELECTION_SET:
            raise RailkdError(
                f"--test: expected another name for {source.text} than {SELECTION_SET!r}, the name of the rows "
                f"that choose the epoch. Fix: name it otherwise: NAME={source.text}."
            )
        if spelled in seen:
            case = "" if seen[spelled].name == source.name else ", but for case"
            raise RailkdError(
                f"--test: {seen[spelled].text} and {source.text} have the same name {source.name!r}{case}. "
                f"Fix: name one: NAME={source.text}."
            )
        found[source.name] = seen[spelled] = source
    return found


# ---- names ---------------------------------------------------------------------------------------------------------


def _parts(text: str) -> tuple[str, tuple[str, ...]]:
    if os.path.exists(text):
        return text, ()
    front, _, last = text.rpartition(":")
    if front and last and os.path.exists(front):
        return front, (last,)
    base, *hints = text.split(":")
    return base, tuple(hints)


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def _name_of(base: str, hints: Iterable[str]) -> str:
    path = Path(base)
    stem = stem_of(path)
    splits = {name for names in SPLITS.values() for name in names} | {"dev_mismatched", "test_mismatched"}
    parts = [path.absolute().parent.name, stem] if stem in splits else [stem or path.absolute().name]
    return _safe("-".join((*parts, *filter(None, hints)))) or "data"
