"""Reads the options of a method from the parameters of its class: annotations give the types, ``Args:`` the help."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from railkd.errors import RailkdError
from railkd.objectives.base import Objective

#: Parameters that every objective has. The settings of a run give them.
COMMON = tuple(p.name for p in inspect.signature(Objective).parameters.values() if p.kind is p.KEYWORD_ONLY)
_PLAIN = (bool, int, float, str)
_WANTED = "bool, int, float, str, a Literal of texts, a tuple of those, or one of them or None"


@dataclass(frozen=True)
class Option:
    """One option of a method.

    Attributes:
        name: of the parameter.
        kind: bool, int, float or str; of a list, that of its items.
        default: the value if nothing is given.
        help: the text of the docstring, in one line.
        many: whether it takes several values.
        choices: the permitted values; None permits all.
        exactly: the length of a list of fixed length.
    """

    name: str
    kind: type
    default: Any
    help: str = ""
    many: bool = False
    choices: tuple[str, ...] | None = None
    exactly: int | None = None


def read_options(
    make: Callable[..., Any], keyword_only: bool = False, besides: Collection[str] = ()
) -> dict[str, Option]:
    """Return the options that a function or class takes.

    Args:
        make: a function, or a class with its docstring.
        keyword_only: leave out parameters that may be given by position. They are no options of an objective.
        besides: parameters that are not options, beside those of `COMMON`.

    Returns:
        Name -> option, in the order of the parameters.

    Raises:
        RailkdError: an option has no default, or its annotation is not understood.
    """
    where = f"{make.__module__}.{make.__qualname__}"
    init = vars(make)["__init__"] if isinstance(make, type) and "__init__" in vars(make) else make
    found = []
    for parameter in inspect.signature(make).parameters.values():
        named = parameter.kind is parameter.KEYWORD_ONLY
        if parameter.name in (*COMMON, *besides) or not (
            named or (parameter.default is not parameter.empty and not keyword_only)
        ):
            continue
        if parameter.default is parameter.empty:
            raise RailkdError(f"{where}: expected a default for the option '{parameter.name}', got none.")
        found.append(parameter)
    if not found:
        return {}
    try:
        hints = typing.get_type_hints(init)
    except (NameError, TypeError) as error:
        raise RailkdError(f"{where}: expected annotations that can be read, got an error: {error}.") from None
    helps = read_args(inspect.getdoc(make) or "") | read_args(inspect.getdoc(init) or "")
    return {
        p.name: Option(p.name, default=p.default, help=helps.get(p.name, ""), **_read_hint(hints.get(p.name), p, where))
        for p in found
    }


def read_args(doc: str) -> dict[str, str]:
    r"""Return the parameters that a docstring in Google style describes.

    Args:
        doc: without the indent of its first line.

    Returns:
        Name -> its text, in one line, without backticks.

    >>> read_args("Pull.\n\nArgs:\n    margin: the least distance,\n        ``0.1`` at least.\n")
    {'margin': 'the least distance, 0.1 at least.'}
    """
    section = re.search(r"^Args:\n((?: +.*\n?|\n)+)", doc, flags=re.MULTILINE)
    if section is None:
        return {}
    lines = inspect.cleandoc("\n" + section[1]).split("\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        start = re.match(r"(\w+(?:, \w+)*)(?: \([^)]*\))?: *(.*)", line)
        if start:
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return {name: text.replace("`", "") for name, text in found.items()}


def _read_hint(hint: Any, parameter: inspect.Parameter, where: str) -> dict[str, Any]:
    """Return kind, ``many``, ``choices`` and ``exactly`` of an annotation."""
    parts = [hint]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
    if float in parts and int in parts:
        parts.remove(int)
    # Of text or something else the text is taken: the class itself reads it.
    chosen = str if str in parts else parts[0]
    inside = typing.get_args(chosen)
    if chosen in _PLAIN and (chosen is str or len(parts) == 1):
        return {"kind": chosen}
    if len(parts) == 1 and typing.get_origin(chosen) is typing.Literal and all(type(item) is str for item in inside):
        return {"kind": str, "choices": inside}
    if len(parts) == 1 and typing.get_origin(chosen) in (tuple, list, Sequence):
        items = [item for item in inside if item is not Ellipsis]
        if items and items[0] in _PLAIN and len(set(items)) == 1:
            fixed = typing.get_origin(chosen) is tuple and Ellipsis not in inside
            return {"kind": items[0], "many": True, "exactly": len(items) if fixed else None}
    text = parameter.annotation if isinstance(parameter.annotation, str) else inspect.formatannotation(hint)
    got = "no annotation" if hint is None else text
    raise RailkdError(f"{where}: expected {_WANTED} for the option '{parameter.name}', got {got}.")
