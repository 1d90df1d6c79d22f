"""Train a `railkd.models.distiller.Distiller` with transformers' Trainer.

`PaddingCollator` pads a batch of tokens and stacks its keys. `compute_loss` gets the teacher's signals for these keys
and the drawn blocks of the objective. The distiller runs the student and returns the loss. The other overrides correct
behaviour of Trainer that would be wrong for distillation. The docstring of the class lists them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import EvalPrediction, Trainer
from transformers.trainer_utils import EvalLoopOutput

from railkd.data.collator import Batch
from railkd.data.keys import KEY
from railkd.data.tokens import TEACHER_PREFIX, student_inputs
from railkd.models.checkpoints import Checkpoint
from railkd.models.distiller import Distiller
from railkd.runtime import hardware, ranks
from railkd.teacher import LiveTeacher, StoredTeacher
from railkd.training import build, checkpoint, checkpoint_folders, memory, pairing, prepare
from railkd.training.arguments import DistillationTrainingArguments
from railkd.training.averaging import Averaging
from railkd.training.evaluation import Evaluation
from railkd.training.feeding import feeding, reading_ahead
from railkd.training.gauges import Gauging
from railkd.training.loss import TrainingLoss, current_draw
from railkd.training.probe import Probed, probe
from railkd.training.resuming import Resuming
from railkd.training.samplers import training_sampler
from railkd.training.teaching import Teaching


class DistillationTrainer(Trainer):
    """Train a student by any method of `railkd.objectives.METHODS`.

    Args:
        model: the student, as a sequence classifier, a folder, a hub name or a `Checkpoint`.
        teacher_model: a folder or hub name (of a model or a cache), a `Checkpoint`, a module, or an opened
            `TeacherCache`. ``finetune`` needs none.
        args: `DistillationTrainingArguments`.
        objective: an objective of your own in place of ``args.method``: an instance, or a class without options.
        train_dataset, eval_dataset: rows with raw text columns, or tokenised beforehand with a key column. Evaluation
            reads labels only. A `datasets.IterableDataset` is tokenised as it is read, needs ``max_steps`` and keeps
            its order. One pass over it is an epoch (``redraw="step"`` draws within an epoch).
        processing_class: the student's tokenizer. By default it is loaded from the student's folder.
        teacher_processing_class: a live teacher's tokenizer. By default it is loaded from the teacher's folder. A
            teacher given as a module uses that of the student.
        others: other arguments of `transformers.Trainer`.

    Raises:
        RailkdError: the run cannot succeed: labels of student and teacher differ, say, or the cache lacks rows.

    Overrides:
        Methods of Trainer and the reason for each. `tests/training/test_private_names.py` lists the private ones.

        - `train`: keep freed memory of a CPU for the next step, and explain a lack of memory in words.
        - `compute_loss`: training uses the objective, not the task loss of the model.
        - `training_step`: a loss that is not finite counts as 0 in the log of a run that skips it.
        - `prediction_step`: the student does not read the teacher's columns.
        - `_prepare_inputs`: keys and labels are read in main memory, not from the device.
        - `_get_grad_norm`: runs before each optimizer step, and keeps gradients that are not finite out of it.
        - `_get_num_items_in_batch`: a step is the mean over its rows, and unlabelled rows count.
        - `call_model_init`: a fresh student gets a fresh objective.
        - `create_optimizer`: the projections may have a learning rate of their own.
        - `_get_train_sampler`: the order of rows is a function of seed and epoch; rows of similar length share a batch.
        - `_get_eval_sampler`: the longest rows come first.
        - `_get_dataloader`: ``dataloader_drop_last`` drops rows of training alone, whose signals are read ahead.
        - `evaluation_loop`: predictions are returned in the order of the data set.
        - `get_eval_dataloader`: raw text is tokenised.
        - `get_test_dataloader`: raw text is tokenised.
        - `_set_signature_columns_if_needed`: keys and the teacher's tokens reach the collator.
        - `log`: the mean of each loss term is logged with the loss.
        - `_save`: writes the student as plain transformers loads it, and the objective separately, without a pickle.
        - `_save_checkpoint`: a killed run leaves no incomplete checkpoint.
        - `_run_epoch`: a run that resumes at its end does not take one more step, and a pass over a stream is an epoch.
        - `_load_from_checkpoint`: loads the files of `_save` and the sums of the log.
        - `_load_best_model`: loads the files of `_save`.
        - `_finalize_training`: deletes only files that railkd wrote.
    """

    args: DistillationTrainingArguments
    model: Distiller
    data_collator: Any

    def __init__(
        self,
        model: build.StudentLike | None = None,
        teacher_model: build.TeacherLike | None = None,
        args: DistillationTrainingArguments | None = None,
        *,
        objective: build.ObjectiveLike | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        teacher_processing_class: Any = None,
        model_init: Callable[..., nn.Module] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        **others: Any,
    ) -> None:
        args = args or DistillationTrainingArguments(output_dir="tmp_trainer")
        if isinstance(model, (str, Path, Checkpoint)):
            model, processing_class = build.load_student(model, args.seed, processing_class)
        self.method, self._objective = build.find_method(objective, args)
        self.teacher = build.make_teacher(
            teacher_model, self.method, args, teacher_processing_class or processing_class
        )
        student = build.call_init(model_init, model)
        distiller = build.make_distiller(student, self.teacher, self.method, args, self._objective)
        live = self.teacher if isinstance(self.teacher, LiveTeacher) else None
        live_tokenizer, live_config = (live.tokenizer, live.model.config) if live else (None, None)
        preparer = prepare.Preparer(distiller.config, processing_class, args, live_tokenizer, live_config)
        others["data_collator"] = others.get("data_collator") or preparer.collator()
        train_dataset, keys = preparer.train(train_dataset)
        if isinstance(self.teacher, StoredTeacher) and keys is not None:
            pairing.check_rows(self.teacher, keys, distiller.pooling)
        negatives = build.make_negatives(distiller, self.teacher, self.method.name, args.seed, train_dataset, keys)
        teaching = None if self.teacher is None else Teaching(args, self.teacher, distiller.pooling, keys, negatives)
        self._loss = TrainingLoss(args, teaching, distiller.term_names)
        self._prepare_rows = preparer
        self._evaluation = Evaluation(args, compute_metrics)
        super().__init__(
            model=distiller if model_init is None else None,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=preparer.labelled(eval_dataset),
            processing_class=processing_class,
            model_init=model_init,
            compute_metrics=self._evaluation.metrics,
            **others,
        )
        self.say: Callable[[str], None] | None = None  # receives messages on checkpoints; None uses the log
        self.gauging, self.averaging = Gauging(self.probe, self.log), Averaging(args.average_last)
        self._resuming = Resuming(self._restore_log)
        for callback in [self.gauging] * args.gauges + [self.averaging, self._resuming]:
            self.add_callback(callback)
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the rows of the whole step

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **options: Any) -> Any:
        """Train as Trainer does. A damaged checkpoint is refused, and True takes the newest undamaged one, if any."""
        if self.args.keep_freed_memory and self.args.device.type == "cpu":
            hardware.keep_freed_memory()
        resume = checkpoint_folders.find_resumable(resume_from_checkpoint, str(self.args.output_dir), self.say)
        with memory.explained(self.args), feeding(self._loss.feed, self.say):
            return super().train(resume, *args, **options)

    def probe(self) -> Probed | None:
        """Run student and teacher on the probe rows. Return None for methods without states and for streams."""
        return probe(
            self.model, self.teacher, self.train_dataset, self.data_collator, self.args, self.accelerator.autocast
        )

    # ---- one batch ----------------------------------------------------------------------------

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the objective in training, and the task loss of the student in evaluation, without the teacher."""
        if not model.training:
            outputs = model(**student_inputs(inputs))
            return (outputs[0], outputs) if return_outputs else outputs[0]
        loss, logits = self._loss(model, self.model, Batch.of(inputs), self.state, num_items_in_batch)
        return (loss, (loss, logits)) if return_outputs else loss

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        """Run a step of Trainer. A loss that is not finite counts as 0 in the log of a run that skips it."""
        loss: Tensor = super().training_step(*args, **options)
        return loss.nan_to_num(0.0, 0.0, 0.0)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Tensor:
        norm = torch.as_tensor(super()._get_grad_norm(model, grad_norm=grad_norm))
        step, scaled = self.state.global_step, bool(self.accelerator.scaler)
        return self._loss.finish_step(self.optimizer, norm, step, scaled=scaled)

    @property
    def skipped(self) -> int:
        """Return the number of batches skipped by ``skip_nonfinite`` so far."""
        return self._loss.skipped

    def current_draw(self) -> tuple[int, ...]:
        """Return the currently drawn teacher blocks."""
        return current_draw(self.model, self.args, self.state)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Run a step of Trainer with the columns that the student reads."""
        return super().prediction_step(model, student_inputs(inputs), *args, **options)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> Any:
        if not isinstance(inputs, Batch):
            return super()._prepare_inputs(inputs)
        moved = super()._prepare_inputs({name: value for name, value in inputs.items() if name != KEY})
        return Batch(moved | {name: inputs[name] for name in inputs if name == KEY}, inputs.host, inputs.ahead)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | int | None:
        count = sum(len(batch["input_ids"]) for batch in batch_samples)
        if self.args.world_size == 1:
            return count
        return self.accelerator.gather(hardware.to_device(torch.tensor(count), device)).sum().double()

    # ---- model and optimizer -------------------------------------------------------------------

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Return a new student with a new objective."""
        objective = copy.deepcopy(self._objective)
        return build.make_distiller(super().call_model_init(trial), self.teacher, self.method, self.args, objective)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create Trainer's optimizer. Projections with a learning rate of their own get separate groups."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        build.separate_groups(optimizer, self.model.objective, self.args.projection_learning_rate)
        return optimizer

    # ---- order of rows -------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        batch = self._train_batch_size * self.args.world_size
        # With the prepared rows, because Trainer has removed the length column from `dataset`.
        return training_sampler(dataset, self.train_dataset, self.args, batch, lambda: int(self.state.epoch or 0))

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int] | None:
        return self._evaluation.sampler(eval_dataset)

    def evaluation_loop(self, dataloader: Any, *args: Any, **options: Any) -> EvalLoopOutput:
        """Evaluate the longest rows first, and return the results in the order of the data set."""
        self._loss.settle()
        with self._evaluation.of(dataloader.dataset) as in_dataset_order:
            return in_dataset_order(super().evaluation_loop(dataloader, *args, **options))

    def _get_dataloader(self, *args: Any, is_training: bool = False, **options: Any) -> Any:
        drop, collator = self.args.dataloader_drop_last, self.data_collator
        self.args.dataloader_drop_last = drop and is_training
        feed = self._loss.feed if is_training else None
        self.data_collator = reading_ahead(collator, feed, self.args.dataloader_num_workers)
        try:
            return super()._get_dataloader(*args, is_training=is_training, **options)
        finally:
            self.args.dataloader_drop_last, self.data_collator = drop, collator

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return Trainer's loader. Raw text is tokenised first."""
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            eval_dataset = self._prepare_rows.labelled(eval_dataset)
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """Return Trainer's loader. Raw text is tokenised first."""
        return super().get_test_dataloader(self._prepare_rows.labelled(test_dataset))

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        assert self._signature_columns is not None
        theirs = [TEACHER_PREFIX + name for name in ("input_ids", "attention_mask", "token_type_ids")]
        self._signature_columns += [name for name in (KEY, *theirs) if name not in self._signature_columns]

    # ---- log, save, load -----------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as Trainer does, and add the mean of each loss term since the last log."""
        self._loss.settle()
        if "loss" in logs:
            logs |= self._loss.sums.mean()
            self._loss.sums.clear()
        if "train_loss" in logs:  # of the whole run: Trainer divides by the steps since a resume
            logs["train_loss"] = self._total_loss_scalar / max(1, self.state.global_step)
            logs |= self._loss.counts
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        self._loss.settle()
        if self.args.should_save:
            checkpoint.save_model(self.model, output_dir or str(self.args.output_dir), self.processing_class)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._loss.settle()
        if trial is None:
            self.store_flos()
        folder = self._get_output_dir(trial=trial)
        checkpoint.save_checkpoint(folder, self.state, self.args, self._write_checkpoint, self.optimizer)

    def _write_checkpoint(self, folder: str) -> None:
        """Write the files of a checkpoint, with the methods of Trainer for its formats."""
        self.save_model(folder, _internal_call=True)
        if not self.args.save_only_model:
            self._save_optimizer_and_scheduler(folder)
            self._save_scaler(folder)
            self._save_rng_state(folder)
        sums = self._log_state()
        if self.args.should_save:
            self.averaging.write(folder)
            checkpoint.save_state(folder, self.state, [*self.callback_handler.callbacks, self.control], sums)

    def _log_state(self) -> dict[str, Any]:
        """Return the sums since the last log, as a mean over the ranks. Every rank must call this method."""
        held = np.asarray([float(self._tr_loss), *self._loss.sums.state()])
        loss, steps, *terms = (ranks.all_reduce_sum(held) / ranks.world_size()).tolist()
        return {
            "loss": loss,
            "steps": steps,
            "terms": terms,
            "total": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "gauges": self.gauging.as_dict(),
            "pass_ended": self._resuming.pass_ended,
            "counts": self._loss.counts,
        }

    def _restore_log(self, held: dict[str, Any]) -> None:
        """Restore the values that `_log_state` returned."""
        self._tr_loss += held["loss"]
        self._total_loss_scalar = held["total"]
        self._globalstep_last_logged = held["last_logged"]
        self._loss.restore(held)
        self.gauging.restore(held["gauges"])

    def _run_epoch(self, *args: Any, epoch: int, **options: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # resumed at its end: Trainer would run one more step
            self.control.should_training_stop = True
        options |= self._resuming.position
        if self.control.should_training_stop or epoch < options["epochs_trained"]:  # passes before the checkpoint
            return
        self.state.epoch = max(self.state.epoch or 0, epoch)  # of a stream it is still a part of the pass before
        super()._run_epoch(*args, epoch=epoch, **options)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._resuming.checkpoint = resume_from_checkpoint
        self.averaging.read(resume_from_checkpoint)
        checkpoint.load_model(self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint is not None:
            checkpoint.load_best(self.model, Path(self.state.best_model_checkpoint))

    def _finalize_training(self, *args: Any, **options: Any) -> Any:
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*args, **options)
        finally:
            self.args.save_total_limit = limit
            if limit == 1 and self.state.best_model_checkpoint is not None and self.args.should_save:
                best = Path(self.state.best_model_checkpoint)
                checkpoint_folders.rotate(Path(str(self.args.output_dir)), 1, (best,))
