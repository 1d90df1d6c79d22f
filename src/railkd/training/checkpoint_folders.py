"""Find the checkpoint folders of a run, check that they are complete, and tell railkd's files from others.

This module does not import torch, because jobs look into a run folder before torch is imported.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from railkd.errors import RailkdError
from railkd.runtime import typed
from railkd.runtime.free_fields import find_odd_values
from railkd.runtime.sealed import SEAL, find_damage, listed, remove

logger = logging.getLogger(__name__)
#: File of Trainer's state, and file of the sums of the log, which railkd adds.
STATE_FILE, SUMS = "trainer_state.json", "log_sums.json"
_NAME = re.compile(r"checkpoint-(\d+)", re.ASCII)
#: Names of the files of a model folder, as `save_pretrained` writes them.
MODEL_FILE = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|railkd)\.json"
    r"|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|(vocab|merges|spiece|sentencepiece|tokenizer)\.(txt|model)|sentencepiece\.bpe\.model|chat_template\.jinja"
)
#: Names of the other files of a checkpoint. They are needed if its list of files is damaged.
_STATE = re.compile(
    r"objective\.safetensors|(optimizer|scheduler|scaler)\.(pt|bin)|rng_state(_\d+)?\.pth"
    rf"|{re.escape(STATE_FILE)}|{re.escape(SUMS)}|{re.escape(SEAL)}"
)


def checkpoints_in(run_folder: Path) -> list[Path]:
    """Return the folders in a run folder that have the name of a checkpoint, sorted by step.

    Args:
        run_folder: it need not exist.

    Returns:
        Folders, including incomplete ones and those of other programs. Links are left out.
    """
    found = {path: _NAME.fullmatch(path.name) for path in run_folder.glob("checkpoint-*")}
    steps = {path: int(name[1]) for path, name in found.items() if name and path.is_dir() and not path.is_symlink()}
    return sorted(steps, key=lambda path: steps[path])


def own_files(checkpoint: Path) -> set[str]:
    """Return the names of the files in a checkpoint that railkd wrote.

    Args:
        checkpoint: any folder.

    Returns:
        The files on its list. If the list is damaged, the files with the names of checkpoint files, provided that the
        folder holds the files that only railkd writes. Empty if another program wrote the folder.
    """
    if not checkpoint.is_dir() or checkpoint.is_symlink():
        return set()
    names = listed(checkpoint)
    if names or not {SUMS, SEAL} <= {path.name for path in checkpoint.iterdir()}:
        return names
    every = {path.name for path in checkpoint.iterdir()}
    return {name for name in every if MODEL_FILE.fullmatch(name) or _STATE.fullmatch(name)}


def foreign_files(checkpoint: Path) -> list[Path]:
    """Return the paths in a checkpoint folder that railkd did not write.

    Args:
        checkpoint: any path.

    Returns:
        Files, folders and links. The path itself if it is not a folder.
    """
    if checkpoint.is_symlink() or not checkpoint.is_dir():
        return [checkpoint]
    own = own_files(checkpoint)
    return sorted(p for p in checkpoint.iterdir() if p.name not in own or p.is_symlink() or not p.is_file())


def check_place(checkpoint: Path) -> None:
    """Refuse to replace a checkpoint that holds anything that railkd did not write.

    Args:
        checkpoint: a folder that exists.

    Raises:
        RailkdError: it holds such files. The message names one.
    """
    for path in foreign_files(checkpoint)[:1]:
        raise RailkdError(
            f"'{path}' was not written by railkd and stands where a checkpoint is written. Fix: move it elsewhere"
        )


def remove_checkpoint(checkpoint: Path) -> None:
    """Delete the files that railkd wrote into a checkpoint, and its folder if nothing else is in it.

    Args:
        checkpoint: any folder.
    """
    remove(checkpoint, own_files(checkpoint))


def rotate(run_folder: Path, limit: int | None, kept: Sequence[Path | None]) -> None:
    """Delete the oldest checkpoints over a limit. Those of other programs are neither counted nor touched.

    Args:
        run_folder: the folder of the run.
        limit: number of checkpoints to keep. None or 0 keeps all.
        kept: checkpoints that are kept even if the limit is exceeded.
    """
    if limit is None or limit <= 0:
        return
    found = [path for path in checkpoints_in(run_folder) if own_files(path)]
    removable = sorted(set(found) - set(kept), key=lambda path: path.stat().st_mtime)
    for path in removable[: max(0, len(found) - limit)]:
        remove_checkpoint(path)


def best_checkpoint(run_folder: Path, step: int | None) -> Path | None:
    """Return the path of the checkpoint of the best step, also after the run folder was moved.

    Args:
        run_folder: the folder of the run.
        step: the best step.

    Returns:
        A folder that need not exist, or None if there is no best step.
    """
    return run_folder / f"checkpoint-{step}" if step else None


def find_resumable(
    given: str | Path | bool | None, run_folder: str | Path, say: Callable[[str], None] | None = None
) -> str | None:
    """Return the checkpoint to resume from, in the form that Trainer expects.

    Args:
        given: a checkpoint. True takes the newest undamaged one in the run folder.
        run_folder: the folder of the run.
        say: receives a line for each checkpoint that is skipped. None sends the lines to the log.

    Returns:
        The folder of an undamaged checkpoint. None if the run starts from its first step.

    Raises:
        RailkdError: the given checkpoint is damaged.
    """
    if isinstance(given, bool) or given is None:
        found = newest_checkpoint(run_folder, say) if given else None
        return str(found) if found else None
    path = Path(given)
    damage = _damage(path) or _damage_of_best(path, missing=False) if (path / SEAL).exists() else None
    if damage:
        raise RailkdError(f"the checkpoint '{given}' cannot be resumed from: {damage}. Fix: resume from an older one")
    return str(given)


def newest_checkpoint(run_folder: str | Path, say: Callable[[str], None] | None = None) -> Path | None:
    """Return the newest checkpoint of a run that is undamaged and whose best checkpoint is undamaged.

    Args:
        run_folder: the folder of the run.
        say: receives a line for each newer checkpoint that is skipped. None sends the lines to the log.

    Returns:
        Its folder, or None if every checkpoint is damaged or there is none.
    """
    for path in reversed(checkpoints_in(Path(run_folder))):
        damage = _damage(path) or _damage_of_best(path, missing=True)
        if damage is None:
            return path
        (say or logger.warning)(f"'{path}' is skipped: {damage}; an older checkpoint will do")
    return None


@dataclass
class _Held:
    """What a callback keeps between two sessions."""

    args: dict[str, Any]
    attributes: dict[str, Any]


@dataclass
class _State:
    """What a run that goes on takes from `STATE_FILE`."""

    global_step: int
    max_steps: int
    num_train_epochs: int
    log_history: list[dict[str, Any]]
    stateful_callbacks: dict[str, _Held | list[_Held]]
    total_flos: float
    epoch: float | None = None
    train_batch_size: int | None = None
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None


@dataclass
class _Gauges:
    """What `railkd.training.gauges` keeps between two sessions."""

    readings: list[dict[str, float]]
    similarity: dict[str, list[list[float]]]
    warning: str | None


@dataclass
class _Sums:
    """What a run that goes on takes from `SUMS`."""

    loss: float
    steps: float
    terms: list[float]
    total: float
    last_logged: int
    gauges: _Gauges
    pass_ended: bool = False
    counts: dict[str, int] = field(default_factory=dict)


def _damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint: a file is damaged, or what a run takes from it is of another kind."""
    if damage := find_damage(checkpoint):
        return damage
    for name, kind in ((STATE_FILE, _State), (SUMS, _Sums)):
        try:
            if (checkpoint / name).is_file():
                held = typed.from_json(kind, (checkpoint / name).read_text(encoding="utf-8"))
                for problem in find_odd_values(getattr(held, "log_history", [])):
                    raise ValueError(f"log_history.{problem}")
        except (OSError, ValueError) as error:
            return f"{name} is not as railkd writes it ({error})"
    return None


def _damage_of_best(checkpoint: Path, *, missing: bool) -> str | None:
    """Return the damage of the best checkpoint so far, which the run loads at its end, or None.

    Args:
        checkpoint: a checkpoint of the run.
        missing: whether the absence of the best checkpoint counts as damage.

    Returns:
        A description of the damage, or None.
    """
    try:
        state = json.loads((checkpoint / STATE_FILE).read_bytes())
        best = best_checkpoint(checkpoint.parent, state["best_global_step"])
        if best is None or best == checkpoint or not state["best_model_checkpoint"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return f"{STATE_FILE} cannot be read"
    damage = find_damage(best) if missing or best.exists() else None
    return f"{best.name}, the best of its run, is damaged: {damage}" if damage else None
