"""Classes by name: finds them, numbers them, and matches those of data with those of a model.

The order of classes differs between files, models and tasks, so an index from one place is never used in another. Names
are matched instead. Where there are no names, the user is asked (--label-map).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from railkd.errors import RailkdError
from railkd.runtime.words import named, quoted

MISSING = -100  # The class index that torch's cross-entropy leaves out.


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a model in index order; none where labels are numbers.

    Attributes:
        names: of the classes.
        spellings: how data spell the classes, where they differ from ``names`` -> index.
        fold: onto the coarser classes of a set; None: the set has the classes of the model.

    Example:
        >>> LabelSpace(("negative", "positive")).encode(["positive", "negative"], where="dev.tsv")
        [1, 0]
    """

    names: tuple[str, ...]
    spellings: Mapping[str, int] = field(default_factory=dict)
    fold: Fold | None = None

    def encode(self, values: Iterable[Any], *, where: str, allow_missing: bool = False) -> list[int]:
        """Return class indices.

        Args:
            values: one label a row.
            where: the source, for messages.
            allow_missing: rows without a label become -100; otherwise they are refused.

        Raises:
            RailkdError: a row without a label, or with a class that the space does not have.
        """
        encoded = []
        for row, value in enumerate(values, 1):
            if not is_missing(value):
                encoded.append(self.index(value, where=f"{where}: row {row}"))
            elif allow_missing:
                encoded.append(MISSING)
            else:
                raise RailkdError(no_label(where, row))
        return encoded

    def index(self, value: Any, *, where: str) -> int:
        """Return the index of one label.

        Args:
            value: the label.
            where: source and row, for messages.

        Raises:
            RailkdError: the space does not have this class.
        """
        name = label_name(value, where=where)
        if name not in self._known:
            raise RailkdError(
                f"{where} has the label {name!r}. Expected one of {named(self.names)}. "
                "Fix: correct it, or rename it with --label-map OLD=NEW."
            )
        return self._known[name]

    @cached_property
    def _known(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)} | dict(self.spellings)


def infer_classes(present: Sequence[Any], *, names: Sequence[str] = (), where: str = "labels") -> LabelSpace:
    """Return the classes of the training rows, in the order of numbers or of the alphabet.

    Args:
        present: the labels that are there, at least one.
        names: an official class order (that of a GLUE task), used if every label is one of them.
        where: the source, for messages.

    Raises:
        RailkdError: every label is the same.

    Example:
        >>> infer_classes(["10", "9", "9"]).names
        ('9', '10')
    """
    found = {label_name(value, where=where) for value in present}
    if names and found <= set(names):
        return LabelSpace(tuple(names))
    if len(found) < 2:
        raise RailkdError(
            f"{where}: every label is {next(iter(found))!r}. Expected two classes, or --problem-type regression."
        )
    integers = all(re.fullmatch(r"[+-]?\d+", name) for name in found)
    return LabelSpace(tuple(sorted(found, key=lambda name: (int(name), name)) if integers else sorted(found)))


def match_label_space(
    model_names: Sequence[str],
    data: LabelSpace,
    *,
    label_map: Mapping[str, str] | None = None,
    model: str = "the model",
    where: str = "the data",
) -> LabelSpace:
    """Return the model's classes with the spellings of the data.

    Classes match by name; case, "-", "_" and spaces do not count. Data may lack classes that the model has. A model
    with the default names LABEL_0, LABEL_1, ... has no names. There a class matches by index, but only if the data
    write it as a number, in the cell itself or before ``label_map`` renamed it.

    Args:
        model_names: in output order.
        data: the classes of the data.
        label_map: the one that was applied to the data: old name -> new name.
        model: in words, for messages.
        where: the source, for messages.

    Raises:
        RailkdError: the model lacks a class of the data, or has one output.

    Example:
        >>> space = match_label_space(["NEGATIVE", "POSITIVE"], LabelSpace(("Positive", "Negative")))
        >>> space.names, space.encode(["Positive", "Negative"], where="dev.tsv")
        (('NEGATIVE', 'POSITIVE'), [1, 0])
    """
    names = tuple(model_names)
    if len(names) == 1:
        raise RailkdError(
            f"{model} has one output (regression), but {where} has the classes {named(data.names)}. "
            "Fix: use a classifier, or --problem-type regression."
        )
    exact = {name: index for index, name in enumerate(names)}
    alike: dict[str, int] = {}
    for index, name in enumerate(names):
        # If two classes of the model have one normal form, only the exact spelling is safe.
        alike[normalize(name)] = -1 if normalize(name) in alike else index
    spellings = {name: exact.get(name, alike.get(normalize(name), -1)) for name in data.names}
    nameless = has_default_names(names)
    if nameless and -1 in spellings.values():
        digits = {new: old for old, new in (label_map or {}).items()}
        indices = {str(index): index for index in range(len(names))}
        spellings = {name: indices.get(digits.get(name, name), -1) for name in data.names}
    lacking = [name for name, index in spellings.items() if index < 0]
    if lacking:
        why = "which are default names" if nameless else f"without {named(lacking)}"
        raise RailkdError(
            f"{where} has the classes {named(data.names)}, {model} has {named(names)}, {why}. "
            f"Fix: --label-map {' '.join(f'{quoted(name)}=NEW' for name in lacking[:3])}"
            f"{' ...' if len(lacking) > 3 else ''} (NEW: a class of the model)."
        )
    return LabelSpace(names, spellings=spellings)


