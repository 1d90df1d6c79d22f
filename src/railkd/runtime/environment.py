"""The software environment of a run: library versions and the git commit."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from railkd import __version__

_LIBRARIES = ("railkd", "torch", "transformers", "datasets", "accelerate", "tokenizers", "numpy")


def commit() -> str | None:
    """The git commit railkd runs from, with ``+`` where files were changed since; None: installed, or no git."""
    here = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # inside of somebody else's checkout
            return None
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Versions of python and of the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = __version__ if name == "railkd" else "not installed"
    return found
