"""Read the software environment of a run: library versions and the git commit."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from railkd import __version__

_LIBRARIES = ("railkd", "torch", "transformers", "datasets", "accelerate", "tokenizers", "numpy")


def commit() -> str | None:
    """Return the git commit that railkd runs from.

    Returns:
        The first 12 digits, with ``+`` if files differ from the commit. None if railkd is installed as a package or git
        is missing.
    """
    here = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # installed inside the checkout of another project
            return None
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect results.

    Returns:
        Name -> version, or "not installed".
    """
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = __version__ if name == "railkd" else "not installed"
    return versions
