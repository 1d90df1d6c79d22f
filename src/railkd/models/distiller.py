"""The module that is trained: student and objective in one, usable in any training loop.

Why one module: a loss kept outside the trained module leaves its projections untrained without a word, and projections
handed to the optimizer by hand drift apart between ranks. Inside one module they are weights like any other to the
optimizer, to clipping, autocast, compile, DDP and checkpoints. The teacher is never a part of it: its signals come in
as tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from railkd.models.blocks import BlockReader, accepted_inputs
from railkd.models.heads import problem_type_of, task_of_config
from railkd.objectives import Objective, build_objective, method_spec
from railkd.signals import Negatives, Signals
from railkd.tasks import task_of


class Distiller(nn.Module):
    """A student and the objective it learns by.

    In a loop of your own::

        distiller = Distiller.from_method("rail-kd-l", student, teacher_shape=(12, 768))
        loss, logits, *_ = distiller(**batch, teacher_logits=..., teacher_states=..., draw=torch.tensor([2, 5]))
        loss.backward()

    Args:
        student: a transformers model for sequence classification or regression.
        objective: made for the shapes of this pair.
        pooling: the pooling of block states that the objective reads; None: logits only.
        blocks: see `railkd.models.blocks.find_blocks`.
    """

    # Trainer would else pass num_items_in_batch and scale accumulated gradients twice.
    accepts_loss_kwargs = False

    def __init__(
        self, student: nn.Module, objective: Objective, *, pooling: str | None = "mean", blocks: str | None = None
    ) -> None:
        super().__init__()
        self.student: Any = student
        self.objective = objective
        self.pooling = pooling
        # In a tuple: a reader is no module, and its list of blocks must not be registered a second time.
        self._reader = (BlockReader(student, (pooling,), blocks, first=objective.m),) if pooling else ()
        self._takes = accepted_inputs(student)
        self._output = task_of_config(student.config).output

    @classmethod
    def from_method(
        cls, method: str, student: nn.Module, teacher_shape: tuple[int, int] | None = None, **options: Any
    ) -> Distiller:
        """Build the objective of a named method for this student, and the distiller around both."""
        spec = method_spec(method)
        blocks = options.pop("blocks_pattern", None)
        options.setdefault("problem_type", problem_type_of(student.config))
        shape = BlockReader(student, blocks=blocks).shape
        objective = build_objective(method, shape, teacher_shape or shape, **options)
        pooling = spec.pooling if objective.weights.get("intermediate") else None
        return cls(student, objective, pooling=pooling, blocks=blocks)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        teacher_states: Tensor | None = None,
        draw: Tensor | None = None,
        intermediate_scale: Tensor | None = None,
        negative_states: Tensor | None = None,
        negative_group: Tensor | None = None,
        negative_keep: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """One pass of the student and, in training, its loss.

        Args:
            input_ids, attention_mask, token_type_ids: (B, L).
            labels: (B,); rows marked -100 (NaN among floats) are unlabelled.
            teacher_logits: (B, C). teacher_states: (B, n, d_t), pooled as the method reads them.
            draw: (m,) teacher blocks, 1-based. intermediate_scale: () factor of a schedule.
            negative_states, negative_group, negative_keep: see `railkd.signals.Negatives`.

        Returns:
            training: (loss, logits (B, C), terms (number of terms,) in the order of `term_names`);
            evaluation: (task loss, logits), or (logits,) without labels. Evaluation never needs the teacher.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        inputs = {name: value for name, value in inputs.items() if value is not None and name in self._takes}
        if not self.training:
            logits = getattr(self.student(**inputs), self._output)
            if labels is None:
                return (logits,)
            task = task_of(self.objective.problem_type or problem_type_of(self.config))
            return task.loss(logits, labels), logits
        states = None
        if self._reader:
            reader = self._reader[0]
            with reader.reading(attention_mask):
                logits = getattr(self.student(**inputs), self._output)
            states = reader.states()[self.pooling]  # type: ignore[index]
        else:
            logits = getattr(self.student(**inputs), self._output)
        negatives = None
        if negative_states is not None and negative_group is not None:
            negatives = Negatives(negative_states, negative_group, negative_keep)
        teacher = None if teacher_logits is None else Signals(teacher_logits, teacher_states, negatives)
        scale = 1.0 if intermediate_scale is None else intermediate_scale
        loss, terms = self.objective(Signals(logits, states), teacher, labels, draw, intermediate_scale=scale)
        return loss, logits, torch.stack([terms[name].float() for name in self.term_names])

    @property
    def term_names(self) -> list[str]:
        """The terms that have weight, in order."""
        return [name for name, weight in self.objective.weights.items() if weight]

    # What Trainer and its callbacks ask of a model.
    @property
    def config(self) -> Any:
        """The student's config."""
        return self.student.config

    def save_pretrained(self, folder: Any, **options: Any) -> None:
        """Save the bare student, as plain transformers loads it."""
        options.pop("state_dict", None)  # Trainer's names carry the prefix of this module
        self.student.save_pretrained(folder, **options)

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Delegate to the student."""
        self.student.activation_checkpointing_enable(**options)
