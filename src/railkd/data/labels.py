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

from railkd.data.label_names import has_default_names, is_missing, label_name, no_label, normalize
from railkd.errors import RailkdError
from railkd.runtime.words import joined, named, quoted, shortened

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
                f"{where} has the label {shortened(name)!r}. Expected one of {named(self.names)}. "
                "Fix: correct it, or rename it with --label-map OLD=NEW."
            )
        return self._known[name]

    def describe_merged(self) -> str:
        """Return which names of the data are read as one class, in words; empty: each is a class of its own."""
        if self.fold is not None:
            return self.fold.describe(self.names)
        groups = [[name for name, place in self.spellings.items() if place == at] for at in range(len(self.names))]
        pairs = zip(self.names, groups, strict=True)
        merged = [f"{named(group)} as {shortened(name)!r}" for name, group in pairs if len(group) > 1]
        return f"case and separators do not count: {', '.join(merged)}" if merged else ""

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
            f"{where}: every label is {named(found)}. Expected two classes, or --problem-type regression."
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
    several: bool = False,
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
        several: any number of classes may apply to a row, so that a model may have one.

    Raises:
        RailkdError: the model lacks a class of the data, or has one output.

    Example:
        >>> space = match_label_space(["NEGATIVE", "POSITIVE"], LabelSpace(("Positive", "Negative")))
        >>> space.names, space.encode(["Positive", "Negative"], where="dev.tsv")
        (('NEGATIVE', 'POSITIVE'), [1, 0])
    """
    names = tuple(model_names)
    if len(names) == 1 and not several:
        raise RailkdError(
            f"{model} has one output (regression), but {where} has the classes {named(data.names)}. "
            "Fix: use a classifier, or --problem-type regression."
        )
    # A model may have kept a name such as "1.0", which data spell as "1".
    exact = {label_name(name): index for index, name in enumerate(names)}
    exact |= {name: index for index, name in enumerate(names)}
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
            f"Fix: --label-map {' '.join(f'{quoted(shortened(name))}=NEW' for name in lacking[:3])}"
            f"{' ...' if len(lacking) > 3 else ''} (NEW: a class of the model; it applies to all files of the command)."
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
            f"{joined((n for n, g in zip(model_names, self.group, strict=True) if g == number), ' + ')} -> {theirs}"
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
