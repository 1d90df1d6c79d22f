"""The folder of a run: made ours at the start, left complete at the end."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from railkd import mapping
from railkd.errors import RailkdError
from railkd.jobs import settings
from railkd.jobs.options import DistillOptions, FinetuneOptions
from railkd.records import RunRecord
from railkd.runtime import hardware, ranks
from railkd.runtime.files import write_json
from railkd.training import DistillationTrainer
from railkd.training.checkpoint import OBJECTIVE_FILE, clear_unfinished, newest_checkpoint, save_model

#: Settings that change nothing of what training computes: a resumed run may have others.
_FREE_ON_RESUME = {
    "test",
    "ood",
    "cache",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "allow_weak_teacher",
    "keep_predictions",
}
_RATE = "train_samples_per_second"


def claim(
    output: Path, options: FinetuneOptions | DistillOptions, training: dict[str, Any], say: Callable[[str], None]
) -> Path | None:
    """Make the output folder ours; returns the checkpoint to resume from, if any.

    Args:
        say: told of checkpoints that are not complete.

    Raises:
        RailkdError: a run to resume that is finished, or was started with other settings.
    """
    if output.is_dir() and ranks.is_main_process():
        clear_unfinished(output)
    if options.overwrite and output.is_dir() and ranks.is_main_process():
        for path in (*output.glob("checkpoint-*"), *(output / name for name in ("student", "model", "predictions"))):
            shutil.rmtree(path, ignore_errors=True)
        for file in ("metrics.json", "draws.json", "gauges.json", OBJECTIVE_FILE, "config.yaml"):
            (output / file).unlink(missing_ok=True)
    ranks.barrier()
    if not options.resume:
        return None
    newest = newest_checkpoint(output, say)
    if newest is None and (output / "metrics.json").is_file():
        raise RailkdError(f"the run in '{output}' is finished, nothing is left to resume; --overwrite runs it again")
    if (output / "config.yaml").is_file():
        before = settings.load(output / "config.yaml")
        now = settings.as_dict(options, training)
        other = [
            f"{name} was {before.get(name, 'not given')}, is {now.get(name, 'not given')}"
            for name in sorted(set(before) | set(now))
            if before.get(name) != now.get(name) and name not in _FREE_ON_RESUME
        ]
        if other:
            raise RailkdError(
                f"the run in '{output}' was started with other settings: {'; '.join(other)}; resume with those, "
                "or start anew with --overwrite"
            )
    return newest


def leave(record: RunRecord, trainer: DistillationTrainer, model: Path, tokenizer: Any, *, keep: bool) -> None:
    """Save the student, the objective's weights, metrics, gauges and draws; on the first rank alone.

    Args:
        record: completed here: curve, draws, sizes. model: folder of the student, in that of the run.
        keep: leave the checkpoints there; otherwise they have served.
    """
    output = model.parent
    record.curve = list(trainer.state.log_history)
    record.examples_per_second = next((e[_RATE] for e in reversed(record.curve) if _RATE in e), 0.0)
    record.peak_memory, record.machine = hardware.peak_memory(), hardware.machine()
    if trainer.gauging.similarity:
        record.gauges = trainer.gauging.as_dict()
    draws = trainer.model.objective.draws
    if draws is not None:
        _record_draws(record, draws, trainer)
    student = trainer.model.student
    record.sizes = {"parameters": sum(parameter.numel() for parameter in student.parameters())}
    if not trainer.args.should_save:
        return
    fresh = output / f".{model.name}.tmp"
    shutil.rmtree(fresh, ignore_errors=True)
    save_model(trainer.model, fresh, tokenizer)
    if (fresh / OBJECTIVE_FILE).exists():
        (fresh / OBJECTIVE_FILE).replace(output / OBJECTIVE_FILE)
    shutil.rmtree(model, ignore_errors=True)
    fresh.rename(model)  # a student folder is complete or absent
    record.sizes["bytes"] = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    if record.gauges:
        write_json(output / "gauges.json", record.gauges)
    if draws is not None and record.draws:
        drawn = {"redraw": draws.redraw, "draws": record.draws, "coverage": record.coverage}
        write_json(output / "draws.json", drawn, indent=None)
    record.write(output / "metrics.json")  # last: what says that the run is finished
    if not keep:
        for folder in output.glob("checkpoint-*"):
            shutil.rmtree(folder)


def _record_draws(record: RunRecord, draws: mapping.Draws, trainer: DistillationTrainer) -> None:
    """Write the draws that were used into a record: they follow from the seed, so they are computed, not collected."""
    epochs = max(1, math.ceil((trainer.state.epoch or 0) - 1e-6))
    drawn = draws.used(trainer.args.seed, steps=trainer.state.global_step, epochs=epochs)
    record.draws = [list(draw) for draw in drawn]
    record.coverage = mapping.coverage(drawn, draws.candidates)


def selection(trainer: DistillationTrainer, metric: str, rows: str) -> str:
    """Which rows chose the weights that were kept, in words; ``rows`` are those that could."""
    if not trainer.args.load_best_model_at_end or trainer.state.best_model_checkpoint is None:
        return "last step"
    return f"best {metric} on {rows}, at step {trainer.state.best_global_step}"
