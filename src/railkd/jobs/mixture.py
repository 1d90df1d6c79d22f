"""Joins several files into one table, and keeps which unlabelled rows are of which source, with its share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from datasets import concatenate_datasets

from railkd.data.glue import GlueTask
from railkd.data.keys import keys_of
from railkd.data.reader import Table
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.runtime.words import counted, listed


def shared_row(sources: Sequence[Source]) -> GlueTask | None:
    """Return the entry of the known data set that all sources are of; None if there is none.

    Args:
        sources: any number.
    """
    rows = [source.row for source in sources]
    return rows[0] if rows and all(row == rows[0] for row in rows) else None


def join(tables: Sequence[Table]) -> Table:
    """Return the rows of several tables, one table after the other.

    Args:
        tables: at least one; their labels are not encoded.

    Returns:
        The table. Its source has the names of all.

    Raises:
        RailkdError: labelled tables have columns of other names, or one has single texts and another pairs.
    """
    first, *others = tables
    if not others:
        return first
    for table in others:
        pairs = len(table.columns.text) != len(first.columns.text)
        if pairs or (first.cells is not None and table.columns != first.columns):
            raise RailkdError(
                f"Expected the same columns in all files, got {first.columns.describe()} in '{first.source.text}' and "
                f"{table.columns.describe()} in '{table.source.text}'. Fix: name them with --text-column and "
                "--label-column, or rename them in the file."
            )
    cells = first.cells
    if cells is not None:
        parts = [table.cells for table in tables if table.cells is not None]
        columns = {name: [cell for part in parts for cell in part.columns[name]] for name in cells.columns}
        renamed = {old: new for part in parts for old, new in part.label_map.items()}
        cells = replace(cells, columns=columns, where=_names(tables), label_map=renamed)
    source = replace(first.source, text=_names(tables), row=shared_row([table.source for table in tables]))
    rows, digests = concatenate_datasets([table.rows for table in tables]), [table.texts_digest for table in tables]
    return replace(first, rows=rows, source=source, cells=cells, joined=tuple(digests))


def _names(tables: Sequence[Table]) -> str:
    return " + ".join(table.source.text for table in tables)


def repeated(tables: Sequence[Table]) -> str:
    """Return how many rows of several tables have the text of an earlier row, in words; empty: none has.

    Args:
        tables: in their order.
    """
    keys = np.concatenate([keys_of(table.rows) for table in tables])
    twice = len(keys) - len(np.unique(keys, axis=0))
    verb = "has" if twice == 1 else "have"
    return f"{_names(tables)}: {counted(twice, 'row')} {verb} the text of an earlier row" if twice else ""


@dataclass(frozen=True)
class Mixture:
    """The sources of the unlabelled rows, which lie one after the other, and the shares of them.

    Attributes:
        names: of the K sources.
        group: (N,) number of the source of each unlabelled row, ascending.
        shares: of every batch; None: the source has its part of what the others leave, as the labelled rows have.
    """

    names: tuple[str, ...]
    group: np.ndarray
    shares: tuple[float | None, ...]

    @classmethod
    def of(cls, tables: Sequence[Table], shares: Sequence[float | None]) -> Mixture:
        """Return the mixture of K tables with their shares."""
        group = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        return cls(tuple(table.source.text for table in tables), group, tuple(shares))

    def select(self, rows: np.ndarray) -> Mixture:
        """Return the mixture of some of its rows, in ascending order."""
        return replace(self, group=self.group[rows])

    def of_batches(self, labelled: int) -> tuple[list[int], list[float], list[str]] | None:
        """Return rows, shares and names of the labelled rows and of each source that has rows.

        Args:
            labelled: number of labelled rows.

        Returns:
            None: no source has a share, so that each epoch has every row once.
        """
        sizes = [labelled, *np.bincount(self.group, minlength=len(self.names)).tolist()]
        there = [number for number, size in enumerate(sizes) if size]
        asked = [(None, *self.shares)[number] for number in there]
        if not any(asked):
            return None
        rows = [sizes[number] for number in there]
        rest = 1 - sum(share or 0 for share in asked)
        free = sum(size for share, size in zip(asked, rows, strict=True) if share is None)
        shares = [rest * size / free if share is None else share for share, size in zip(asked, rows, strict=True)]
        return rows, shares, [("the labelled rows", *self.names)[number] for number in there]

    def describe(self, labelled: int) -> str:
        """Return what shares make of the sources in one epoch, in words; empty: there are none.

        Args:
            labelled: number of labelled rows.
        """
        found = self.of_batches(labelled)
        if found is None:
            return ""
        rows, shares, names = found
        parts = []
        for size, share, name in zip(rows, shares, names, strict=True):
            times = share * sum(rows) / size
            read = f"each row {times:.3g} times an epoch" if times > 1 else f"{times:.3g} of its rows an epoch"
            parts.append(f"{share:.1%} of {name} ({read})")
        return f"every batch has {listed(parts)}"
