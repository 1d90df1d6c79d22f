"""Finds the folder of a model: a local one, or one of the hub's local store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from railkd.errors import RailkdError
from railkd.models.weights import KINDS, check_readable, weight_files
from railkd.runtime.words import listed

_SIDE_FILES = ("*.json", "*.txt", "*.model", "merges.txt")


def check_folder(path: Path, name: str, *, model: bool = True) -> None:
    """Refuse a folder that cannot be a model.

    Args:
        path: to look at. No file is opened.
        name: as the user gave it, for messages.
        model: it must hold a config and weights. False if only its tokenizer is used.

    Raises:
        RailkdError: it is a file, holds no config or no weights, or its files may not be read.
    """
    if not path.is_dir():
        raise RailkdError(
            f"Expected a model folder, got the file '{name}'. Fix: give a folder written by save_pretrained, or a hub "
            "name."
        )
    if not model:
        return
    if not (path / "config.json").is_file():
        below = [file.parent.name for file in path.glob("*/config.json")]
        below.sort(key=lambda folder: (folder.startswith("checkpoint-"), folder))
        fix = listed((f"'{Path(name) / folder}'" for folder in below), 3).replace(" and ", " or ")
        raise RailkdError(
            f"'{name}' holds no model: it has no config.json. Fix: give "
            f"{fix if below else 'a folder written by save_pretrained'}."
        )
    files = weight_files(path)
    if not files:
        raise RailkdError(f"'{name}' holds no model weights ({' or '.join(KINDS)}). Fix: save the model there again.")
    check_readable([path / "config.json", *files])


def download_folder(name: str, revision: str | None, trust: bool, download: Callable[..., str] | None = None) -> Path:
    """Download a hub name into the hub's local store. Pickled weights are fetched only if no others exist.

    Args:
        name: hub name such as ``org/name``.
        revision: branch, tag or commit.
        trust: download Python files too.
        download: used instead of `huggingface_hub.snapshot_download`.

    Returns:
        The folder.

    Raises:
        RailkdError: the name is not one of the hub, or the hub cannot be reached.
    """
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or not name:
        raise RailkdError(
            f"no model at '{name}': no such folder; give an existing folder or a hub name such as 'org/name'"
        )
    from huggingface_hub import snapshot_download

    fetch = download or snapshot_download
    beside = [*_SIDE_FILES, "*.py"] if trust else [*_SIDE_FILES]
    try:
        folder = Path(fetch(name, revision=revision, allow_patterns=[*beside, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(fetch(name, revision=revision, allow_patterns=[*beside, "pytorch_model*.bin"]))
    except Exception as error:  # the hub client has many kinds of error; each means the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RailkdError(f"no model at '{name}': no such folder, and the hub gave: {reason[:200]}") from error
    return folder
