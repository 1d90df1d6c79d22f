"""The module that is trained: student and objective in one module, for any training loop.

The objective has weights (projections). Outside of the trained module they would stay untrained without a warning, and
if they were given to the optimizer by hand, they would differ between ranks. Inside, the optimizer, clipping, autocast,
compile, DDP and checkpoints treat them as any other weights. The teacher is not part of the module: its signals are
inputs.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from railkd.errors import RailkdError
from railkd.models.blocks import BlockReader, accepted_inputs
from railkd.models.heads import label_names, problem_type_of, task_of_config
from railkd.models.parts import run_in_parts
from railkd.objectives import MethodSpec, Objective, method_spec
from railkd.signals import Negatives, Signals
from railkd.tasks import task_of


@dataclass(frozen=True)
class TeacherInputs:
    """The keyword arguments of `Distiller.forward` beside the batch.

    They are tensors and no `Signals`, because DDP, compile and Trainer pass tensors by keyword.

    Attributes:
        teacher_logits: (B, C). None: the objective gets no signals of a teacher.
        teacher_states: (B, n, d_t), pooled as the method reads them.
        teacher_answered: (B,) bool, see `railkd.signals.Signals`. None: the teacher answers every row.
        draw: (m,) teacher blocks, 1-based.
        intermediate_scale: () factor of a schedule.
        term_scales: (3,) factors on the weights of the terms, of a method in stages.
        negative_states: see `railkd.signals.Negatives`.
        negative_group: see `railkd.signals.Negatives`.
        negative_keep: see `railkd.signals.Negatives`.
    """

    teacher_logits: Tensor | None = None
    teacher_states: Tensor | None = None
    teacher_answered: Tensor | None = None
    draw: Tensor | None = None
    intermediate_scale: Tensor | None = None
    term_scales: Tensor | None = None
    negative_states: Tensor | None = None
    negative_group: Tensor | None = None
    negative_keep: Tensor | None = None

    def signals(self) -> Signals | None:
        """Return the teacher's signals."""
        if self.teacher_logits is None:
            return None
        negatives = None
        if self.negative_states is not None and self.negative_group is not None:
            negatives = Negatives(self.negative_states, self.negative_group, self.negative_keep)
        return Signals(self.teacher_logits, self.teacher_states, negatives, self.teacher_answered)


