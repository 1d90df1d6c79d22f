"""Merges a LoRA adapter, as peft writes it, into a copy of its model, which is then a checkpoint like any other.

The copy lies in a temporary folder until the process ends. Only peft's own files are read: adapter_config.json and
adapter_model.safetensors.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from railkd.errors import RailkdError
from railkd.models.heads import head_follows
from railkd.models.quiet import quiet_transformers
from railkd.models.weights import read_weights
from railkd.runtime.temporary import temporary_folder
from railkd.runtime.words import listed

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: The modules whose weights are the outputs of a classifier: (C, d).
_OUTPUTS = ("classifier", "score", "out_proj")
logger = logging.getLogger(__name__)


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter and no whole model.

    Args:
        folder: must exist.
    """
    return (folder / CONFIG).is_file()


def merge_adapter(folder: Path, name: str, find: Callable[..., Any], trust: bool) -> Path:
    """Merge an adapter into its model, once for each process.

    Args:
        folder: of the adapter.
        name: as the user gave it, for messages.
        find: `Checkpoint.find`.
        trust: the model may run Python code of its own.

    Returns:
        The folder of the whole model. `RailkdError` says that the adapter or its model cannot be read.
    """
    key = folder.resolve(), (folder / CONFIG).stat().st_mtime_ns, trust
    if key not in _MERGED:
        _MERGED[key] = _merge(folder, name, partial(find, trust=trust))
    return _MERGED[key]


_MERGED: dict[Any, Path] = {}


def _merge(folder: Path, name: str, find: Callable[..., Any]) -> Path:
    base, revision = _base_of(folder, name)
    outputs = _outputs(folder, name)
    if importlib.util.find_spec("peft") is None:
        raise RailkdError(
            f"'{name}' holds an adapter ({CONFIG}), which needs the package peft. Fix: pip install 'railkd[peft]', or "
            "merge the adapter into its model and save that."
        )
    try:
        start = find(base, revision)
    except RailkdError as error:
        raise RailkdError(f"'{name}' is an adapter of '{base}', which cannot be loaded: {error}") from None
    whole = _whole(start, folder, f"'{name}' does not fit its model '{base}'", outputs)
    target = temporary_folder()
    with quiet_transformers():
        whole.save_pretrained(target)
    own = find(folder, model=False) if (folder / "tokenizer_config.json").is_file() else start
    own.tokenizer.save_pretrained(target)
    brings = " and brings the head" if outputs is not None else ""
    logger.warning("'%s' is an adapter of '%s'%s: it is merged into a copy of that model", name, base, brings)
    return target


def _whole(start: Any, folder: Path, unfit: str, outputs: int | None) -> Any:
    """Return the model with the adapter in its weights. If the adapter brings no head, the model must have one."""
    import peft

    try:
        with nullcontext() if outputs is None else head_follows():
            model = start.model(new_head=outputs is not None, **_head(folder, str(folder), start.config, outputs))
    except RailkdError as error:
        brings = ", and brings no head of a classifier" if outputs is None else ""
        raise RailkdError(f"{unfit}{brings}: {error}") from None
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            whole = peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
        lost = next((str(one.message) for one in said if "missing adapter keys" in str(one.message)), None)
        if lost:
            raise ValueError(lost)
    except (ValueError, RuntimeError, KeyError, TypeError, OSError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RailkdError(
            f"{unfit} ({reason[:200]}). Fix: give the folder of the adapter and the model that it was trained on."
        ) from None
    return whole


def _base_of(folder: Path, name: str) -> tuple[str, str | None]:
    """Return name and revision of the model that an adapter was trained on."""
    found = _read_json(folder / CONFIG, name)
    base, revision = found.get("base_model_name_or_path"), found.get("revision")
    if not isinstance(base, str) or not base:
        raise RailkdError(
            f"'{name}' holds an adapter whose {CONFIG} does not name its model (base_model_name_or_path). Fix: name it "
            "there, or merge the adapter into its model and save that."
        )
    if Path(base).is_dir() and is_adapter(Path(base)):
        raise RailkdError(
            f"'{name}' is an adapter of '{base}', which is an adapter too. Fix: merge '{base}' into its model, save "
            f"that, and name it in '{folder / CONFIG}'."
        )
    return base, revision if isinstance(revision, str) and revision else None


def _outputs(folder: Path, name: str) -> int | None:
    """Return the number of outputs of the head that an adapter holds; None: it holds none."""
    if not (folder / WEIGHTS).is_file():
        raise RailkdError(
            f"'{name}' holds an adapter without {WEIGHTS}. Fix: save it again with peft, as safetensors and not as "
            "pickle."
        )
    heads = [
        tensor.shape[0]
        for key, tensor in read_weights([folder / WEIGHTS], name, sizes_only=True).items()
        if key.split(".")[-1] == "weight" and key.split(".")[-2] in _OUTPUTS and tensor.dim() == 2
    ]
    return heads[-1] if heads else None


def _head(folder: Path, name: str, base: Any, outputs: int | None) -> dict[str, Any]:
    """Return the entries of the model's config that describe the head of an adapter.

    peft keeps no names of classes. They are those of a config.json beside the adapter, or of the model if it
    has as many.

    Raises:
        RailkdError: config.json does not number its classes.
    """
    own = _read_json(folder / "config.json", name) if (folder / "config.json").is_file() else {}
    names = own.get("id2label")
    if isinstance(names, dict) and len(names) == (outputs or base.num_labels):
        if set(names) != set(map(str, range(len(names)))):
            raise RailkdError(
                f"'{name}': expected the keys 0 to {len(names) - 1} in id2label of its config.json, got "
                f"{listed(map(repr, names))}. Fix: save the adapter again."
            )
        id2label = {int(number): str(label) for number, label in names.items()}
        kept = {"problem_type": own["problem_type"]} if own.get("problem_type") else {}
        return {"id2label": id2label, "label2id": {label: number for number, label in id2label.items()}, **kept}
    return {"num_labels": outputs} if outputs not in (None, base.num_labels) else {}


def _read_json(file: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RailkdError(f"'{name}': {file.name} cannot be read ({error}). Fix: save the adapter again.") from None
    if not isinstance(found, dict):
        raise RailkdError(f"'{name}': expected a mapping in {file.name}, got {type(found).__name__}.")
    return found
