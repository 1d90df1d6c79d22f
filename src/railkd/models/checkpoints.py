"""Checkpoints by folder or hub name: found, looked into without building anything, loaded."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

from railkd.errors import RailkdError

#: The weights of the objective, which training writes beside those of the student.
OBJECTIVE_FILE = "objective.safetensors"
WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")
_SIDE_FILES = ("*.json", "*.txt", "*.model", "merges.txt")
_Folder: Any = type(Path())
logger = logging.getLogger(__name__)


class TrustedFolder(_Folder):
    """The folder of a checkpoint whose own Python code the user lets run; `resolve` makes it.

    The permission travels with the path of this one checkpoint. It is no state of the process, and a path made anew
    has lost it.
    """


def resolve(name: str | Path, *, trust_remote_code: bool = False, download: Callable[..., str] | None = None) -> Path:
    """The folder of a checkpoint: a local one as it is, a hub name by way of the hub's local store.

    Args:
        trust_remote_code: the code that the checkpoint brings may run, whenever it is loaded from the path returned;
            said aloud. Otherwise Python files of a hub repository are not downloaded.
        download: as `huggingface_hub.snapshot_download`, which is the default.

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
        return _trusted(path, str(name)) if trust_remote_code or isinstance(name, TrustedFolder) else path
    if path.exists():
        raise RailkdError(f"'{name}' is a file, wanted a model folder written by save_pretrained or a hub name")
    text = str(name)
    if text.count("/") > 1 or text.startswith((".", "/", "~")) or not text:
        raise RailkdError(
            f"no model at '{name}': no such folder; give an existing folder or a hub name such as 'org/name'"
        )
    from huggingface_hub import snapshot_download

    fetch = download or snapshot_download
    beside = [*_SIDE_FILES, "*.py"] if trust_remote_code else [*_SIDE_FILES]
    try:
        folder = Path(fetch(text, allow_patterns=[*beside, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(fetch(text, allow_patterns=[*beside, "pytorch_model*.bin"]))
    except Exception as error:  # the hub client has many kinds of error; each means the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RailkdError(f"no model at '{name}': no such folder, and the hub gave: {reason[:200]}") from error
    folder = resolve(folder)
    return _trusted(folder, text) if trust_remote_code else folder


def _trusted(folder: Path, name: str) -> Path:
    owners = [owner or name for owner in sorted(_code_owners(folder))]
    if owners:
        _say_whose_code_runs(name, ", ".join(owners))
    return TrustedFolder(folder)


@functools.cache  # once a process: a job resolves a model several times
def _say_whose_code_runs(name: str, owners: str) -> None:
    logger.warning("trust_remote_code: loading the model '%s' runs Python code of: %s", name, owners)


def _code_owners(folder: Path) -> set[str]:
    """Whose Python code a checkpoint asks for: "" is its own, other names are repositories of the hub."""
    references: list[Any] = []
    for file in ("config.json", "tokenizer_config.json"):
        try:
            named = json.loads((folder / file).read_text(encoding="utf-8")).get("auto_map") or {}
        except (OSError, ValueError, AttributeError):
            continue
        for reference in named.values() if isinstance(named, dict) else [named]:
            references += reference if isinstance(reference, list) else [reference]
    return {str(reference).rpartition("--")[0] for reference in references if reference}


def weights_digest(folder: Path) -> str:
    """Digest of the weight files of a checkpoint folder, without loading them as a model; of a trusted one over its
    code too, which has its share in the numbers. Of 128 bits and fast, for nobody gains by forging it.
    """
    digest = xxhash.xxh3_128()
    for path in (*weight_files(folder), *(sorted(folder.glob("*.py")) if trusts(folder) else ())):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def load_config(folder: str | Path) -> Any:
    """The config of a checkpoint; the model is not built."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trusts(folder))
    except (ValueError, OSError, ImportError) as error:
        raise RailkdError(f"cannot read the config of '{folder}': {_reason(error)}") from error


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a checkpoint. It pads on the right where the model is not made for the left."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusts(folder))
    except (ValueError, OSError, TypeError, KeyError, ImportError) as error:
        raise RailkdError(f"'{folder}' holds no tokenizer that loads: {_reason(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.padding_side == "left":
        from railkd.models.limits import left_padding_counts

        if left_padding_counts(load_config(folder), tokenizer):
            tokenizer.padding_side = "right"
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
            # Yes or no to the checkpoint's code: left open, transformers asks, and takes "y" for a yes.
            options = {"dtype": torch.float32, "trust_remote_code": trusts(folder)} | config
            model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        raise RailkdError(f"cannot load a sequence classifier from '{folder}': {_reason(error)}") from error
    name_padding(model.config, folder)
    return model


def trusts(source: Any) -> bool:
    """Whether the code of a checkpoint may run: `resolve` was told so; or, of a model in memory, it runs already."""
    return isinstance(source, TrustedFolder) or type(source).__module__.startswith("transformers_modules.")


def _reason(error: Exception) -> str:
    """Why a checkpoint does not load, in a line."""
    if "trust_remote_code=True" in str(error):
        return (
            "it brings Python code of its own, which is not run; read that code, and if you trust it give "
            "--trust-remote-code (in Python: railkd.models.checkpoints.resolve(name, trust_remote_code=True))"
        )
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def name_padding(config: Any, folder: str | Path) -> None:
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
        found = sorted(path for path in folder.glob(pattern) if path.name != OBJECTIVE_FILE)
        if found:
            yield from found
            return
