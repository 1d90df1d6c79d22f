"""Copies of a tiny checkpoint with damaged weights or weights of another kind."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from railkd import make_student
from railkd.models import Checkpoint, load_classifier
from tiny import make_model as make_bert

Weights = dict[str, Tensor]
#: Each loads a checkpoint that is used as it is, or that a student starts from.
LOADS: dict[str, Callable[[Path], Any]] = {
    "teacher": load_classifier,
    "to train": lambda folder: load_classifier(folder, num_labels=2),
    "student": lambda folder: make_student(folder, 2),
    "check": lambda folder: Checkpoint.find(folder).check_weights(),
}
by_load = pytest.mark.parametrize("load", LOADS.values(), ids=list(LOADS))


def edited(source: Path, target: Path, change: Callable[[Weights], Weights]) -> Path:
    folder = Path(shutil.copytree(source, target))
    weights = change(load_file(folder / "model.safetensors"))
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    return folder


def renamed(start: str) -> Callable[[Weights], Weights]:
    return lambda weights: {start + name: value for name, value in weights.items()}


def replaced(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Weights], Weights]:
    return lambda weights: weights | {name: change(weights[name].clone())}


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def spoiled(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[3] = value
        return tensor

    return change


WORDS, BIAS = "bert.embeddings.word_embeddings.weight", "bert.encoder.layer.3.output.dense.bias"
DAMAGE: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "compiled": (renamed("_orig_mod."), "start with '_orig_mod.'.*torch.compile"),
    "parallel": (renamed("module."), "start with 'module.'.*DistributedDataParallel"),
    "distiller": (renamed("student."), "start with 'student.'.*Distiller"),
    "both": (renamed("module._orig_mod."), "start with 'module.'"),
    "another model": (renamed("roberta."), f"missing: .*without a place in the model: roberta.{'bert'}"),
    "a block is missing": (without("layer.3."), r"missing: bert.encoder.layer.3\..* and 13 more"),
    "one bias is missing": (without("layer.3.output.dense.bias"), f"missing: {BIAS}"),
    "no embeddings": (without("word_embeddings"), f"missing: {WORDS}"),
    "a fifth block": (
        lambda w: w | {n.replace("layer.3.", "layer.4."): v.clone() for n, v in w.items() if "layer.3." in n},
        r"without a place in the model: bert.encoder.layer.4\.",
    ),
    "a longer vocabulary": (replaced(WORDS, lambda w: torch.cat([w, w[:3]])), f"another shape: {WORDS}"),
    "a narrower bias": (replaced(BIAS, lambda w: w[:5]), rf"another shape: {BIAS} \(5,\) and \(16,\)"),
    "not a number": (replaced(BIAS, spoiled(float("nan"))), f"NaN or infinite: {BIAS}"),
    "infinite": (replaced(WORDS, spoiled(float("-inf"))), f"NaN or infinite: {WORDS}"),
}


def as_pickle(folder: Path, target: Path, kind: str = "file") -> Path:
    """Return a copy of a model whose weights are in pytorch_model.bin, in one file or two shards."""
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    if kind == "file":
        torch.save(weights, target / "pytorch_model.bin")
        return target
    names = sorted(weights)
    shards = {"pytorch_model-00001.bin": names[::2], "pytorch_model-00002.bin": names[1::2]}
    for file, part in shards.items():
        torch.save({name: weights[name] for name in part}, target / file)
    place = {name: file for file, part in shards.items() for name in part}
    (target / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return target


class Evil:
    """Unpickles by making a folder, as an attacker's object would run a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def foreign(folder: Path, kind: str) -> Path:
    """Write weights that are a pickle of something else, or no weights at all, and return the file."""
    weights = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    values: dict[str, Any] = {
        "evil": weights | {"more": Evil(folder / "ran")},
        "model": make_bert(2),
        "list": list(weights.values()),
        "nested": {"state_dict": weights, "epoch": 3},
        "number": 7,
    }
    if kind in values:
        torch.save(values[kind], file)
    elif kind == "evil raw pickle":
        file.write_bytes(pickle.dumps(Evil(folder / "ran")))
    else:
        data = pickle.dumps({}) if kind == "raw pickle" else b"version https://git-lfs.github.com/spec/v1\n"
        file.write_bytes(b"" if kind == "empty" else data)
    return file


FOREIGN = ["evil", "evil raw pickle", "model", "list", "nested", "number", "empty", "lfs pointer"]
