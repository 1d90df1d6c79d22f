"""Checkpoints: the bare student, the objective's weights beside it, complete or absent."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import safetensors.torch
from transformers import TrainingArguments
from transformers.trainer_callback import ExportableState, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from railkd.errors import RailkdError
from railkd.models.checkpoints import OBJECTIVE_FILE, quiet_transformers
from railkd.models.distiller import Distiller
from railkd.runtime import ranks
from railkd.runtime.files import sync, sync_all, write_json
from railkd.training.resuming import SUMS

logger = logging.getLogger(__name__)
STATE_FILE = "trainer_state.json"
#: Sizes of the files of a checkpoint, written last: what is cut or gone shows.
FILES = "files.json"


def save_model(distiller: Distiller, folder: str | Path, tokenizer: Any = None) -> None:
    """Write the student as plain transformers loads it, and the objective's weights in a file beside it.

    No training_args.bin: it is a pickle.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        distiller.student.save_pretrained(path)
    if tokenizer is not None:
        tokenizer.save_pretrained(path)
    weights = {name: tensor.detach().contiguous() for name, tensor in distiller.objective.state_dict().items()}
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


def save_checkpoint(
    run_folder: str | Path, state: TrainerState, args: TrainingArguments, write: Callable[[str], None]
) -> None:
    """Write a checkpoint under a temporary name, flush it to disk, rename it and delete the oldest ones over the limit.

    Trainer writes in place: a run killed in the middle leaves a folder that looks like a checkpoint. Every rank must
    call this.

    Args:
        run_folder: the checkpoint becomes a folder in it.
        state: names the steps of this checkpoint and of the best one; is told where the best one is.
        args: how many checkpoints to keep, and whether this rank renames and deletes.
        write: writes the files of this rank into the folder it is given.
    """
    final, best = (
        Path(run_folder) / f"{PREFIX_CHECKPOINT_DIR}-{step}" for step in (state.global_step, state.best_global_step)
    )
    temporary = final.with_name(f".{final.name}.tmp")
    if state.best_global_step and (best == final or best.is_dir()):
        state.best_model_checkpoint = str(best)
    try:
        if args.should_save:
            shutil.rmtree(temporary, ignore_errors=True)
        ranks.barrier()
        write(str(temporary))
        ranks.barrier()
        if args.should_save:
            _publish(temporary, final)
            rotate_checkpoints(
                output_dir=str(run_folder),
                save_total_limit=args.save_total_limit,
                best_model_checkpoint=state.best_model_checkpoint,
                use_mtime=True,
            )
        ranks.barrier()
    except Exception:
        if args.should_save:
            shutil.rmtree(temporary, ignore_errors=True)  # on a full disk above all
        raise


def _publish(temporary: Path, final: Path) -> None:
    """List the sizes of the files, flush all to disk and give the folder its name."""
    sizes = {path.name: path.stat().st_size for path in sorted(temporary.iterdir()) if path.is_file()}
    write_json(temporary / FILES, sizes)
    sync_all(temporary)  # before the rename: after a power failure, a folder of this name has its contents
    old = final.with_name(f".{final.name}.old.tmp")
    if final.exists():  # a resumed run saves the step it came from once more: out of the way first, deleted later
        final.rename(old)
    temporary.rename(final)
    sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


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


def newest_checkpoint(run_folder: str | Path, say: Callable[[str], None] | None = None) -> Path | None:
    """The complete checkpoint of the most steps in a run folder, or None.

    Args:
        say: told of each newer one that is not complete; None: that goes to the log.
    """
    found = [path for path in Path(run_folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.split("-")[1].isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        lack = _lack(path)
        if lack is None:
            return path
        (say or logger.warning)(f"'{path}' is skipped: {lack}; an older checkpoint will do")
    return None


def clear_unfinished(run_folder: str | Path) -> None:
    """Delete what a run that was killed left half written under temporary names."""
    for path in Path(run_folder).glob(".*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _lack(checkpoint: Path) -> str | None:
    """What a checkpoint lacks to be complete, in words."""
    try:
        sizes = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
        listed = dict(sizes).items()
    except (OSError, ValueError, TypeError):
        return f"it has no {FILES} that can be read"
    for name, size in listed:
        path = checkpoint / Path(name).name
        if not path.is_file():
            return f"{path.name} is missing"
        if path.stat().st_size != size:
            return f"{path.name} has {path.stat().st_size} bytes, wanted {size}"
    return None
