"""Finds, reads and checks the weights of a checkpoint.

Each weight of a loaded model must come from the files of the checkpoint, except a new head, where training follows.
transformers draws missing weights at random and reports them. Here that report is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from railkd.errors import RailkdError
from railkd.runtime.words import listed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Files that transformers looks for, in this order. It reads the first that exists and, of an index, its shards.
KINDS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
#: Numbers that are checked at a time.
_PART = 1 << 22
#: Prefix of all names -> the module around the model that was saved instead of the model.
WRAPPERS = {
    "_orig_mod.": "a model after torch.compile; save model._orig_mod",
    "module.": "a model inside of DistributedDataParallel; save model.module",
    "student.": "a railkd Distiller; save distiller.student",
}


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of a folder from which transformers reads the weights.

    Args:
        folder: of the model.

    Returns:
        One file, or the shards that an index names, sorted; empty if there are none.

    Raises:
        RailkdError: an index that is damaged, or that names a file that is not in the folder.
    """
    first = next((folder / kind for kind in KINDS if (folder / kind).is_file()), None)
    if first is None or first.suffix != ".json":
        return () if first is None else (first,)
    try:
        names = sorted(set(json.loads(first.read_text(encoding="utf-8"))["weight_map"].values()))
        shards = tuple(folder / name for name in names if Path(name).name == name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RailkdError(f"'{first}' is not an index of weight files. Fix: save or copy the model again.") from error
    lost = [name for name in names if not (folder / name).is_file() or folder / name not in shards]
    if lost or not shards:
        raise RailkdError(
            f"'{first}' names weight files that are not in its folder: {listed(lost, 3)}. Fix: copy the whole model."
        )
    return shards


def digest_of(files: Sequence[Path]) -> str:
    """Return a digest of the names and bytes of files.

    Args:
        files: their order counts.

    Returns:
        A fast digest of 128 bits. It protects against mistakes, not against forgery.
    """
    digest = xxhash.xxh3_128()
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def check_readable(files: Sequence[Path]) -> None:
    """Refuse files that this user may not read.

    Args:
        files: to look at; they are not opened.

    Raises:
        RailkdError: names the files and their owner.
    """
    closed = [path for path in files if not os.access(path, os.R_OK)]
    if closed:
        names, mode = [f"'{path}'" for path in closed], closed[0].stat().st_mode & 0o777
        raise RailkdError(
            f"no permission to read {listed(names, 3)} (owner {_owner(closed[0])}, mode {mode:o}). Fix: ask the owner "
            "for 'chmod a+r', or copy the model as a user who may read it."
        )


def read_weights(files: Sequence[Path], name: str, *, sizes_only: bool = False) -> dict[str, Tensor]:
    """Read weights by name. No Python code that a file holds is run.

    Args:
        files: as `weight_files` returns them.
        name: of the checkpoint, for messages.
        sizes_only: return tensors on the meta device, which have a shape and no values.

    Returns:
        Name -> tensor.

    Raises:
        RailkdError: a file is damaged, or holds something other than named tensors, or names that no model has.
    """
    weights: dict[str, Tensor] = {}
    for path in files:
        try:
            found = _read_file(path, "meta" if sizes_only else "cpu")
        except Exception as error:  # damage shows as one of many kinds of error, of three libraries
            raise RailkdError(_unreadable(path, name)) from error
        weights |= found
    wrapped = next((prefix for prefix in WRAPPERS if any(key.startswith(prefix) for key in weights)), None)
    if wrapped is not None:
        raise RailkdError(
            f"Expected the weights of a model in '{name}', got names that start with '{wrapped}', such as "
            f"{next(key for key in weights if key.startswith(wrapped))}: they are of {WRAPPERS[wrapped]}. "
            "Fix: save that, or take the prefix off the names."
        )
    return weights


def check_report(model: Any, report: Mapping[str, Any], name: str, *, new_head: bool) -> tuple[str, ...]:
    """Refuse a model whose weights do not all come from its checkpoint.

    Args:
        model: as it was loaded.
        report: of transformers (``output_loading_info``).
        name: of the checkpoint, for messages.
        new_head: training follows, so a head may be drawn anew.

    Returns:
        Names of the head's weights that transformers drew anew.

    Raises:
        RailkdError: names weights that are missing, unexpected or of another shape.
    """
    missing, shapes = {*report["missing_keys"]}, {key: pair for key, *pair in report["mismatched_keys"]}
    drawn = {key for key in missing | {*shapes} if in_head(model, key)} | _whole_decoder(model, missing)
    allowed = drawn if new_head else set()
    unused = {key for key in report["unexpected_keys"] if not _pooler(key)}
    another_head = {key for key in unused if in_head(model, key)}
    body_is_whole = bool(drawn) and missing | {*shapes} == drawn and unused == another_head
    if body_is_whole and new_head:
        unused -= another_head
    problems = {
        "missing": missing - allowed,
        "without a place in the model": unused,
        "of another shape": [f"{key} {listed(map(tuple, shapes[key]))}" for key in {*shapes} - allowed],
    }
    found = [f"{what}: {listed(sorted(keys), 3)}" for what, keys in problems.items() if keys]
    if found:
        advice = (
            "fine-tune it first (railkd finetune)" if body_is_whole else "save it again, or correct its config.json"
        )
        raise RailkdError(
            f"Expected '{name}' to hold each weight of its model, got weights {'; '.join(found)}. Fix: {advice}."
        )
    return tuple(sorted(drawn))


def check_finite(weights: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that are NaN or infinite.

    Args:
        weights: by name.
        name: of the checkpoint, for messages.

    Raises:
        RailkdError: names the weights.
    """
    from railkd.functional import all_finite

    broken = [
        key
        for key, value in weights.items()
        if value.is_floating_point()
        and value.device.type != "meta"
        and value.dtype.itemsize > 1
        # In parts, because half precision is copied to be summed up.
        and not all(all_finite(part) for part in value.reshape(-1).split(_PART))
    ]
    if broken:
        raise RailkdError(
            f"'{name}' holds weights that are NaN or infinite: {listed(broken, 3)}. Fix: train or save the model again."
        )


def in_head(model: Any, key: str) -> bool:
    """Return True if a weight is one of the head, which stands behind the base model, or of a pooler.

    Args:
        model: a transformers classifier.
        key: name of the weight, with or without the prefix of the base model.

    Returns:
        The answer.
    """
    prefix = model.base_model_prefix
    base = getattr(model, prefix, None) if prefix else None
    first, *_ = key.removeprefix(f"{prefix}." if prefix else "").split(".")
    if base is None or base is model:
        return first in ("classifier", "classification_head", "score", "pooler")
    inside = {name for name, _ in base.named_children()} | {name for name, _ in base.named_parameters(recurse=False)}
    return first not in inside or _pooler(key)


def _whole_decoder(model: Any, missing: Collection[str]) -> set[str]:
    """Return the weights of the decoder if the checkpoint holds an encoder alone. They then are part of a new head."""
    base: Any = getattr(model, model.base_model_prefix or "", None)
    if not (hasattr(base, "encoder") and hasattr(base, "decoder")):
        return set()
    inside = {id(parameter) for parameter in base.decoder.parameters()}
    names = {key for key, parameter in model.named_parameters() if id(parameter) in inside}
    names -= {key for key, parameter in model.named_parameters() if parameter is model.get_input_embeddings().weight}
    return names if names <= {*missing} else set()


def _pooler(key: str) -> bool:
    """Return True for a weight of a pooler, which many base models have and many classifiers do not use."""
    return "pooler" in key.split(".")


def _read_file(path: Path, device: str) -> dict[str, Tensor]:
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        if device == "cpu":
            return load_file(path)
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in list(file.keys())}
            return {key: torch.empty(s.get_shape(), dtype=_dtype(s), device=device) for key, s in slices.items()}
    found = torch.load(path, map_location=device, weights_only=True)
    if not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items()):
        raise TypeError(f"'{path}' holds more than named tensors")
    return dict(found)


def _dtype(part: Any) -> torch.dtype:
    """Return the type of a tensor of a safetensors file; int8 for every type that is not a plain float."""
    import torch

    floats = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    return floats.get(part.get_dtype(), torch.int8)


def _unreadable(path: Path, name: str) -> str:
    """Return the message for a weight file that does not load."""
    if path.suffix == ".safetensors":
        return f"'{path.name}' of '{name}' is damaged. Fix: copy, download or save the model again."
    return (
        f"'{path.name}' of '{name}' is damaged, or a pickle of more than named tensors. It is not loaded, because a "
        "pickle can run code of whoever made it. Fix: get the model as model.safetensors, or save its state_dict() "
        "where you trust it."
    )


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, NotImplementedError, OSError):
        return "unknown"
