"""Trains and scores one model, for fine-tuning and for distillation."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import EvalPrediction, PrinterCallback

from railkd import mapping
from railkd.errors import RailkdError
from railkd.export.push import push
from railkd.jobs import tracking
from railkd.jobs.cache import clear_caches
from railkd.jobs.evaluate import judge, score
from railkd.jobs.options import RunOptions, Say, required
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.splits import Splits
from railkd.jobs.trained import Trained
from railkd.jobs.training_settings import keeps_checkpoints
from railkd.models.freezing import frozen_line, sizes
from railkd.models.heads import label_names
from railkd.models.inference import predict_logits
from railkd.models.named_teachers import as_list
from railkd.records import RunRecord
from railkd.runtime import hardware, ranks
from railkd.runtime.progress import bar
from railkd.tasks.judging import of_a_model
from railkd.tasks.metrics import LOSS
from railkd.teacher import LiveTeacher, StoredTeacher
from railkd.training import DistillationTrainer, DistillationTrainingArguments
from railkd.training.callbacks import Elapsed, Interruption, Patience, StepProgress
from railkd.training.samplers import rows_seen, training_sampler

_RATE = "train_samples_per_second"


class TrainingJob(Protocol):
    """A job that trains a model: `railkd.jobs.finetune.finetune` or `railkd.jobs.distill.distill`."""

    def __call__(self, request: Request[Any], say: Say, callbacks: Sequence[Any] = ()) -> RunRecord:
        """Train a model, score it and save it.

        Rows, models or settings that do not fit each other raise `railkd.errors.RailkdError`.

        Args:
            request: options and training arguments of the run.
            say: receives lines for the user.
            callbacks: callbacks of transformers' Trainer.

        Returns:
            The record of the run. Its files are in the run folder.
        """


@dataclass(frozen=True)
class Trainee:
    """The model of one run with its data.

    Attributes:
        args: training arguments.
        model: student, or model to fine-tune.
        tokenizer: tokenizer of the model.
        teacher: source of the teacher's answers; None without a teacher.
        splits: tables, task and classes.
    """

    args: DistillationTrainingArguments
    model: Any
    tokenizer: Any
    teacher: LiveTeacher | StoredTeacher | None
    splits: Splits


def fit(
    trainee: Trainee, request: Request[RunOptions], record: RunRecord, say: Say, callbacks: Sequence[Any] = ()
) -> RunRecord:
    """Train a model, score it, and write the folder of the run.

    Args:
        trainee: model and data.
        request: options and training arguments of the run.
        record: record of the run, which is completed here.
        say: receives lines for the user.
        callbacks: callbacks of transformers' Trainer.

    Returns:
        The record.
    """
    args = trainee.args
    folder = RunFolder(Path(str(args.output_dir)))
    folder.claim(request)
    if args.should_save:
        folder.write_settings(request, record.contents, torch.get_num_threads())
    trainer = _make_trainer(trainee)
    trainer.gauging.warn = trainer.say = say
    if args.freeze:
        say(frozen_line(trainer.model.student, args.freeze))
    with record.phase("training"), bar(f"training {args.method}", "steps", quiet=request.options.quiet) as advance:
        interruption, patience = Interruption(say), Patience(request.options.patience or sys.maxsize, say)
        for callback in (elapsed := Elapsed(), StepProgress(advance), *callbacks, patience, interruption):
            trainer.add_callback(callback)
        with interruption.listening():
            trainer.train(resume_from_checkpoint=request.options.resume)
    with record.phase("evaluation"):
        _score_tables(record, trainee, trainer, request.options.keep_predictions, say)
    tracking.log_scores(trainer, record)
    if patience.stopped:
        record.selection += f"; {patience.stopped}"
    complete(record, trainer, elapsed.before)
    record.seen = _seen(trainee, trainer)
    if args.should_save:
        folder.leave(record, trainer.model, trainee.tokenizer)
        if not keeps_checkpoints(request.training):
            folder.drop_checkpoints()
    ranks.barrier()  # every rank returns after the model is on disk
    say(f"saved: {folder.model(record.job)} (plain transformers loads it); results: {folder.record}")
    if request.options.push_to_hub and ranks.is_main_process():
        options = request.options
        say(f"pushed: {push(folder.model(record.job), str(options.push_to_hub), private=options.private)}")
    return record


@contextmanager
def reserved(request: Request[RunOptions], record: RunRecord, say: Say) -> Iterator[None]:
    """Hold the folder of a run, and refuse to resume one that began otherwise. Caches of a replaced run are deleted.

    Args:
        request: options and training arguments of the run.
        record: of the run, with its contents.
        say: receives lines for the user.

    Yields:
        Nothing.
    """
    folder = RunFolder(Path(required(request.options.output, "--output")))
    with folder.reserve(request.options):
        if request.options.overwrite and ranks.is_main_process():
            clear_caches(folder.cache, as_list(getattr(request.options, "cache", None)))
        ranks.barrier()
        if request.options.resume:
            for line in folder.check_resumed(request, record.contents, torch.get_num_threads()):
                say(line)
        yield


def _make_trainer(trainee: Trainee) -> DistillationTrainer:
    splits, args = trainee.splits, trainee.args

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        assert splits.eval is not None
        found = splits.target.score(splits.eval, prediction.predictions, prediction.label_ids)
        own = splits.target.own_scores(splits.eval, prediction.predictions, prediction.label_ids)
        if splits.metric not in (LOSS, *found, *own.values):
            raise RailkdError(
                f"--metric-for-best-model {splits.metric}: the metric has no value on {splits.selecting}. "
                f"{' '.join(own.failures.values())}"
            )
        return found | own.values

    trainee.model.config.railkd = Trained.entry(args.method, args.max_length, splits.train.columns.text)
    trainer = DistillationTrainer(
        model=trainee.model,
        teacher_model=trainee.teacher,
        args=args,
        train_dataset=splits.training_rows(trainee.model.config.num_labels),
        eval_dataset=splits.eval.rows if splits.eval is not None else None,
        processing_class=trainee.tokenizer,
        compute_metrics=compute_metrics,
    )
    trainer.remove_callback(PrinterCallback)  # the bar shows progress, metrics.json holds the numbers
    return trainer


def _score_tables(
    record: RunRecord, trainee: Trainee, trainer: DistillationTrainer, kept: str | None, say: Say
) -> None:
    """Score the trained model on the test sets and on the rows that chose the epoch.

    This runs in float32 and outside Trainer, so that the saved model gives the same numbers after loading.

    Args:
        record: receives the scores and the choice of the epoch.
        trainee: model and data.
        trainer: trainer after training.
        kept: "answers" keeps predictions, "texts" keeps them with their texts, None keeps nothing.
        say: receives what was found about the answers of a model that may become a teacher.
    """
    splits, args = trainee.splits, trainee.args
    record.labels = list(label_names(trainee.model.config))
    folder = RunFolder(Path(str(args.output_dir))) if kept and args.should_save else None
    for name, table in splits.scored.items():
        outputs = predict_logits(trainer.model.student, trainee.tokenizer, table.rows, max_length=args.max_length)
        score(record, splits.target, name, table, outputs, keep=folder, texts=kept == "texts")
        if record.job == "finetune" and table is splits.eval:
            finding = judge(outputs, np.asarray(table.rows["label"]), splits.target, table)
            record.finding = asdict(finding)
            if finding.level != "note":  # fine-tuning itself succeeded
                say(str(of_a_model(finding)))
    if splits.metric is not None or trainer.averaging.count:
        record.selection = selection(trainer, splits.metric or "", splits.selecting)


def complete(record: RunRecord, trainer: DistillationTrainer, before: float = 0.0) -> None:
    """Write curve, times, memory, gauges, draws and model size of a training into a record.

    Args:
        record: receives them. Its phase "training" is that of this session.
        trainer: trainer after training.
        before: seconds of training of the sessions before, if the run was resumed.
    """
    record.curve = list(trainer.state.log_history)
    record.seconds["training"] = record.seconds.get("training", 0.0) + before
    record.examples_per_second = next((e[_RATE] for e in reversed(record.curve) if _RATE in e), 0.0)
    record.peak_memory, record.machine = hardware.peak_memory(), hardware.machine()
    if trainer.gauging.similarity:
        record.gauges = trainer.gauging.as_dict()
    if (draws := trainer.model.objective.draws) is not None:
        _record_draws(record, draws, trainer)
    record.sizes = sizes(trainer.model.student)
    if trainer.args.freeze:
        record.start["frozen"] = list(trainer.args.freeze)


def _seen(trainee: Trainee, trainer: DistillationTrainer) -> dict[str, int]:
    """Return the steps of a training, and how many rows it has read, with and without labels."""
    args, state, splits = trainee.args, trainer.state, trainee.splits
    batch = (state.train_batch_size or args.train_batch_size) * args.world_size
    rows = trainer.train_dataset
    sampler = training_sampler(rows, rows, args, batch, lambda: 0)
    used = len(rows) - (len(rows) % batch if args.dataloader_drop_last else 0)
    per_step = batch * args.gradient_accumulation_steps
    labelled, other = rows_seen(sampler, used, state.global_step, per_step, [len(splits.train)])
    return {"steps": state.global_step, "rows": labelled + other, "labelled": labelled, "unlabelled": other}


def selection(trainer: DistillationTrainer, metric: str, rows: str) -> str:
    """Describe how the kept weights were chosen.

    Args:
        trainer: trainer after training.
        metric: metric of the choice.
        rows: description of the rows that it was computed on.

    Returns:
        "last step", the steps of a mean, or the metric, the rows and the best step.
    """
    if trainer.averaging.count:
        return f"mean of the weights over the last {trainer.averaging.count} steps"
    if not trainer.args.load_best_model_at_end or trainer.state.best_model_checkpoint is None:
        return "last step"
    return f"best {metric} on {rows}, at step {trainer.state.best_global_step}"


def _record_draws(record: RunRecord, draws: mapping.Draws, trainer: DistillationTrainer) -> None:
    """Write the drawn layers into a record. They follow from the seed, so they are computed again, not collected."""
    epochs = max(1, math.ceil((trainer.state.epoch or 0) - 1e-6))
    drawn = draws.schedule(trainer.args.seed, steps=trainer.state.global_step, epochs=epochs)
    record.draws = [list(draw) for draw in drawn]
    record.coverage = mapping.coverage(drawn, draws.candidates)
