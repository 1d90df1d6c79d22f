"""Check the fields of a record whose values its schema leaves free: settings, training log and gauges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from railkd.runtime import typed

#: Settings whose values are texts.
_TEXTS = frozenset(("train", "eval", "unlabelled", "test", "ood", "text_column", "label_column", "label_map"))
_TEXTS |= {"model", "teacher", "student", "cache", "output"}
#: Values of the log that are numbers.
_LOGGED = re.compile("epoch$|step$|loss$|eval_|gauge_|ce$|kd$|intermediate$")


@dataclass(frozen=True)
class _Gauges:
    """The gauges of a record, as `railkd.training.gauges` writes them."""

    readings: list[dict[str, float]] = field(default_factory=list)
    similarity: dict[str, list[list[float]]] = field(default_factory=dict)
    warning: str | None = None


def check(config: Mapping[str, Any], curve: Iterable[Mapping[str, Any]], gauges: Mapping[str, Any]) -> None:
    """Refuse settings that name files or columns and are no texts, logged values that are no numbers, and odd gauges.

    Args:
        config: the settings, by short name.
        curve: the entries of the training log.
        gauges: as `railkd.training.gauges` writes them, or empty.

    Raises:
        ValueError: names the first wrong field.
    """
    typed.from_plain(dict[str, str | list[str] | None], {k: v for k, v in config.items() if k in _TEXTS})
    for problem in find_odd_values(curve):
        raise ValueError(f"curve.{problem}")
    try:
        found: _Gauges = typed.from_plain(_Gauges, gauges)
        for reading in found.readings:
            if missing := {"rank", "target_rank", "variance", "term"} - reading.keys():
                raise ValueError(f"readings: expected {', '.join(sorted(missing))} too")
        for moment, matrix in found.similarity.items():
            if len({len(row) for row in matrix}) > 1:
                raise ValueError(f"similarity.{moment}: expected rows of equal length")
    except ValueError as error:
        raise ValueError(f"gauges: {error}") from None


def find_odd_values(curve: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what is no number among the values of a training log that must be, in words.

    Args:
        curve: the entries of the log.
    """
    return [
        f"{number}.{name}: expected a number, got {value!r:.40}"
        for number, entry in enumerate(curve)
        for name, value in entry.items()
        if _LOGGED.match(name) and not (isinstance(value, float) or (type(value) is int and abs(value) < 2**63))
    ]