class Distiller(nn.Module):
    """A student and its objective.

    In a loop of your own::

        distiller = Distiller.from_method("rail-kd-l", student, teacher_shape=(12, 768))
        loss, logits, *_ = distiller(**batch, teacher_logits=..., teacher_states=..., draw=torch.tensor([2, 5]))
        loss.backward()

    Args:
        student: a transformers model for sequence classification or regression.
        objective: built for the shapes of this student and its teacher.
        pooling: pooling of the block states that the objective reads. None: it reads logits only.
        blocks: see `railkd.models.blocks.find_blocks`.

    Attributes:
        splits_batches: run a training batch in parts of similar length, see `railkd.models.parts.run_in_parts`.
    """

    # Otherwise Trainer would pass num_items_in_batch and scale accumulated gradients twice.
    accepts_loss_kwargs = False

    def __init__(
        self, student: nn.Module, objective: Objective, *, pooling: str | None = "mean", blocks: str | None = None
    ) -> None:
        super().__init__()
        self.student: Any = student
        self.objective = objective
        self.pooling = pooling
        self.splits_batches = False
        # In a tuple, so that the reader's list of blocks is not registered as submodules a second time.
        self._reader = (BlockReader(student, (pooling,), blocks, first=objective.m),) if pooling else ()
        self._takes = accepted_inputs(student)
        self._output = task_of_config(student.config).output

    @classmethod
    def from_method(
        cls, method: str | MethodSpec, student: nn.Module, teacher_shape: tuple[int, int] | None = None, **options: Any
    ) -> Distiller:
        """Build the objective of a method for this student, and a distiller of both.

        Args:
            method: a name (`railkd.objectives.METHODS` are those of railkd), or a row.
            student: a transformers model for sequence classification or regression.
            teacher_shape: (blocks, width) of the teacher; None: the student's.
            options: of the objective, and ``blocks_pattern`` (see `railkd.models.blocks.find_blocks`).

        Returns:
            The distiller.

        Raises:
            RailkdError: there are class weights, but not one for each class of the student.
        """
        spec = method if isinstance(method, MethodSpec) else method_spec(method)
        blocks = options.pop("blocks_pattern", None)
        options.setdefault("problem_type", problem_type_of(student.config))
        shape = BlockReader(student, blocks=blocks).shape
        given, config = options.get("class_weights"), student.config
        if given is not None and len(given) != config.num_labels:  # type: ignore[union-attr]
            raise RailkdError(
                f"Expected class_weights for each class of the student ({', '.join(label_names(config))}), got "
                f"{len(given)} of them."
            )
        objective = spec.build(shape, teacher_shape or shape, **options)
        pooling = spec.pooling if objective.weights.get("intermediate") else None
        return cls(student, objective, pooling=pooling, blocks=blocks)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        ends: np.ndarray | None = None,
        **signals: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """Run the student and, in training, compute its loss.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), 1 for real tokens. None: all tokens are real.
            token_type_ids: (B, L).
            labels: (B,), or (B, C) of several classes. -100, and NaN among floats, marks a row without a label.
            ends: (B,), see `railkd.models.parts.run_in_parts`. None: found from the mask, if needed.
            signals: what the loss needs beside the batch, see `TeacherInputs`. Evaluation does not read them.

        Returns:
            In training (loss, logits (B, C), terms (number of terms,) in the order of `term_names`). In evaluation
            (task loss, logits), or (logits,) without labels: evaluation does not need the teacher.
        """
        given = TeacherInputs(**signals)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        inputs = {name: value for name, value in batch.items() if value is not None and name in self._takes}
        if not self.training:
            logits = getattr(self.student(**inputs), self._output)
            if labels is None:
                return (logits,)
            task = task_of(self.objective.problem_type or problem_type_of(self.config))
            return task.loss(logits, labels), logits
        logits, states = self._run(inputs, attention_mask, ends)
        scale = 1.0 if given.intermediate_scale is None else given.intermediate_scale
        scales: dict[str, Any] = {"intermediate_scale": scale, "term_scales": given.term_scales}
        loss, terms = self.objective(Signals(logits, states), given.signals(), labels, given.draw, **scales)
        return loss, logits, torch.stack([terms[name].float() for name in self.term_names])

    def _run(self, inputs: dict[str, Tensor], mask: Tensor, ends: np.ndarray | None) -> tuple[Tensor, Tensor | None]:
        """Return logits (B, C) and, if the objective reads them, pooled states (B, n, d)."""
        reader = self._reader[0] if self._reader else None
        if self.splits_batches:
            logits, found = run_in_parts(self.student, inputs, mask, output=self._output, reader=reader, ends=ends)
        else:
            with reader.reading(mask) if reader else nullcontext():
                logits = getattr(self.student(**inputs), self._output)
            found = reader.states() if reader else {}
        return logits, found[self.pooling] if self.pooling else None

    @property
    def term_names(self) -> list[str]:
        """Names of the loss terms whose weight is not 0, in order."""
        return [name for name, weight in self.objective.weights.items() if weight]

    # Trainer and its callbacks need these of a model.
    @property
    def config(self) -> Any:
        """Config of the student."""
        return self.student.config

    def save_pretrained(self, folder: Any, **options: Any) -> None:
        """Save the student, without the objective, as plain transformers loads it.

        Args:
            folder: to write to.
            options: of transformers' ``save_pretrained``.
        """
        options.pop("state_dict", None)  # Trainer's names carry the prefix of this module
        self.student.save_pretrained(folder, **options)

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings of the student, to which ``neftune_noise_alpha`` adds noise."""
        embeddings: nn.Module = self.student.get_input_embeddings()
        return embeddings

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Turn activation checkpointing on in the student.

        Args:
            options: of transformers' ``activation_checkpointing_enable``.
        """
        self.student.activation_checkpointing_enable(**options)
