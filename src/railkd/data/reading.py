"""How a user wants files to be read, and what that makes of the columns and cells of a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from railkd.data.columns import Columns, compare_texts, find_columns, match_columns
from railkd.data.label_names import parse_label_map
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.runtime.words import counted, named, shortened


@dataclass(frozen=True)
class Reading:
    """How a user wants files to be read. What is empty is found by common names or from the tables of known sets.

    Attributes:
        text: names of the text columns.
        label: names of the label columns; each of several columns is a class, with cells of 0 and 1.
        label_map: old name -> new name of a class; None: that of the tables.
        trained: the text columns that the model was trained on, taken where a file has them; empty: not known.
        strict: a file with one text where the model was trained on two is refused, and the reverse, unless ``text``
            says so. Otherwise a message says it, because training follows.
    """

    text: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    label_map: Mapping[str, str] | None = None
    trained: tuple[str, ...] = ()
    strict: bool = True

    @classmethod
    def parse(
        cls, text: Sequence[str] | str | None, label: Sequence[str] | str | None, label_map: Sequence[str] | None
    ) -> Reading:
        """Return the reading that options ask for.

        Args:
            text: one text column, or two.
            label: one label column, or several.
            label_map: texts ``OLD=NEW``.
        """
        texts, labels = ((given,) if isinstance(given, str) else tuple(given or ()) for given in (text, label))
        return cls(texts, labels, parse_label_map(label_map) if label_map else None)

    def where_there(self, names: Sequence[str]) -> Reading:
        """Return the reading of another file of a job: text and label columns that it lacks are found by common names.

        Args:
            names: of its columns.
        """
        text, label = (wanted if set(wanted) <= set(names) else () for wanted in (self.text, self.label))
        return replace(self, text=text, label=label)


def compare_training(reading: Reading, chosen: Sequence[str], names: Sequence[str], source: Source) -> str:
    """Return a warning if a model was trained on other texts; refuse another number of them that nobody asked for.

    Args:
        reading: which columns to take, and those of the training.
        chosen: the text columns that are read.
        names: of all columns.
        source: where the rows are.

    Returns:
        The warning; empty: there is none.

    Raises:
        RailkdError: the model was trained on pairs and one text is read, or the reverse.
    """
    other = compare_texts(reading.trained, chosen, names)
    if other and reading.strict and not reading.text and len(chosen) != len(reading.trained):
        raise RailkdError(
            f"{source.text}: {other}; the columns are {named(names)}. Fix: name the columns to read with --text-column."
        )
    return f"warning: {other}" if other else ""


def blank_note(rows: int, first: int) -> str:
    """Return the note about rows with an empty text.

    Args:
        rows: number of them.
        first: number of the first one, from 1.
    """
    return f"{counted(rows, 'row')} with an empty text, the first is row {first}"


def check_text(value: Any, row: int, column: str, where: str) -> str:
    """Return the cell of a text column.

    Args:
        value: of the cell.
        row: its number, from 1.
        column: its name.
        where: the source, for the message.

    Raises:
        RailkdError: it is no text.
    """
    if not isinstance(value, str):
        raise RailkdError(
            f"{where}: row {row}: expected text in column {shortened(column)!r}, got {shortened(repr(value))}. "
            "Fix: correct it, or name another --text-column."
        )
    return value


def choose_columns(source: Source, reading: Reading, names: Sequence[str], labelled: bool) -> Columns:
    """Return the columns of a source that are read.

    Args:
        source: where the rows are.
        reading: which columns to take.
        names: of all columns.
        labelled: False leaves the labels out.

    Returns:
        The columns.

    Raises:
        RailkdError: a column is missing or asked for twice.
    """
    row, asked = source.row, reading.label if labelled else ()
    known = row.text if row and set(row.text) <= set(names) else None
    known = match_columns(reading.trained, names, without=asked) or known
    wanted = asked[0] if asked else row.label if row and labelled and row.label in names else None
    columns = find_columns(names, text=reading.text or known, label=wanted)
    if labelled and columns.label is None:
        raise RailkdError(
            f"{source.text}: no column has a common name of a label column; the columns are {named(names)}. "
            "Fix: name one with --label-column, or give the rows as --unlabelled."
        )
    if len(asked) > 1:
        if len(set(asked)) < len(asked):
            raise RailkdError(f"--label-column: expected each column once, got {named(asked)}.")
        for name in asked:
            find_columns(names, text=columns.text, label=name)  # Refuses a column that does not exist.
    return columns
