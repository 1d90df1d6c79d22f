"""`DistillationTrainer`: transformers' Trainer around one `railkd.distiller.Distiller`.

Follow one batch: `PaddingCollator` pads rows of tokens and stacks their keys; `compute_loss` asks the teacher for the
signals of those keys and the objective for the draw of the moment; the distiller runs the student and returns the loss.
Everything else here keeps Trainer from doing something else.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import EvalPrediction, Trainer, set_seed
from transformers.trainer_utils import EvalLoopOutput

from railkd import checkpoints, hardware, ranks
from railkd.distiller import Distiller
from railkd.errors import RailkdError
from railkd.examples import KEY, TEACHER_PREFIX, PaddingCollator
from railkd.objectives import method_spec
from railkd.teacher import LiveTeacher, Teacher, TeacherCache
from railkd.teacher.writer import MANIFEST
from railkd.training import checkpointing, rows, soundness
from railkd.training.arguments import DistillationTrainingArguments
from railkd.training.gauging import Gauging
from railkd.training.negatives import Negatives
from railkd.training.resuming import Resuming
from railkd.training.samplers import EpochSampler, length_grouped, shuffled

logger = logging.getLogger(__name__)
TeacherLike = str | Path | nn.Module | Teacher


class DistillationTrainer(Trainer):
    """Train a student by any method of `railkd.objectives.METHODS`.

    Args:
        model: the student: a sequence classifier, a folder or a hub name.
        teacher_model: a folder or hub name (of a model or a cache), a module, or an opened `TeacherCache`. ``finetune``
            needs none.
        args: `DistillationTrainingArguments`.
        train_dataset, eval_dataset: rows with raw text columns, or tokenised beforehand with a key column. Evaluation
            reads labels only. A `datasets.IterableDataset` is tokenised as it comes; it needs ``max_steps``, keeps its
            own order, and an epoch is a pass of it (``redraw="step"`` draws within one).
        processing_class: the student's tokenizer; found beside the student when it was named by folder.
        teacher_processing_class: a live teacher's tokenizer; found beside a teacher named by folder, otherwise the
            student's.
        others: as `transformers.Trainer` takes them.

    Raises:
        RailkdError: what would doom the run, before it starts: labels that disagree, rows the cache lacks, a pooling it
            does not store.
    """

    args: DistillationTrainingArguments
    model: Distiller

    def __init__(
        self,
        model: str | Path | nn.Module | None = None,
        teacher_model: TeacherLike | None = None,
        args: DistillationTrainingArguments | None = None,
        *,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        teacher_processing_class: Any = None,
        model_init: Callable[..., nn.Module] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        **others: Any,
    ) -> None:
        args = args or DistillationTrainingArguments(output_dir="tmp_trainer")
        if isinstance(model, (str, Path)):
            folder = checkpoints.resolve(model)
            processing_class = processing_class or checkpoints.load_tokenizer(folder)
            set_seed(args.seed)  # a new head is drawn from it
            model = checkpoints.load_classifier(folder)
        self.method = method_spec(args.method)
        self.teacher = self._as_teacher(teacher_model, args, teacher_processing_class or processing_class)
        student: Any = _made(model_init) if model_init is not None else model
        if student is None:
            raise RailkdError("got no student; pass model= (a model, folder or hub name) or model_init=")
        distiller = self._distiller(student, args)
        live_config: Any = self.teacher.model.config if isinstance(self.teacher, LiveTeacher) else None
        prepare = rows.Preparer(distiller.config, processing_class, args, self._live_tokenizer(), live_config)
        if others.get("data_collator") is None:
            others["data_collator"] = PaddingCollator(
                processing_class, self._live_tokenizer(), regression=prepare.regression
            )
        train_dataset, keys = prepare.train(train_dataset)
        if isinstance(self.teacher, TeacherCache) and keys is not None:
            rows.check_rows(self.teacher, keys, distiller.pooling)
        self._negatives: Negatives | None = None
        if distiller.objective.negatives and keys is None and train_dataset is not None:
            raise RailkdError(
                f"{args.method} draws rows to contrast with, which a stream does not let; wanted a Dataset"
            )
        if distiller.objective.negatives and distiller.pooling is not None and keys is not None:
            if not isinstance(self.teacher, TeacherCache):
                raise RailkdError(
                    f"{args.method} contrasts with other rows of a teacher cache, got a live teacher; "
                    "build a cache (TeacherCache.build, or drop --live)"
                )
            self._negatives = Negatives(
                self.teacher,
                keys,
                train_dataset["labels"] if "labels" in train_dataset.column_names else None,
                pooling=distiller.pooling,
                count=distiller.objective.negatives,
                seed=args.seed,
            )
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: prepare.labelled(dataset) for name, dataset in eval_dataset.items()}
        else:
            eval_dataset = prepare.labelled(eval_dataset)
        self._prepare_rows = prepare
        self._terms = torch.zeros(0)
        self._term_steps = 0.0
        self.skipped = 0  # batches left out by skip_nonfinite
        self._eval_order: np.ndarray | None = None
        self._user_metrics = compute_metrics
        super().__init__(
            model=distiller if model_init is None else None,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            model_init=model_init,
            compute_metrics=self._metrics_in_dataset_order if compute_metrics else None,
            **others,
        )
        self.gauging = Gauging(self)
        if args.gauges:
            self.add_callback(self.gauging)
        self._resuming = Resuming(self)
        self.add_callback(self._resuming)
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the rows of the whole step

    def train(self, *args: Any, **options: Any) -> Any:
        """Trainer's own."""
        if self.args.keep_freed_memory and self.args.device.type == "cpu":
            hardware.keep_freed_memory()
        return super().train(*args, **options)

    # ---- one batch ----------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective in training; the student's own task loss in evaluation, where the teacher is never called."""
        batch = self._student_inputs(inputs)
        if not model.training:
            outputs = model(**batch)
            return (outputs[0], outputs) if return_outputs else outputs[0]
        try:
            loss, logits = self._training_loss(model, inputs, batch, num_items_in_batch)
        except soundness.NotFinite as error:
            if not self.args.skip_nonfinite:
                raise
            self._skip(str(error))
            loss, logits = torch.zeros((), device=self.args.device, requires_grad=True), None
        return (loss, (loss, logits)) if return_outputs else loss

    def _training_loss(
        self, model: nn.Module, inputs: dict[str, Any], batch: dict[str, Any], num_items_in_batch: Tensor | int | None
    ) -> tuple[Tensor, Tensor]:
        signals = None
        if self.teacher is not None and self.method.needs_teacher:
            signals = self.teacher(inputs, self.model.pooling)
        soundness.check_inputs(inputs, signals, self.state.global_step)
        if signals is not None:
            batch |= {"teacher_logits": signals.logits, "teacher_states": signals.states, "draw": self._draw_tensor()}
            if self._negatives is not None and self.model.pooling is not None:
                batch |= self._negatives(inputs, step=self.state.global_step)
            if self.args.intermediate_schedule != "constant":
                scale = self.args.intermediate_scale(self.state.global_step / max(1, self.state.max_steps))
                batch["intermediate_scale"] = torch.tensor(scale, device=self.args.device)
        # Through the wrapped model: DDP, autocast and compile live there.
        loss, logits, terms = model(**batch)
        names = self.model.term_names
        soundness.check_loss(loss.detach(), terms.detach(), names, logits.detach(), inputs, self.state.global_step)
        # Mean over the rows of the whole optimizer step, however it was split into micro-batches and ranks.
        share = 1.0
        if num_items_in_batch is not None:
            share = len(batch["input_ids"]) * self.args.world_size / float(num_items_in_batch)
        loss = loss * share
        self._terms = terms.detach() * share + (self._terms if len(self._terms) else 0)
        self._term_steps += share
        return loss, logits

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)
        try:
            if not self.args.fp16:  # its scaler meets such gradients by design, and skips the step
                soundness.check_gradient(float(norm), self.state.global_step)
        except soundness.NotFinite as error:
            if not self.args.skip_nonfinite:
                raise
            self._skip(str(error))
            model.zero_grad()  # without gradients the optimizer moves nothing
            return torch.zeros_like(norm)
        return norm

    def _skip(self, reason: str) -> None:
        self.skipped += 1
        logger.warning("batch skipped: %s", reason)

    def current_draw(self) -> tuple[int, ...]:
        """The teacher blocks of this moment: a function of seed, epoch and optimizer step alone."""
        return self.model.objective.draw(self.args.seed, epoch=int(self.state.epoch or 0), step=self.state.global_step)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Trainer's own, on what the student reads."""
        return super().prediction_step(model, self._student_inputs(inputs), *args, **options)

    def _student_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in inputs.items() if name != KEY and not name.startswith(TEACHER_PREFIX)}

    def _draw_tensor(self) -> Tensor | None:
        draw = self.current_draw()
        # As a tensor, so that compiled training does not retrace at every new draw.
        return torch.tensor(draw, device=self.args.device) if draw else None

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | int | None:
        count = torch.tensor(sum(len(batch["input_ids"]) for batch in batch_samples), device=device)
        return self.accelerator.gather(count).sum() if self.args.world_size > 1 else count

    # ---- model and teacher ---------------------------------------------------------------------

    @staticmethod
    def _as_teacher(given: TeacherLike | None, args: DistillationTrainingArguments, tokenizer: Any) -> Teacher | None:
        spec = method_spec(args.method)
        if not spec.needs_teacher:
            return None
        if given is None:
            raise RailkdError(
                f"method '{args.method}' learns from a teacher, got none; pass teacher_model= (a folder, a module or a "
                "cache)"
            )
        options: dict[str, Any] = {
            "max_length": args.max_length,
            "poolings": (spec.pooling or "mean",),
            "blocks": args.teacher_blocks,
        }
        if isinstance(given, (str, Path)):
            if (Path(given) / MANIFEST).is_file():
                return TeacherCache.open(given)
            folder = checkpoints.resolve(given)
            return LiveTeacher(
                checkpoints.load_classifier(folder).to(args.device), checkpoints.load_tokenizer(folder), **options
            )
        if isinstance(given, nn.Module):
            return LiveTeacher(given.to(args.device), tokenizer, **options)
        return given

    def _live_tokenizer(self) -> Any:
        return self.teacher.tokenizer if isinstance(self.teacher, LiveTeacher) else None

    def _distiller(self, student: nn.Module, args: DistillationTrainingArguments) -> Distiller:
        if isinstance(student, Distiller):
            return student
        shape = None
        if self.teacher is not None:
            rows.check_labels(student.config, self.teacher.info)
            shape = self.teacher.info.shape
        if args.freeze_embeddings:
            student.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
        set_seed(args.seed)  # the projections are drawn from it
        options = args.objective_options()
        distiller = Distiller.from_method(args.method, student, shape, blocks_pattern=args.blocks, **options)
        if distiller.objective.needs_fit:
            if not isinstance(self.teacher, TeacherCache):
                raise RailkdError(
                    f"{args.method} fits its targets on a teacher cache, got a live teacher; "
                    "build a cache (TeacherCache.build, or drop --live)"
                )
            distiller.objective.fit(self.teacher.moments(distiller.pooling or "mean"))
        return distiller

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """A fresh student, and a fresh objective around it."""
        return self._distiller(super().call_model_init(trial), self.args)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Trainer's own; the projections in groups of their own where they have a learning rate of their own."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        rate = self.args.projection_learning_rate
        theirs = {id(parameter) for parameter in self.model.objective.parameters()}
        if rate is not None and theirs:
            for group in list(optimizer.param_groups):
                moved = [parameter for parameter in group["params"] if id(parameter) in theirs]
                if moved:
                    group["params"] = [parameter for parameter in group["params"] if id(parameter) not in theirs]
                    optimizer.add_param_group({**group, "params": moved, "lr": rate})
        return optimizer

    # ---- order of rows -------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if dataset is None or not hasattr(dataset, "__len__"):
            return None
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        count = len(dataset)
        # Of the rows as they were prepared: Trainer has dropped the columns that no forward takes from `dataset`.
        names = getattr(self.train_dataset, "column_names", None) or []
        if self.args.length_groups and "length" in names and len(self.train_dataset) == count:
            lengths, size = np.asarray(self.train_dataset["length"][:]), self._train_batch_size * self.args.world_size

            def order(epoch: int) -> np.ndarray:
                return length_grouped(lengths, size, seed=seed, epoch=epoch)
        else:

            def order(epoch: int) -> np.ndarray:
                return shuffled(count, seed=seed, epoch=epoch)

        return EpochSampler(count, order, lambda: int(self.state.epoch or 0))

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int] | None:
        if not hasattr(eval_dataset, "__len__"):
            return None
        order = _longest_first(eval_dataset)
        return EpochSampler(len(order), lambda _: order, lambda: 0)

    def evaluation_loop(self, dataloader: Any, *args: Any, **options: Any) -> EvalLoopOutput:
        """Trainer's own, run over the longest rows first, its results put back in dataset order."""
        dataset = dataloader.dataset
        order = _longest_first(dataset) if hasattr(dataset, "__len__") else None
        self._eval_order = order
        output = super().evaluation_loop(dataloader, *args, **options)
        self._eval_order = None
        return output._replace(
            predictions=_restored(output.predictions, order), label_ids=_restored(output.label_ids, order)
        )

    def _metrics_in_dataset_order(self, prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = (_restored(part, self._eval_order) for part in (prediction.predictions, prediction.label_ids))
        assert self._user_metrics is not None
        return self._user_metrics(EvalPrediction(predictions=logits, label_ids=labels))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Trainer's own; raw text rows are tokenised first."""
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            eval_dataset = self._prepare_rows.labelled(eval_dataset)
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """Trainer's own; raw text rows are tokenised first."""
        return super().get_test_dataloader(self._prepare_rows.labelled(test_dataset))

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        assert self._signature_columns is not None
        theirs = [TEACHER_PREFIX + name for name in ("input_ids", "attention_mask", "token_type_ids")]
        self._signature_columns += [name for name in (KEY, *theirs) if name not in self._signature_columns]

    # ---- log, save, load -----------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's own, with the mean of each term since the last log beside the loss."""
        if "loss" in logs and self._term_steps:
            means = (self._terms / self._term_steps).tolist()
            if self.args.world_size > 1:
                steps = ranks.added(np.asarray([self._term_steps]))
                means = (ranks.added(self._terms.cpu().numpy()) / steps).tolist()
            logs |= dict(zip(self.model.term_names, means, strict=True))
            self._terms, self._term_steps = torch.zeros(0), 0.0
        if "train_loss" in logs:  # of the whole run: Trainer divides by the steps since a resume
            logs["train_loss"] = self._total_loss_scalar / max(1, self.state.global_step)
            if self.skipped:
                logs["skipped_batches"] = self.skipped
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save:
            checkpointing.save_model(self.model, output_dir or str(self.args.output_dir), self.processing_class)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        checkpointing.save_checkpoint(self, trial)

    def _run_epoch(self, *args: Any, **options: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # resumed at its end: Trainer would do one step more
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **options)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._resuming.checkpoint = resume_from_checkpoint
        checkpointing.load_model(self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint is not None:
            checkpointing.load_model(self.model, self.state.best_model_checkpoint)


def _made(model_init: Callable[..., nn.Module]) -> nn.Module:
    """A student by a function that may, as Trainer's, take the trial of a search or nothing."""
    return model_init(None) if inspect.signature(model_init).parameters else model_init()


def _longest_first(dataset: Any) -> np.ndarray:
    """Row order of evaluation: like lengths together, and a lack of memory shows in the first batch."""
    names = getattr(dataset, "column_names", [])
    lengths = [len(ids) for ids in dataset["input_ids"][:]] if "input_ids" in names else [0] * len(dataset)
    return np.argsort(-np.asarray(lengths), kind="stable")


def _restored(values: Any, order: np.ndarray | None) -> Any:
    if values is None or order is None:
        return values
    if isinstance(values, tuple):
        return tuple(_restored(part, order) for part in values)
    restored = np.empty_like(values)
    restored[order] = values
    return restored
