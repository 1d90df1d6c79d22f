"""Checkpoints: the bare student, the objective's weights beside it, complete or absent."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import safetensors.torch
from transformers import TrainingArguments
from transformers.trainer_callback import ExportableState, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from railkd.errors import RailkdError
from railkd.models.checkpoints import OBJECTIVE_FILE
from railkd.models.distiller import Distiller
from railkd.models.quiet import quiet_transformers
from railkd.runtime import ranks
from railkd.runtime.files import sync, sync_all, temporary_beside, usual_permissions, write_json
from railkd.runtime.sealed import SEAL, find_damage, seal
from railkd.training.checkpoint_folders import STATE_FILE, SUMS, best_checkpoint, check_place, rotate


def save_model(distiller: Distiller, folder: str | Path, tokenizer: Any = None) -> None:
    """Write the student as plain transformers loads it, and the objective's weights in a file beside it.

    No training_args.bin: it is a pickle.
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
    """Load what `save_model` wrote, into the same kind of distiller."""
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
        folder: of the checkpoint.

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
    run_folder: str | Path, state: TrainerState, args: TrainingArguments, write: Callable[[str], None]
) -> None:
    """Write a checkpoint under a temporary name, flush it to disk, rename it and delete the oldest ones over the limit.

    Trainer writes in place: a run killed in the middle leaves a folder that looks like a checkpoint. Every rank must
    call this.

    Args:
        run_folder: the checkpoint becomes a folder in it.
        state: names the steps of this checkpoint and of the best one; receives where the best one is.
        args: how many checkpoints to keep, and whether this rank renames and deletes.
        write: writes the files of this rank into the folder it is given.

    Raises:
        OSError: the disk is full or cannot be written. Nothing is left behind.
        RailkdError: a folder that railkd did not write has the name of the checkpoint.
    """
    final = Path(run_folder) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    temporary = temporary_beside(final, ranks.all_reduce_max(secrets.randbits(47)))  # one name for all ranks
    best = best_checkpoint(Path(run_folder), state.best_global_step)
    if best is not None and (best == final or best.is_dir()):
        state.best_model_checkpoint = str(best)
    try:
        if args.should_save:
            temporary.mkdir(parents=True)  # new, so no link is followed
        ranks.barrier()
        write(str(temporary))
        ranks.barrier()
        if args.should_save:
            _publish(temporary, final)
            rotate(Path(run_folder), args.save_total_limit, (final, best))
        ranks.barrier()
    except Exception:
        if args.should_save:
            shutil.rmtree(temporary, ignore_errors=True)  # on a full disk above all
        raise


def _publish(temporary: Path, final: Path) -> None:
    """List the files with their digests, flush all to disk and give the folder its name."""
    seal(temporary)
    sync_all(temporary)  # before the rename: after a power failure, a folder of this name has its contents
    if os.path.lexists(final):  # a resumed run saves the step it came from once more, or one that was damaged
        check_place(final)
        old = temporary_beside(final)
        final.rename(old)
        temporary.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(final)
    sync(final.parent)


def save_state(folder: str | Path, state: TrainerState, holders: Iterable[Any], sums: dict[str, Any]) -> None:
    """Write Trainer's state, with that of its callbacks, and the sums of the log.

    Args:
        folder: of a checkpoint that is being written.
        state: Trainer's; receives the states of the callbacks.
        holders: callbacks and the control of Trainer; those that have a state are stored.
        sums: for `railkd.training.resuming`.
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
