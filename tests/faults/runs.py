"""A small distillation through the command line, and what must be equal of two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import tiny
from railkd.models.checkpoints import OBJECTIVE_FILE
from railkd.records import RunRecord
from railkd.training.checkpoint_folders import checkpoints_in

#: 22 rows in batches of 4, twice: 12 steps. Saves, logs and epochs fall on unlike steps.
SETTINGS = ["--student-layers", 2, "--shared-size", 8, "--max-length", 16, "--epochs", 2, "--batch-size", 4]
SETTINGS += ["--learning-rate", "1e-3", "--no-bf16", "--allow-weak-teacher", "--train", "train.tsv", "--quiet"]
SETTINGS += ["--logging-steps", 4, "--teacher", "teacher"]
BY_STEPS = [*SETTINGS, "--eval", "dev.tsv", "--save-steps", 3, "--save-total-limit", 3, "--method", "rail-kd-l"]
BY_EPOCHS = [*SETTINGS, "--method", "rail-kd-c", "--redraw", "step", "--eval", "dev.tsv", "--save-total-limit", 2]


def prepare(folder: Path) -> Path:
    """Teacher and files, as every run finds them beside its output."""
    tiny.save(folder / "teacher", tiny.make_model(3, width=8), tiny.make_tokenizer())
    for name, count, seed in (("train", 22, 0), ("dev", 9, 5)):
        rows = tiny.text_rows(count, seed=seed)
        lines = [f"{text}\t{label}" for text, label in zip(rows["text"], rows["label"], strict=True)]
        (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    return folder


def room(base: Path, folder: Path) -> Path:
    """A working directory with the prepared files."""
    folder.mkdir(parents=True)
    for file in ("teacher", "train.tsv", "dev.tsv"):
        (folder / file).symlink_to(base / file)
    return folder


def left(folder: Path) -> dict[str, Any]:
    """Return the files of a finished run, without times, and the state of its last step if it keeps checkpoints.

    The student may be that of the best epoch, which hides what went wrong after it.
    """
    out = folder / "out"
    files: dict[str, Any] = {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and "checkpoint-" not in str(path.relative_to(out)) and path.name != ".lock"
    }
    files.pop("metrics.json")
    for newest in checkpoints_in(out)[-1:]:
        for path in filter(Path.is_file, (newest / "model.safetensors", newest / OBJECTIVE_FILE)):
            files[f"{newest.name}/{path.name}"] = path.read_bytes()
        for path in filter(Path.is_file, (newest / "optimizer.pt", newest / "scheduler.pt")):
            files[f"{newest.name}/{path.name}"] = plain(torch.load(path, weights_only=True))
    return files | {"record": RunRecord.read(out / "metrics.json").comparable()}


def plain(value: Any) -> Any:
    """Tensors in nested dicts and lists as the bits of their numbers, so that == compares all of them."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def differences(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """Names of what differs."""
    return [name for name in sorted(one.keys() | two.keys()) if one.get(name) != two.get(name)]
