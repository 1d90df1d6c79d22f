"""Brings rows from elsewhere into files of this machine, once for each process: standard input, and addresses.

An address names its protocol: ``https://``, ``hf://``, ``s3://``. ``fsspec`` fetches it, and says which package a
protocol needs; http and https need none. The files are deleted when the process ends.
"""

from __future__ import annotations

import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from railkd.errors import RailkdError
from railkd.runtime.launcher import launched_processes
from railkd.runtime.temporary import temporary_folder

STANDARD_INPUT = "-"
_ADDRESS = re.compile(r"([A-Za-z][\w+.-]*)://")
_PATTERN = re.compile(r"[*?[]")
#: How fsspec names the package that a protocol lacks.
_PACKAGE = re.compile(r"[Ii]nstall [\"']?([A-Za-z][\w.-]*\w)")
#: What a file begins with -> the suffix of its format.
_MAGIC = ((b"PAR1", ".parquet"), (b"ARROW1", ".arrow"), (b"{", ".jsonl"), (b"[", ".json"))
_SECONDS = 60.0


def is_elsewhere(text: str) -> bool:
    """Return whether the text of a source means standard input or an address.

    Args:
        text: as a user writes it.

    Example:
        >>> [is_elsewhere(text) for text in ("-", "https://example.org/rows.csv", "rows.csv", "imdb:test")]
        [True, True, False, False]
    """
    return text == STANDARD_INPUT or _ADDRESS.match(text) is not None


def path_of(text: str) -> Path:
    """Return the path by which a source from elsewhere is named.

    Args:
        text: for which `is_elsewhere` holds.

    Example:
        >>> path_of("https://example.org/more/rows.csv?version=2").name, path_of("-").name
        ('rows.csv', 'stdin')
    """
    if text == STANDARD_INPUT:
        return Path("stdin")
    web = _ADDRESS.match(text)[1].lower() in ("http", "https")  # type: ignore[index]
    return Path(re.split(r"[?#]", text)[0] if web else text)


def check_input() -> None:
    """Refuse standard input that nobody can read rows from.

    Raises:
        RailkdError: it is a terminal or closed, or several processes would share it.
    """
    if launched_processes() > 1:
        raise RailkdError(
            f"{STANDARD_INPUT}: expected a file, because {launched_processes()} processes cannot share the standard "
            "input. Fix: write the rows to a file."
        )
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise RailkdError(
            f"{STANDARD_INPUT}: expected rows on the standard input, got a terminal. Fix: send a file into the "
            "command, such as: cat rows.csv | railkd ..."
        )


@contextmanager
def named_by(text: str, files: Sequence[Path]) -> Iterator[None]:
    """Name what the user wrote, and not the copy, in errors of files that were fetched.

    Args:
        text: of the source.
        files: that are read inside the block.

    Yields:
        Nothing.

    Raises:
        RailkdError: an error of the block, in words that the user knows.
    """
    try:
        yield
    except RailkdError as error:
        if not is_elsewhere(text):
            raise
        said = str(error)
        for path in files:
            said = said.replace(str(path), text if len(files) == 1 else f"{text} ({path.name})")
        raise RailkdError(said) from None


@cache
def fetched(text: str) -> tuple[Path, ...]:
    """Return the files that hold the rows of a source from elsewhere, which are fetched at the first call.

    Args:
        text: for which `is_elsewhere` holds.

    Returns:
        One file, or those that a pattern such as ``s3://rows/*.parquet`` matches, in the order of their names.

    Raises:
        RailkdError: they cannot be fetched or read.
    """
    folder = temporary_folder()
    if text == STANDARD_INPUT:
        check_input()
        try:
            return (_spool(sys.stdin.buffer, folder),)
        except OSError as error:
            raise RailkdError(f"{text}: the standard input cannot be read ({error}). Fix: give a file.") from None
    return _fetch(text, folder)


def _spool(stream: BinaryIO, folder: Path) -> Path:
    path = folder / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(stream, file)
    return _with_suffix(path)


def _with_suffix(path: Path) -> Path:
    """Return a file with the suffix of the format that its first bytes show, if its name has none."""
    if path.suffix:
        return path
    with path.open("rb") as file:
        text = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    table = ".tsv" if b"\t" in text.partition(b"\n")[0] else ".csv"
    return path.rename(path.with_suffix(next((suffix for magic, suffix in _MAGIC if text.startswith(magic)), table)))


def _fetch(address: str, folder: Path) -> tuple[Path, ...]:
    try:
        if address.lower().startswith(("http://", "https://")):
            path = folder / path_of(address).name
            with urllib.request.urlopen(address, timeout=_SECONDS) as answer, path.open("wb") as file:
                shutil.copyfileobj(answer, file)
                if answer.length:  # what is missing of the length that the server gave
                    raise EOFError(f"the connection ended {answer.length:,} bytes before the end of the file")
            return (_with_suffix(path),)
        import fsspec

        system: Any
        system, place = fsspec.url_to_fs(address)
        places = sorted(system.glob(place)) if _PATTERN.search(place) else [place]
        files = tuple(folder / f"{number:05d}" / Path(place).name for number, place in enumerate(places))
        for place, path in zip(places, files, strict=True):
            path.parent.mkdir()
            system.get_file(place, str(path))
        files = tuple(map(_with_suffix, files))
    except Exception as error:  # of the network, of protocols and of the packages behind them: no common class
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        lacks = _PACKAGE.search(reason) if isinstance(error, ImportError) else None
        fix = f"pip install {lacks[1]}" if lacks else "check the address, the network and your permission"
        raise RailkdError(f"{address}: cannot be fetched ({reason}). Fix: {fix}.") from None
    if not files:
        raise RailkdError(f"{address}: no such file: nothing matches the pattern. Fix: check the path.")
    return files
