"""What fine-tuning and distillation share: training arguments, the run, its scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import EvalPrediction, PrinterCallback

from railkd.errors import RailkdError
from railkd.jobs import run_folder, settings
from railkd.jobs.check import Say
from railkd.jobs.datafiles import DataFiles
from railkd.jobs.evaluate import score
from railkd.jobs.options import DEFAULT_MAX_LENGTH, DistillOptions, FinetuneOptions, required
from railkd.jobs.splits import Tables
from railkd.models.heads import label_names
from railkd.models.inference import predict_logits
from railkd.records import RunRecord
from railkd.runtime import ranks
from railkd.runtime.files import write_text
from railkd.runtime.hardware import fast_bf16
from railkd.runtime.progress import bar
from railkd.tasks.metrics import greater_is_better
from railkd.teacher import LiveTeacher, TeacherCache
from railkd.training import DistillationTrainer, DistillationTrainingArguments
from railkd.training.callbacks import Interruption, StepProgress

# ---- their steps -------------------------------------------------------------------------------


def fit(
    record: RunRecord,
    options: FinetuneOptions | DistillOptions,
    training: dict[str, Any],
    args: DistillationTrainingArguments,
    model: Any,
    tokenizer: Any,
    teacher: LiveTeacher | TeacherCache | None,
    files: DataFiles,
    tables: Tables,
    say: Say,
    *,
    name: str,
    callbacks: Sequence[Any],
) -> RunRecord:
    """Train, score, and leave the run folder behind."""
    output = Path(str(args.output_dir))
    resume = run_folder.claim(output, options, training, say)
    if args.should_save:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / "config.yaml", settings.dump(options, training))

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
    with record.phase("training"), bar(f"training {args.method}", "steps", quiet=options.quiet) as advance:
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
                keep=output if options.keep_predictions and args.should_save else None,
                texts=options.keep_predictions == "texts",
            )
        if tables.eval is not None:
            record.selection = run_folder.selection(trainer, files.primary_metric, tables.selecting)
    run_folder.leave(record, trainer, output / name, tokenizer, keep=any(key.startswith("save_") for key in training))
    ranks.barrier()  # the student is there for all of them
    say(f"saved: {output / name} (plain transformers loads it); results: {output / 'metrics.json'}")
    return record


def training_arguments(
    training: dict[str, Any],
    options: FinetuneOptions | DistillOptions,
    rows: int,
    metric: str | None,
    say: Say,
    stored: TeacherCache | None = None,
) -> DistillationTrainingArguments:
    """The training arguments: what the user gave, and what a job chooses where nothing was given.

    Args:
        rows: that are trained on. metric: chooses the best epoch; None: nothing does.
    """
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
        return DistillationTrainingArguments(**{**chosen, **given})
    except RailkdError:
        raise
    except (ValueError, TypeError) as error:
        raise RailkdError(f"the training arguments do not fit together: {str(error).splitlines()[0]}") from error
