"""Save and load checkpoints.

A checkpoint holds the student as plain transformers loads it, and the weights of the objective in a separate file. A
crash never leaves an incomplete checkpoint under its final name.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor
from transformers import TrainingArguments
from transformers.trainer_callback import ExportableState, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from railkd.errors import RailkdError
from railkd.models.checkpoints import OBJECTIVE_FILE
from railkd.models.distiller import Distiller
from railkd.models.quiet import quiet_transformers
from railkd.runtime import ranks
from railkd.runtime.disk import told
from railkd.runtime.files import sync, sync_all, temporary_beside, usual_permissions, write_json
from railkd.runtime.sealed import SEAL, find_damage, seal
from railkd.training.checkpoint_folders import STATE_FILE, SUMS, best_checkpoint, check_place, rotate


def save_model(distiller: Distiller, folder: str | Path, tokenizer: Any = None) -> None:
    """Write the student as plain transformers loads it, and the objective's weights in a separate file.

    training_args.bin is not written because it is a pickle.

    Args:
        distiller: holds the student and the objective.
        folder: created if it does not exist.
        tokenizer: saved in the same folder, if given.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().contiguous() for name, tensor in distiller.objective.state_dict().items()}
    with usual_permissions(path), quiet_transformers():
        distiller.student.save_pretrained(path)
        if tokenizer is not None:
            tokenizer.save_pretrained(path)
        if weights:
            safetensors.torch.save_file(weights, path / OBJECTIVE_FILE)


def load_model(distiller: Distiller, folder: str | Path) -> None:
    """Load the weights that `save_model` wrote.

    Args:
        distiller: receives the weights. It must have the same method and models as the saved one.
        folder: a checkpoint folder.

    Raises:
        RailkdError: the folder is not a checkpoint, or its weights do not fit the distiller.
    """
    path = Path(folder)
    student: Any = distiller.student
    if not (path / "config.json").is_file():
        raise RailkdError(f"no checkpoint at '{folder}'; give a checkpoint-N folder of this run")
    with quiet_transformers():
        loaded = type(student).from_pretrained(path, dtype=student.dtype)
    student.load_state_dict(loaded.state_dict())
    expected = distiller.objective.state_dict()
    if expected:
        if not (path / OBJECTIVE_FILE).is_file():
            raise RailkdError(
                f"'{folder}' lacks {OBJECTIVE_FILE}: it was saved by another method; resume with that one"
            )
        weights = safetensors.torch.load_file(path / OBJECTIVE_FILE)
        shapes = {name: tuple(t.shape) for name, t in weights.items()}
        if shapes != {name: tuple(t.shape) for name, t in expected.items()}:
            raise RailkdError(
                f"'{path / OBJECTIVE_FILE}' does not fit this method and pair of models; resume with the settings it "
                "was saved by"
            )
        distiller.objective.load_state_dict(weights)


def load_best(distiller: Distiller, folder: Path) -> None:
    """Load the best checkpoint of a run at its end.

    Args:
        distiller: receives the weights.
        folder: folder of the checkpoint.

    Raises:
        RailkdError: the checkpoint is damaged.
    """
    damage = find_damage(folder) if (folder / SEAL).exists() else None
    if damage:
        raise RailkdError(
            f"'{folder}', the best checkpoint of the run, is damaged: {damage}. Fix: --resume trains again from an "
            "older checkpoint"
        )
    load_model(distiller, folder)


def save_checkpoint(
    run_folder: str | Path,
    state: TrainerState,
    args: TrainingArguments,
    write: Callable[[str], None],
    optimizer: Any = None,
) -> None:
    """Write a checkpoint under a temporary name, flush it to disk, rename it and delete the oldest ones over the limit.

    Trainer writes in place, so a run killed while it saves leaves a folder that looks like a checkpoint. Every rank
    must call this function. It raises `railkd.runtime.disk.DiskFull` if the disk is full, `OSError` if it cannot be
    written, and leaves no files behind. It raises `RailkdError` if a folder that railkd did not write has the name of
    the checkpoint.

    Args:
        run_folder: the checkpoint is written into it, as a folder.
        state: holds the step of this checkpoint and of the best one. Receives the path of the best one.
        args: how many checkpoints to keep, and whether this rank renames and deletes.
        write: writes the files of this rank into the folder that it receives.
        optimizer: whose size tells how much space a checkpoint needs.
    """
    final = Path(run_folder) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    temporary = temporary_beside(final, ranks.all_reduce_max(secrets.randbits(47)))  # one name for all ranks
    best = best_checkpoint(Path(run_folder), state.best_global_step)
    if best is not None and (best == final or best.is_dir()):
        state.best_model_checkpoint = str(best)
    try:
        with told(Path(run_folder), "a checkpoint", lambda: _bytes_needed(optimizer)):
            if args.should_save:
                temporary.mkdir(parents=True)  # fails if the path exists, so no link is followed
            ranks.barrier()
            write(str(temporary))
            ranks.barrier()
            if args.should_save:
                _publish(temporary, final)
                rotate(Path(run_folder), args.save_total_limit, (final, best))
            ranks.barrier()
    except Exception:
        if args.should_save:
            shutil.rmtree(temporary, ignore_errors=True)  # frees a full disk
        raise


def _bytes_needed(optimizer: Any) -> int:
    """Return about how large a checkpoint is: the trained weights, and what the optimizer keeps for each of them."""
    weights = (
        [weight for group in optimizer.param_groups for weight in group["params"]] if optimizer is not None else []
    )
    kept = [value for weight in weights for value in optimizer.state.get(weight, {}).values()]
    return sum(part.numel() * part.element_size() for part in (*weights, *kept) if isinstance(part, Tensor))


def _publish(temporary: Path, final: Path) -> None:
    """Write the list of files with their digests, flush all files to disk and rename the folder."""
    seal(temporary)
    sync_all(temporary)  # before the rename: after a crash a renamed checkpoint has its contents
    if os.path.lexists(final):  # a resumed run may save a step again, for instance a damaged one
        check_place(final)
        old = temporary_beside(final)
        final.rename(old)
        temporary.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(final)
    sync(final.parent)


def save_state(folder: str | Path, state: TrainerState, holders: Iterable[Any], sums: dict[str, Any]) -> None:
    """Write the state of Trainer and its callbacks, and the sums of the log.

    Args:
        folder: folder of a checkpoint that is being written.
        state: state of Trainer. Receives the states of the callbacks.
        holders: the callbacks and the control of Trainer. Those that have a state are stored.
        sums: values that `railkd.training.resuming` restores.
    """
    for holder in (item for item in holders if isinstance(item, ExportableState)):
        name, held = type(holder).__name__, holder.state()
        slot = state.stateful_callbacks.get(name)
        if isinstance(slot, list):
            slot.append(held)
        else:
            state.stateful_callbacks[name] = held
    state.save_to_json(str(Path(folder) / STATE_FILE))
    write_json(Path(folder) / SUMS, sums, indent=None)
