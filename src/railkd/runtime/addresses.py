"""Loads Python code that an address names: ``my_file.py:Name`` (a file) or ``package.module:Name`` (a module).

Methods and metrics of users are named so. A file is run once for each content.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from railkd.errors import RailkdError, did_you_mean

#: Attribute of a module that was run from a file: the bytes that were run.
_CONTENT = "__railkd_content__"
#: Folders with copies of files; the last one comes first.
_copies: list[Path] = []


def is_address(name: object) -> bool:
    """Return whether a name is an address, so that looking it up runs code."""
    return isinstance(name, str) and ":" in name


def file_of(name: object) -> Path | None:
    """Return the file that an address names; None for a module and for other names."""
    place = name.rpartition(":")[0] if isinstance(name, str) else ""
    return Path(place) if place.endswith(".py") else None


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


def load(address: str, noun: str, kind: str) -> tuple[Any, ModuleType]:
    """Return what an address names.

    Args:
        address: of a file or a module.
        noun: what the code is for, such as "method", for messages.
        kind: of the named thing, such as "CLASS", for messages.

    Returns:
        The named thing, and the module that was run.

    Raises:
        RailkdError: the address is no address, or the code fails or lacks the name.
    """
    place, _, attribute = address.rpartition(":")
    file = file_of(address)
    if not place or not attribute:
        raise RailkdError(f"{noun} '{address}': expected FILE.py:{kind} or PACKAGE.MODULE:{kind}.")
    module = _run_file(file, noun) if file is not None else import_module(place, f"{noun} '{address}'", kind)
    return find(module, attribute, address), module


def find(module: Any, attribute: str, address: str) -> Any:
    """Return an attribute of a module; dots lead into it.

    Args:
        module: that was imported.
        attribute: a name, or names joined by dots.
        address: for the message.

    Raises:
        RailkdError: a name is not there.
    """
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = getattr(found, "__dict__", {})
            near = did_you_mean(part, [name for name in names if not name.startswith("_")])
            raise RailkdError(f"'{address}': found no '{part}' there.{near}")
        found = getattr(found, part)
    return found


def import_module(module: str, who: str, kind: str) -> Any:
    """Import a module.

    Args:
        module: its name.
        who: what it is needed for, for messages.
        kind: as for `load`.

    Returns:
        The module.

    Raises:
        RailkdError: it is missing or fails.
    """
    try:
        return importlib.import_module(module)
    except BaseException as error:  # SystemExit too: a module that leaves must not end the command in silence
        if isinstance(error, KeyboardInterrupt):
            raise
        missing = isinstance(error, ModuleNotFoundError) and module.startswith(str(error.name))
        reason = f"Fix: install its package, or name a file, FILE.py:{kind}." if missing else place_of(error, None)
        raise RailkdError(f"{who}: the module {module} cannot be imported: {in_words(error)}. {reason}") from error


def digest(module: ModuleType | None) -> str:
    """Return a digest of the file of a module; empty if there is none."""
    file = getattr(module, "__file__", None) or ""  # None: typed into an interpreter
    content = getattr(module, _CONTENT, None) or (Path(file).read_bytes() if file.endswith(".py") else b"")
    return hashlib.sha256(content).hexdigest()[:32] if content else ""


def _run_file(file: Path, noun: str) -> ModuleType:
    """Return the module that a file holds. It is run once for each content."""
    copy = next((path for folder in reversed(_copies) if (path := folder / copy_name(file)).is_file()), file)
    try:
        content = copy.read_bytes()
    except OSError as error:
        raise RailkdError(f"{noun} file '{file}': expected a Python file that can be read: {error.strerror}.") from None
    name = f"railkd_method_{hashlib.sha256(str(copy.absolute()).encode() + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, copy)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    setattr(module, _CONTENT, content)
    sys.modules[name] = module  # dataclasses and typing look modules up there
    try:
        exec(compile(content, str(copy), "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        words = f"{noun} file '{file}' fails when it is run: {in_words(error)}. {place_of(error, copy)}"
        raise RailkdError(words) from error
    return module


def in_words(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f": {lines[0].rstrip('.')}" if lines else "")


def place_of(error: BaseException, file: Path | None) -> str:
    """Return the sentence that names the line of an error: of the file if it passed through it, else the last one.

    Args:
        error: that was caught.
        file: that was run; None: not known.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"Fix: see {error.filename}, line {error.lineno}."
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if file is not None and frame.filename == str(file)]
    last = (inside or frames)[-1]
    return f"Fix: see {last.filename}, line {last.lineno}."
