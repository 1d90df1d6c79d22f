"""Labels by name: which classes there are, what index each has, and how data and model agree.

Label order differs between files, models and tasks, so an index from one place is never used in another: names are
matched, and where there are no names to match the user is asked (--label-map).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from railkd.errors import RailkdError
from railkd.runtime.words import named, quoted

MISSING = -100  # the class index that torch's cross-entropy leaves out


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a model in index order; none where labels are numbers.

    Attributes:
        names: of the classes.
        spellings: how data spell the classes, where not as ``names`` do -> index.
        fold: onto the coarser classes of a set; None: it has those of the model.

    >>> LabelSpace(("negative", "positive")).encode(["positive", "negative"], where="dev.tsv")
    [1, 0]
    """

    names: tuple[str, ...]
    spellings: Mapping[str, int] = field(default_factory=dict)
    fold: Fold | None = None

    def encode(self, values: Iterable[Any], *, where: str, allow_missing: bool = False) -> list[int]:
        """Return class indices.

        Args:
            values: one label a row. where: a file, for messages.
            allow_missing: rows without a label become -100; otherwise they are refused.
        """
        encoded = []
        for row, value in enumerate(values, 1):
            if not is_missing(value):
                encoded.append(self.index(value, where=f"{where}: row {row}"))
            elif allow_missing:
                encoded.append(MISSING)
            else:
                raise RailkdError(f"{where}: row {row} has no label; fill it in, or give the rows as --unlabelled.")
        return encoded

    def index(self, value: Any, *, where: str) -> int:
        """Return the index of one label; ``where`` (file and row) is for messages."""
        name = label_name(value, where=where)
        if name not in self._known:
            raise RailkdError(
                f"{where} has the label {name!r}, which is none of {named(self.names)}; "
                "correct it, or rename it with --label-map OLD=NEW."
            )
        return self._known[name]

    @cached_property
    def _known(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)} | dict(self.spellings)


