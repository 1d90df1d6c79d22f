"""What fine-tuning and distillation share: training arguments, the run, its scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import EvalPrediction, PrinterCallback

from railkd import mapping
from railkd.errors import RailkdError
from railkd.jobs.check import Say
from railkd.jobs.datafiles import DataFiles
from railkd.jobs.evaluate import score
from railkd.jobs.options import DEFAULT_MAX_LENGTH, RunOptions, required
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.splits import Tables
from railkd.models.heads import label_names
from railkd.models.inference import predict_logits
from railkd.records import RunRecord
from railkd.runtime import hardware, ranks
from railkd.runtime.hardware import fast_bf16
from railkd.runtime.progress import bar
from railkd.tasks.metrics import greater_is_better
from railkd.teacher import LiveTeacher, TeacherCache
from railkd.training import DistillationTrainer, DistillationTrainingArguments
from railkd.training.arguments import Shapes
from railkd.training.callbacks import Interruption, StepProgress

_RATE = "train_samples_per_second"


def fit(
    record: RunRecord,
    request: Request[RunOptions],
    args: DistillationTrainingArguments,
    model: Any,
    tokenizer: Any,
    teacher: LiveTeacher | TeacherCache | None,
    files: DataFiles,
    tables: Tables,
    say: Say,
    *,
    callbacks: Sequence[Any],
) -> RunRecord:
    """Train, score, and leave the run folder behind."""
    folder = RunFolder(Path(str(args.output_dir)))
    resume = folder.claim(request, say)
    if args.should_save:
        folder.write_settings(request)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return files.score(prediction.predictions, prediction.label_ids)

    model.config.railkd = {"method": args.method, "max_length": args.max_length}
    trainer = DistillationTrainer(
        model=model,
        teacher_model=teacher,
        args=args,
        train_dataset=tables.training_rows(model.config),
        eval_dataset=tables.eval,
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    trainer.gauging.warn = say
    with record.phase("training"), bar(f"training {args.method}", "steps", quiet=request.options.quiet) as advance:
        trainer.remove_callback(PrinterCallback)  # the bar shows the way; the numbers go to metrics.json
        for callback in (StepProgress(advance), *callbacks, interruption := Interruption(say)):
            trainer.add_callback(callback)
        with interruption.listening():
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    record.labels = list(label_names(model.config))
    with record.phase("evaluation"):
        # In float32 and outside Trainer: the numbers that the saved student gives wherever it is loaded.
        scored = dict(tables.test) | ({"eval": tables.eval} if tables.eval is not None else {})
        for set_name, table in scored.items():
            logits = predict_logits(trainer.model.student, tokenizer, table, max_length=args.max_length)
            score(
                record,
                files,
                set_name,
                table,
                logits,
                source=tables.sources.get(set_name),
                domain=tables.domains.get(set_name, "in"),
                keep=folder if request.options.keep_predictions and args.should_save else None,
                texts=request.options.keep_predictions == "texts",
            )
        if tables.eval is not None:
            record.selection = selection(trainer, files.primary_metric, tables.selecting)
    complete(record, trainer)
    if args.should_save:
        folder.leave(record, trainer.model, tokenizer)
        if not any(key.startswith("save_") for key in request.training):
            folder.drop_checkpoints()
    ranks.barrier()  # the student is there for all of them
    say(f"saved: {folder.model(record.job)} (plain transformers loads it); results: {folder.record}")
    return record


def complete(record: RunRecord, trainer: DistillationTrainer) -> None:
    """Fill a record with what training left: curve, speed, memory, gauges, draws and the size of the model."""
    record.curve = list(trainer.state.log_history)
    record.examples_per_second = next((e[_RATE] for e in reversed(record.curve) if _RATE in e), 0.0)
    record.peak_memory, record.machine = hardware.peak_memory(), hardware.machine()
    if trainer.gauging.similarity:
        record.gauges = trainer.gauging.as_dict()
    if (draws := trainer.model.objective.draws) is not None:
        _record_draws(record, draws, trainer)
    record.sizes = {"parameters": sum(parameter.numel() for parameter in trainer.model.student.parameters())}


def selection(trainer: DistillationTrainer, metric: str, rows: str) -> str:
    """Say which rows chose the weights that were kept.

    Args:
        trainer: after training.
        metric: that chose them, if anything did.
        rows: those that it was computed on, in words.
    """
    if not trainer.args.load_best_model_at_end or trainer.state.best_model_checkpoint is None:
        return "last step"
    return f"best {metric} on {rows}, at step {trainer.state.best_global_step}"


def _record_draws(record: RunRecord, draws: mapping.Draws, trainer: DistillationTrainer) -> None:
    """Write the draws that were used into a record: they follow from the seed, so they are computed, not collected."""
    epochs = max(1, math.ceil((trainer.state.epoch or 0) - 1e-6))
    drawn = draws.schedule(trainer.args.seed, steps=trainer.state.global_step, epochs=epochs)
    record.draws = [list(draw) for draw in drawn]
    record.coverage = mapping.coverage(drawn, draws.candidates)


def training_arguments(
    request: Request[RunOptions],
    rows: int,
    metric: str | None,
    say: Say,
    stored: TeacherCache | None = None,
    shapes: Shapes | None = None,
) -> DistillationTrainingArguments:
    """The training arguments: what the user gave, and what a job chooses where nothing was given.

    Args:
        request: what the job was asked.
        rows: that are trained on. metric: chooses the best epoch; None: nothing does.
        shapes: of student and teacher, where they are known.
    """
    options, training = request.options, request.training
    chosen: dict[str, Any] = {
        "output_dir": required(options.output, "--output"),
        "max_length": options.max_length or (stored.identity.max_length if stored else DEFAULT_MAX_LENGTH),
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.accelerator.is_available(),  # without one it does nothing but warn
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "logging_steps": max(1, rows // 320),
    }
    if "save_steps" in training:
        chosen["save_strategy"] = "steps"
    if metric is not None:
        chosen |= {
            "eval_strategy": training.get("save_strategy", chosen["save_strategy"]),
            "eval_steps": training.get("save_steps"),
            "load_best_model_at_end": True,
            "metric_for_best_model": metric,
            "greater_is_better": greater_is_better(metric),
        }
    given = {name: value for name, value in training.items() if value is not None}
    if "bf16" not in given and "fp16" not in given:
        chosen["bf16"] = fast_bf16()
        say(f"precision: {'bfloat16 autocast (--no-bf16 turns it off)' if chosen['bf16'] else 'float32'}")
    try:
        return DistillationTrainingArguments(**{**chosen, **given}, shapes=shapes)
    except RailkdError:
        raise
    except (ValueError, TypeError) as error:
        raise RailkdError(f"the training arguments do not fit together: {str(error).splitlines()[0]}") from error
