"""Checkpoints by folder or hub name: found, looked into without building anything, loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from railkd.errors import RailkdError

WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")
_SIDE_FILES = ("*.json", "*.txt", "*.model", "merges.txt")


def resolve(name: str | Path) -> Path:
    """The folder of a checkpoint: a local one as it is, a hub name by way of the hub's local store.

    Raises:
        RailkdError: no such folder, a folder that holds no model, or a hub that cannot be reached.
    """
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise RailkdError(
                f"'{name}' holds no model: it has no config.json; give a folder written by save_pretrained"
            )
        if not any(True for _ in weight_files(path)):
            raise RailkdError(
                f"'{name}' holds no model weights ({' or '.join(WEIGHT_PATTERNS)}); save the model there again"
            )
        return path
    if path.exists():
        raise RailkdError(f"'{name}' is a file, wanted a model folder written by save_pretrained or a hub name")
    text = str(name)
    if text.count("/") > 1 or text.startswith((".", "/", "~")) or not text:
        raise RailkdError(
            f"no model at '{name}': no such folder; give an existing folder or a hub name such as 'org/name'"
        )
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(text, allow_patterns=[*_SIDE_FILES, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(text, allow_patterns=[*_SIDE_FILES, "pytorch_model*.bin"]))
    except Exception as error:  # the hub client has many kinds of error; each means the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RailkdError(f"no model at '{name}': no such folder, and the hub gave: {reason[:200]}") from error
    return resolve(folder)


def weights_digest(folder: Path) -> str:
    """SHA-256 over the weight files of a checkpoint folder, without loading them as a model."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def load_config(folder: str | Path) -> Any:
    """The config of a checkpoint; the model is not built."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, json.JSONDecodeError) as error:
        raise RailkdError(f"cannot read the config of '{folder}': {str(error).splitlines()[0]}") from error


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a checkpoint."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise RailkdError(f"'{folder}' holds no tokenizer that loads: {str(error).splitlines()[0]}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_classifier(folder: str | Path, **config: Any) -> Any:
    """A sequence classifier (or regressor); a checkpoint without a head gets a new one, drawn from torch's global seed.

    Args:
        folder: resolved checkpoint.
        config: overrides such as ``num_labels``, ``id2label``, ``problem_type``.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        with quiet_transformers():
            # Single precision, whatever the weights are kept in: small steps are lost in half precision.
            # And no code out of a checkpoint is run: left open, transformers asks, and takes "y" for a yes.
            options = {"dtype": torch.float32, "trust_remote_code": False} | config
            model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    except (ValueError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RailkdError(f"cannot load a sequence classifier from '{folder}': {reason}") from error
    name_padding(model.config, Path(folder))
    return model


def name_padding(config: Any, folder: Path) -> None:
    """Tell a config without a padding token (a decoder's) the tokenizer's: a classifier reads the token before it."""
    if config.pad_token_id is None:
        config.pad_token_id = load_tokenizer(folder).pad_token_id


class quiet_transformers:
    """Keep transformers' loading report and progress bars away from the user's screen."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._level, self._bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._bars:
            logging.enable_progress_bar()


def weight_files(folder: Path) -> Iterator[Path]:
    """The weight files of a checkpoint's model; the objective's, which may lie beside them, are none."""
    for pattern in WEIGHT_PATTERNS:
        found = sorted(path for path in folder.glob(pattern) if path.name != "objective.safetensors")
        if found:
            yield from found
            return
