"""Compute the loss of a training batch, and keep NaN and infinity out of the weights.

This does not synchronise with the device at each step. `railkd.training.finite` explains how.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerState

from railkd.data.collator import Batch
from railkd.data.keys import KEY
from railkd.data.tokens import student_inputs
from railkd.mapping import Draw
from railkd.models.distiller import Distiller
from railkd.training import compiling, finite
from railkd.training.arguments import DistillationTrainingArguments
from railkd.training.sums import TermSums
from railkd.training.teaching import Teaching

logger = logging.getLogger(__name__)


class TrainingLoss:
    """Compute and check the loss of micro-batches, and sum its terms for the log.

    Args:
        args: settings of the run.
        teaching: adds the teacher's signals to a batch. None for methods without a teacher.
        names: names of the loss terms.

    Attributes:
        feed: reads the signals of a teacher cache. None without one.
        sums: sums of the terms since the last line of the log.
        skipped: number of batches skipped by ``skip_nonfinite``, as of the last read from the device.
    """

    def __init__(self, args: DistillationTrainingArguments, teaching: Teaching | None, names: list[str]) -> None:
        self.args, self._teaching = args, teaching
        self.sums, self._watch = TermSums(names), finite.Watch(names)
        self.skipped = 0
        self.feed = teaching.feed if teaching else None

    def __call__(
        self, model: nn.Module, distiller: Distiller, inputs: Batch, state: TrainerState, rows: Tensor | int | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the loss and the logits of a micro-batch.

        With ``skip_nonfinite``, a batch with a label or cached signal that is not finite has a loss of 0 and no logits.

        Args:
            model: the distiller with its wrappers for DDP, autocast and compilation.
            distiller: the distiller without wrappers.
            inputs: the micro-batch, on the device of training.
            state: state of Trainer at this step.
            rows: number of rows of the whole optimizer step, over all micro-batches and ranks. None stands for those of
                this batch.

        Returns:
            The loss (), which is NaN if it must not reach the weights, and the student's logits (B, C) or None.

        Raises:
            NotFinite: a label or cached signal is not finite, and ``skip_nonfinite`` is not set.
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
        ends = {"ends": inputs.host["ends"]} if distiller.splits_batches and "ends" in inputs.host else {}
        if self.args.torch_compile:
            compiling.leave_sizes_open(batch)
        loss, logits, terms = model(**batch, **ends)
        # Mean over the rows of the whole optimizer step, for any split into micro-batches and ranks.
        share = 1.0 if rows is None else len(logits) * self.args.world_size / rows
        keys = inputs.host.get(KEY, inputs.get(KEY))
        factor = self._watch.note((loss, terms, logits), share, step=state.global_step, keys=keys, probes=probes)
        if self.args.skip_nonfinite and self.args.gradient_accumulation_steps > 1:
            # Check now. Otherwise the gradients of this micro-batch would be summed with those of the other ones.
            for error in self._watch.read():
                raise error
        self.sums.add(terms, factor, share)
        return loss * factor, logits

    @property
    def counts(self) -> dict[str, int]:
        """Return how many batches ``skip_nonfinite`` and steps a gradient scaler skipped so far; nothing for none."""
        found = {"skipped_batches": self.skipped, "skipped_steps_of_fp16": self._watch.skipped_by_scaler}
        return {name: count for name, count in found.items() if count}

    def restore(self, held: Mapping[str, Any]) -> None:
        """Restore the sums and counts of a checkpoint.

        Args:
            held: ``steps`` and ``terms``, as the state of ``sums`` has them, and ``counts``.
        """
        self.sums.restore([held["steps"], *held["terms"]], self.args.device)
        counts = held.get("counts", {})  # a checkpoint of an earlier release has none
        self.skipped = counts.get("skipped_batches", 0)
        self._watch.skipped_by_scaler = counts.get("skipped_steps_of_fp16", 0)

    def finish_step(self, optimizer: Any, norm: Tensor, step: int, *, scaled: bool) -> Tensor:
        """Keep gradients that are not finite out of the weights (called before the optimizer's step).

        A value that was not finite in this step or one of the last raises `NotFinite`, unless ``skip_nonfinite`` is
        set.

        Args:
            optimizer: the optimizer that will step next.
            norm: norm of the gradients, ().
            step: number of finished optimizer steps.
            scaled: a gradient scaler expects gradients that are not finite, and skips the step itself.

        Returns:
            The norm for the log, (). It is 0 if the norm is not finite, except with a scaler.
        """
        if not scaled:
            finite.guard(optimizer, norm)
        if self._watch.note_step(step, norm, scaled=scaled):
            self.settle()
        return norm if scaled else norm.nan_to_num(0.0, 0.0, 0.0)

    def settle(self) -> None:
        """Read the results of the steps since the last read from the device. Count the batches to skip.

        Without ``skip_nonfinite`` the first value that was not finite raises `NotFinite`.
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
    """Return the drawn teacher blocks. They depend only on the seed, the epoch and the optimizer step.

    Args:
        distiller: its objective draws the blocks.
        args: holds the seed.
        state: holds the epoch and the step.

    Returns:
        The draw, empty for methods that draw no blocks.
    """
    return distiller.objective.draw(args.seed, epoch=int(state.epoch or 0), step=state.global_step)
