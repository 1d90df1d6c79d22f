"""Finds a method by its name: in the table, among those that were registered or installed, or at an address.

An address (`railkd.runtime.addresses`) and an entry point of the group ``railkd.methods`` name a `MethodSpec` or a
subclass of `Objective`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from railkd.errors import RailkdError, did_you_mean
from railkd.objectives.spec import MethodSpec
from railkd.objectives.table import METHODS
from railkd.runtime.addresses import find, import_module, is_address, load

#: The group of entry points that installed packages declare their methods in.
GROUP = "railkd.methods"
_registered: dict[str, MethodSpec] = {}


def register(spec: MethodSpec) -> MethodSpec:
    """Give a method a name in this process.

    Args:
        spec: the row, for example ``MethodSpec.of(Mine, "mine")``.

    Returns:
        The row.

    Raises:
        RailkdError: the name is taken, or a run could not use the class.

    Example:
        ``register(MethodSpec.of(Mine, "mine"))``; then ``DistillationTrainingArguments(method="mine")``.
    """
    if spec.name in METHODS or ":" in spec.name or not spec.name:
        raise RailkdError(f"'{spec.name}' cannot be registered: expected a name that no method of railkd has.")
    if _registered.get(spec.name, spec) != spec:
        raise RailkdError(f"'{spec.name}' is registered already, for another class. Fix: choose another name.")
    _registered[spec.name] = spec.checked()
    return spec


def installed() -> dict[str, EntryPoint]:
    """Return the methods of installed packages, by name. Nothing of them is imported.

    Raises:
        RailkdError: two packages give a method the same name, or one takes the name of a method of railkd.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in METHODS:
            raise RailkdError(
                f"the package {_package(entry)} declares the method '{entry.name}', which is a method of railkd. Fix: "
                "rename it there, or uninstall the package."
            )
        if found.setdefault(entry.name, entry).value != entry.value:
            raise RailkdError(
                f"the packages {_package(found[entry.name])} and {_package(entry)} both declare the method "
                f"'{entry.name}'. Fix: uninstall one, or name the class by its address, {entry.value}."
            )
    return found


def known_methods() -> list[str]:
    """Return the names of all methods: those of railkd, registered ones and those of installed packages."""
    return list(dict.fromkeys([*METHODS, *_registered, *installed()]))


def is_registered(name: str) -> bool:
    """Return whether a name is known in this process alone, so that other processes do not find it."""
    return name in _registered


def method_spec(name: str) -> MethodSpec:
    """Return the row of a method.

    Args:
        name: of a method, or the address of one.

    Returns:
        The row.

    Raises:
        RailkdError: the name is unknown, or the code that it names cannot be used.
    """
    if name in METHODS:
        return METHODS[name]
    if name in _registered:
        return _registered[name]
    if is_address(name):
        return _as_spec(load(name, "method", "CLASS")[0], name)
    entries = installed()
    if name in entries:
        entry = entries[name]
        module = import_module(entry.module, f"the method '{name}'", "CLASS")
        return _as_spec(find(module, entry.attr, entry.value), name)
    known = known_methods()
    raise RailkdError(
        f"unknown method '{name}'; known: {', '.join(known)}.{did_you_mean(name, known)} A method of an installed "
        "package is known by its entry point, one of a file by its address, FILE.py:CLASS."
    )


def _as_spec(found: Any, name: str) -> MethodSpec:
    spec = found if isinstance(found, MethodSpec) else MethodSpec.of(found, name)
    return replace(spec, name=name).checked()


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