def infer_classes(present: Sequence[Any], *, names: Sequence[str] = (), where: str = "labels") -> LabelSpace:
    """Return the classes of the training rows, in the order of numbers or of the alphabet.

    Args:
        present: the labels that are there, one at least.
        names: an official class order (that of a GLUE task), taken when every label is one of them.
        where: a file, for messages.

    >>> infer_classes(["10", "9", "9"]).names
    ('9', '10')
    """
    found = {label_name(value, where=where) for value in present}
    if names and found <= set(names):
        return LabelSpace(tuple(names))
    if len(found) < 2:
        raise RailkdError(
            f"{where}: every label is {next(iter(found))!r}; wanted two classes at least, or --problem-type regression."
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
    """The model's classes, encoding the data's names into the model's indices.

    Names match by name; case, "-", "_" and spaces do not count. Data may lack classes that the model has. A model that
    kept the default names LABEL_0, LABEL_1, ... has none: there a class matches by index only when the data write it as
    a number, in the cell itself or before ``label_map`` (the one applied to the data) renamed it.

    >>> space = match_label_space(["NEGATIVE", "POSITIVE"], LabelSpace(("Positive", "Negative")))
    >>> space.names, space.encode(["Positive", "Negative"], where="dev.tsv")
    (('NEGATIVE', 'POSITIVE'), [1, 0])
    """
    names = tuple(model_names)
    if len(names) == 1:
        raise RailkdError(
            f"{model} has one output (regression), {where} has the classes {named(data.names)}; "
            "wanted a classifier, or --problem-type regression."
        )
    exact = {name: index for index, name in enumerate(names)}
    alike: dict[str, int] = {}
    for index, name in enumerate(names):
        # Two model classes that differ only in what does not count: then only the exact spelling is safe.
        alike[loose(name)] = -1 if loose(name) in alike else index
    spellings = {name: exact.get(name, alike.get(loose(name), -1)) for name in data.names}
    nameless = unnamed(names)
    if nameless and -1 in spellings.values():
        digits = {new: old for old, new in (label_map or {}).items()}
        indices = {str(index): index for index in range(len(names))}
        spellings = {name: indices.get(digits.get(name, name), -1) for name in data.names}
    lacking = [name for name, index in spellings.items() if index < 0]
    if lacking:
        why = "which are no names" if nameless else f"which lack {named(lacking)}"
        raise RailkdError(
            f"{where} has the classes {named(data.names)}, {model} has {named(names)}, {why}; "
            f"say which is which: --label-map {' '.join(f'{quoted(name)}=NEW' for name in lacking[:3])}"
            f"{' ...' if len(lacking) > 3 else ''} (NEW: a class of the model)."
        )
    return LabelSpace(names, spellings=spellings)


@dataclass(frozen=True)
class Fold:
    """The classes of a test set that are coarser than a model's, and the one each class of the model counts as.

    Attributes:
        names: the classes of the set. group: index of a model's class -> index in ``names``.

    >>> fold = fold_onto(["entailment", "neutral", "contradiction"], ["no", "entailment"], {"neutral": "no",
    ...                  "contradiction": "no"})
    >>> fold.names, fold.group
    (('no', 'entailment'), (1, 0, 0))
    """

    names: tuple[str, ...]
    group: tuple[int, ...]

    def describe(self, model_names: Sequence[str]) -> str:
        """In words, for the user."""
        parts = [
            f"{' + '.join(name for name, g in zip(model_names, self.group, strict=True) if g == number)} -> {theirs}"
            for number, theirs in enumerate(self.names)
        ]
        return "answers are folded by name: " + ", ".join(parts)


def fold_onto(model_names: Sequence[str], names: Sequence[str], renamed: Mapping[str, str]) -> Fold | None:
    """How a model's classes fold onto those of a set; None where they match one by one, or where the names do not say.

    Args:
        names: the set's classes. renamed: class of a model -> class of the set, where the names differ; a set that is
            finer than the model is folded too.
    """
    ours = [loose(name) for name in model_names]
    if set(map(loose, names)) <= set(ours):
        return None
    moved = {loose(old): new for old, new in renamed.items()}
    theirs = list(dict.fromkeys(moved.get(loose(name), name) for name in names))
    index = {loose(name): number for number, name in enumerate(theirs)}
    group = [index.get(loose(moved.get(name, name)), -1) for name in ours]
    return None if -1 in group or set(group) != set(index.values()) else Fold(tuple(theirs), tuple(group))


def parse_label_map(items: Iterable[str]) -> dict[str, str]:
    """``OLD=NEW`` items as a dictionary; several OLD may share one NEW.

    >>> parse_label_map(["neutral=no", "contradiction=no"])
    {'neutral': 'no', 'contradiction': 'no'}
    """
    mapping: dict[str, str] = {}
    for item in items:
        old, _, new = (part.strip() for part in item.partition("="))
        if not old or not new:
            raise RailkdError(f"--label-map: got {item!r}; wanted OLD=NEW, e.g. 0=negative.")
        if mapping.get(old, new) != new:
            raise RailkdError(f"--label-map: {old!r} is to be both {mapping[old]!r} and {new!r}; keep one.")
        mapping[old] = new
    return mapping


def apply_label_map(values: Iterable[Any], mapping: Mapping[str, str]) -> list[Any]:
    """Values with the mapped ones renamed; the others, and missing ones, as they are.

    >>> apply_label_map([0, "1", None], {"0": "negative", "1": "positive"})
    ['negative', 'positive', None]
    """
    if not mapping:
        return list(values)
    return [value if is_missing(value) else mapping.get(label_name(value), value) for value in values]


def is_missing(value: Any) -> bool:
    """No label: null, or an empty cell."""
    return value is None or (isinstance(value, str) and not value.strip())


def label_name(value: Any, *, where: str = "labels") -> str:
    """The name of a class as text: 1, 1.0 (a column that once had gaps) and "1" are one class; true is "true".

    >>> [label_name(value) for value in (1, 1.0, " 1", True, "pos")]
    ['1', '1', '1', 'true', 'pos']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise RailkdError(f"{where}: a label is a {type(value).__name__}; wanted one name or one number per row.")


def number_of(value: Any) -> float | None:
    """Return a label as a number; None: it is none."""
    try:
        return None if isinstance(value, bool) or "_" in str(value) else float(value)
    except (TypeError, ValueError):
        return None


def unnamed(names: Sequence[str]) -> bool:
    """Whether classes kept the default names of transformers: LABEL_0, LABEL_1, ..."""
    return all(name == f"LABEL_{index}" for index, name in enumerate(names))


def loose(name: str) -> str:
    """Return what counts of a name: not case, not separators between characters; a sign in front does: -1 is not 1."""
    return re.sub(r"(?<=[^\W_])[-_ ]+(?=[^\W_])", "", name.strip().casefold())