@dataclass(frozen=True)
class Fold:
    """The map from a model's classes to the coarser ones of a test set.

    Attributes:
        names: the classes of the set.
        group: index of a model's class -> index in ``names``.

    Example:
        >>> fold = fold_onto(["entailment", "neutral", "contradiction"], ["no", "entailment"], {"neutral": "no",
        ...                  "contradiction": "no"})
        >>> fold.names, fold.group
        (('no', 'entailment'), (1, 0, 0))
    """

    names: tuple[str, ...]
    group: tuple[int, ...]

    def describe(self, model_names: Sequence[str]) -> str:
        """Return the fold in words.

        Args:
            model_names: in output order.
        """
        parts = [
            f"{' + '.join(name for name, g in zip(model_names, self.group, strict=True) if g == number)} -> {theirs}"
            for number, theirs in enumerate(self.names)
        ]
        return "answers are folded by name: " + ", ".join(parts)


def fold_onto(model_names: Sequence[str], names: Sequence[str], renamed: Mapping[str, str]) -> Fold | None:
    """Return how a model's classes fold onto those of a set. A set that is finer than the model is folded too.

    Args:
        model_names: in output order.
        names: the set's classes.
        renamed: class of a model -> class of the set, where the names differ.

    Returns:
        The fold; None: the classes match one by one, or the names do not tell.
    """
    ours = [normalize(name) for name in model_names]
    if set(map(normalize, names)) <= set(ours):
        return None
    moved = {normalize(old): new for old, new in renamed.items()}
    theirs = list(dict.fromkeys(moved.get(normalize(name), name) for name in names))
    index = {normalize(name): number for number, name in enumerate(theirs)}
    group = [index.get(normalize(moved.get(name, name)), -1) for name in ours]
    return None if -1 in group or set(group) != set(index.values()) else Fold(tuple(theirs), tuple(group))


def parse_label_map(items: Iterable[str]) -> dict[str, str]:
    """Parse texts ``OLD=NEW``; several OLD may share one NEW.

    Args:
        items: the texts.

    Returns:
        Old name -> new name.

    Raises:
        RailkdError: a text has another form, or one OLD has two NEW.

    Example:
        >>> parse_label_map(["neutral=no", "contradiction=no"])
        {'neutral': 'no', 'contradiction': 'no'}
    """
    mapping: dict[str, str] = {}
    for item in items:
        old, _, new = (part.strip() for part in item.partition("="))
        if not old or not new:
            raise RailkdError(f"--label-map: expected OLD=NEW, e.g. 0=negative, got {item!r}.")
        if mapping.get(old, new) != new:
            raise RailkdError(f"--label-map: {old!r} is renamed to both {mapping[old]!r} and {new!r}. Fix: keep one.")
        mapping[old] = new
    return mapping


def apply_label_map(values: Iterable[Any], mapping: Mapping[str, str]) -> list[Any]:
    """Rename the labels that a map has; others, and missing ones, stay.

    Args:
        values: one label a row.
        mapping: old name -> new name.

    Example:
        >>> apply_label_map([0, "1", None], {"0": "negative", "1": "positive"})
        ['negative', 'positive', None]
    """
    if not mapping:
        return list(values)
    return [value if is_missing(value) else mapping.get(label_name(value), value) for value in values]


def is_missing(value: Any) -> bool:
    """Return whether a cell holds no label: null, or an empty text."""
    return value is None or (isinstance(value, str) and not value.strip())


def no_label(where: str, row: int) -> str:
    """Return the message for a row without a label.

    Args:
        where: the source.
        row: its number, from 1.
    """
    return f"{where}: row {row} has no label. Fix: fill it in, or give the rows as --unlabelled."


def label_name(value: Any, *, where: str = "labels") -> str:
    """Return the name of a class as text. 1, 1.0 (from a column that once had gaps) and "1" are one class.

    Args:
        value: one cell.
        where: source and row, for messages.

    Raises:
        RailkdError: it is neither a text nor a number.

    Example:
        >>> [label_name(value) for value in (1, 1.0, " 1", True, "pos")]
        ['1', '1', '1', 'true', 'pos']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise RailkdError(f"{where}: expected one name or one number per row, got a label of type {type(value).__name__}.")


def parse_number(value: Any) -> float | None:
    """Return a label as a number, or None if it is not one."""
    try:
        return None if isinstance(value, bool) or "_" in str(value) else float(value)
    except (TypeError, ValueError):
        return None


def has_default_names(names: Sequence[str]) -> bool:
    """Return whether classes have the default names of transformers: LABEL_0, LABEL_1, ..."""
    return all(name == f"LABEL_{index}" for index, name in enumerate(names))


def normalize(name: str) -> str:
    """Return a name without case and without separators inside. A sign in front counts: -1 is not 1."""
    return re.sub(r"(?<=[^\W_])[-_ ]+(?=[^\W_])", "", name.strip().casefold())
