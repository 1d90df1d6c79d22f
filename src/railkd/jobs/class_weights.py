"""Reads ``--class-weights``: a rule, one number for each class, or numbers by the names of classes. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from railkd.errors import RailkdError, did_you_mean
from railkd.runtime.words import joined, named, shortened

BALANCED = "balanced"
_FORMS = f"{BALANCED}, one number above 0 for each class (1,5), or NAME=NUMBER (toxic=5)"
#: A rule, the numbers in the order of the classes, or the numbers by name.
ClassWeights = str | tuple[float, ...] | Mapping[str, float]


def parse_class_weights(words: Sequence[str]) -> ClassWeights:
    """Read the words of ``--class-weights``. Commas part numbers and entries; a name may hold commas and ``=``.

    Args:
        words: as the user wrote them.

    Returns:
        ``balanced``, numbers, or name -> number.

    Raises:
        RailkdError: the words have another form, a number is not finite and above 0, or a name occurs twice.

    Example:
        >>> parse_class_weights(["1,5"]), parse_class_weights(["toxic=5", "a, b=2"])
        ((1.0, 5.0), {'toxic': 5.0, 'a, b': 2.0})
    """
    text = ",".join(word.strip() for word in words)
    if text.casefold() == BALANCED:
        return BALANCED
    if "=" not in text:
        return tuple(_number(part, text) for part in text.split(","))
    found: dict[str, float] = {}
    name = ""
    for part in text.split(","):
        before, equals, number = part.rpartition("=")
        name += before if equals else f"{part},"
        if not equals:
            continue
        if not name.strip() or name.strip() in found:
            problem = "twice" if name.strip() else "without a name"
            raise RailkdError(f"--class-weights: got {shortened(part)!r} {problem}. Expected {_FORMS}.")
        found[name.strip()] = _number(number, text)
        name = ""
    if name:
        raise RailkdError(f"--class-weights: expected {_FORMS}, got {shortened(text)!r}.")
    return found


def _number(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise RailkdError(f"--class-weights: expected {_FORMS}, got {shortened(text)!r} in {shortened(whole)!r}.")
    return value


def weights_in_order(given: tuple[float, ...] | Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Return the weight of each class.

    Args:
        given: numbers, or name -> number; a class that is not named weighs 1.
        names: of the classes, in the order of the outputs.

    Returns:
        As many weights as there are names.

    Raises:
        RailkdError: there are more or fewer numbers than classes, or a name is no class.

    Example:
        >>> weights_in_order({"toxic": 5.0}, ["fine", "toxic"])
        [1.0, 5.0]
    """
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise RailkdError(
                    f"--class-weights: {shortened(name)!r} is no class. Expected some of {named(names)}."
                    f"{did_you_mean(name, names)}"
                )
        return [float(given.get(name, 1.0)) for name in names]
    if len(given) != len(names):
        raise RailkdError(
            f"--class-weights: expected {len(names)} numbers, for {joined(names)} in this order, got {len(given)}."
        )
    return [float(number) for number in given]
