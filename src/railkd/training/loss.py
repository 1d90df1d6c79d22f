"""The loss of a training batch, and what must not reach the weights.

Nothing here makes the device wait: see `railkd.training.finite`.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerState

from railkd.data.collator import Batch
from railkd.data.keys import KEY
from railkd.data.tokens import student_inputs
from railkd.mapping import Draw
from railkd.models.distiller import Distiller
from railkd.training import finite
from railkd.training.arguments import DistillationTrainingArguments
from railkd.training.sums import TermSums
from railkd.training.teaching import Teaching

logger = logging.getLogger(__name__)


class TrainingLoss:
    """Computes the loss of micro-batches, checks it, and adds its terms up for the log.

    Args:
        args: of the run.
        teaching: the teacher's side of a batch; None for methods without a teacher.
        names: of the loss terms.

    Attributes:
        sums: of the terms since the last line of the log.
        skipped: batches left out by ``skip_nonfinite``, as far as the device was asked.
    """

    def __init__(self, args: DistillationTrainingArguments, teaching: Teaching | None, names: list[str]) -> None:
        self.args, self._teaching = args, teaching
        self.sums, self._watch = TermSums(names), finite.Watch(names)
        self.skipped = 0

    def __call__(
        self, model: nn.Module, distiller: Distiller, inputs: Batch, state: TrainerState, rows: Tensor | int | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the loss (), NaN if it must not reach the weights, and the student's logits (B, C).

        A batch that is known to be bad before it ran is skipped where that is allowed: a loss of 0, no logits.

        Args:
            model: the distiller as it was wrapped: DDP, autocast and compile live there.
            distiller: inside of it.
            inputs: on the device of training.
            state: of the training, at this step.
            rows: of the whole optimizer step, of all micro-batches and ranks; None: those of this batch.

        Raises:
            NotFinite: a label or signal that is not finite, found in main memory.
        """
        try:
            return self._loss(model, distiller, inputs, state, rows)
        except finite.NotFinite as error:
            if not self.args.skip_nonfinite:
                raise
            self._skip(error)
            return torch.zeros((), device=self.args.device, requires_grad=True), None

    def _loss(
        self, model: nn.Module, distiller: Distiller, inputs: Batch, state: TrainerState, rows: Tensor | int | None
    ) -> tuple[Tensor, Tensor]:
        batch, probes = student_inputs(inputs), dict[str, Tensor]()
        finite.check_labels(inputs.host, state.global_step)
        if self._teaching is not None:
            taught, probes = self._teaching(inputs, distiller, state, current_draw(distiller, self.args, state))
            batch |= taught
        loss, logits, terms = model(**batch)
        # Mean over the rows of the whole optimizer step, however it was split into micro-batches and ranks.
        share = 1.0 if rows is None else len(logits) * self.args.world_size / rows
        keys = inputs.host.get(KEY, inputs.get(KEY))
        factor = self._watch.note((loss, terms, logits), share, step=state.global_step, keys=keys, probes=probes)
        if self.args.skip_nonfinite and self.args.gradient_accumulation_steps > 1:
            # The other micro-batches of the step count, and gradients of this one could not be taken out of their sum.
            for error in self._watch.read():
                raise error
        self.sums.add(terms, factor, share)
        return loss * factor, logits

    def finish_step(self, optimizer: Any, norm: Tensor, step: int) -> Tensor:
        """Guard the weights before the optimizer's step, and return the norm () for the log: 0 if it is not finite.

        Args:
            optimizer: about to step.
            norm: () of the gradients.
            step: optimizer steps finished.

        Raises:
            NotFinite: something was not finite in this step or one of the last.
        """
        if self.args.fp16:  # its scaler meets such gradients by design, and skips the step
            norm_to_check = None
        else:
            finite.guard(optimizer, norm)
            norm_to_check = norm
        if self._watch.note_step(step, norm_to_check):
            self.settle()
        return norm if norm_to_check is None else norm.nan_to_num(0.0, 0.0, 0.0)

    def settle(self) -> None:
        """Read what the device found in the steps since the last time; count it where it may be skipped.

        Raises:
            NotFinite: the first thing that was found, where nothing may be skipped.
        """
        for error in self._watch.read():
            if not self.args.skip_nonfinite:
                raise error
            self._skip(error)
            self.sums.forget(error.share)

    def _skip(self, error: finite.NotFinite) -> None:
        self.skipped += 1
        logger.warning("batch skipped: %s", error)


def current_draw(distiller: Distiller, args: DistillationTrainingArguments, state: TrainerState) -> Draw:
    """Return the teacher blocks of a moment: a function of seed, epoch and optimizer step alone."""
    return distiller.objective.draw(args.seed, epoch=int(state.epoch or 0), step=state.global_step)
