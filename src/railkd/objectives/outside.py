"""Finds a method by its name: in the table, among those that were registered or installed, or at an address.

An address names code: ``my_methods.py:Mine`` (a file) or ``package.module:Mine`` (a module that Python can import).
What it names, as what an entry point of the group ``railkd.methods`` names, is a `MethodSpec` or a subclass of
`Objective`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from railkd.errors import RailkdError, did_you_mean
from railkd.objectives.spec import CONTENT, MethodSpec
from railkd.objectives.table import METHODS

#: The group of entry points that installed packages declare their methods in.
GROUP = "railkd.methods"
_registered: dict[str, MethodSpec] = {}
#: Folders with copies of files that hold methods; the last one comes first.
_copies: list[Path] = []


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


def is_address(name: object) -> bool:
    """Return whether the name of a method is an address, so that looking it up runs code."""
    return isinstance(name, str) and ":" in name


def file_of(name: object) -> Path | None:
    """Return the file that an address names; None for a module and for other names."""
    place = name.rpartition(":")[0] if isinstance(name, str) else ""
    return Path(place) if place.endswith(".py") else None


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
        return _spec_at(name)
    entries = installed()
    if name in entries:
        entry = entries[name]
        return _as_spec(_find(_import(entry.module, f"the method '{name}'"), entry.attr, entry.value), name)
    known = known_methods()
    raise RailkdError(
        f"unknown method '{name}'; known: {', '.join(known)}.{did_you_mean(name, known)} A method of an installed "
        "package is known by its entry point, one of a file by its address, FILE.py:CLASS."
    )


@contextmanager
def copies(folder: Path) -> Iterator[None]:
    """Inside the block, prefer the copies of files that `copy_name` names to the files themselves.

    Args:
        folder: of the copies; it need not exist.

    Yields:
        Nothing.
    """
    _copies.append(folder)
    try:
        yield
    finally:
        _copies.pop()


def copy_name(file: Path) -> str:
    """Return the name of the copy of a file, which tells files of the same name apart."""
    return f"{hashlib.sha256(str(file.absolute()).encode()).hexdigest()[:8]}-{file.name}"


def _spec_at(address: str) -> MethodSpec:
    place, _, attribute = address.rpartition(":")
    file = file_of(address)
    if not place or not attribute:
        raise RailkdError(f"method '{address}': expected FILE.py:CLASS or PACKAGE.MODULE:CLASS.")
    module = _run_file(file) if file is not None else _import(place, f"method '{address}'")
    return _as_spec(_find(module, attribute, address), address)


def _as_spec(found: Any, name: str) -> MethodSpec:
    spec = found if isinstance(found, MethodSpec) else MethodSpec.of(found, name)
    return replace(spec, name=name).checked()


def _find(module: Any, attribute: str, address: str) -> Any:
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, [name for name in vars(found) if not name.startswith("_")])
            raise RailkdError(f"'{address}': found no '{part}' there.{near}")
        found = getattr(found, part)
    return found


def _import(module: str, who: str) -> Any:
    try:
        return importlib.import_module(module)
    except BaseException as error:  # SystemExit too: a module that leaves must not end the command in silence
        if isinstance(error, KeyboardInterrupt):
            raise
        missing = isinstance(error, ModuleNotFoundError) and module.startswith(str(error.name))
        reason = "Fix: install its package, or name a file, FILE.py:CLASS." if missing else _place_of(error, None)
        raise RailkdError(f"{who}: the module {module} cannot be imported: {_said(error)}. {reason}") from error


def _run_file(file: Path) -> Any:
    """Return the module that a file holds. It is run once for each content."""
    copy = next((path for folder in reversed(_copies) if (path := folder / copy_name(file)).is_file()), file)
    try:
        content = copy.read_bytes()
    except OSError as error:
        raise RailkdError(f"method file '{file}': expected a Python file that can be read: {error.strerror}.") from None
    name = f"railkd_method_{hashlib.sha256(str(copy.absolute()).encode() + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, copy)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    setattr(module, CONTENT, content)
    sys.modules[name] = module  # dataclasses and typing look modules up there
    try:
        exec(compile(content, str(copy), "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise RailkdError(f"method file '{file}' fails when it is run: {_said(error)}. {_place_of(error, copy)}") from (
            error
        )
    return module


def _said(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f": {lines[0].rstrip('.')}" if lines else "")


def _place_of(error: BaseException, file: Path | None) -> str:
    """Return the sentence that names the line: of the file if the error passed through it, otherwise the last one."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"Fix: see {error.filename}, line {error.lineno}."
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if file is not None and frame.filename == str(file)]
    last = (inside or frames)[-1]
    return f"Fix: see {last.filename}, line {last.lineno}."


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
