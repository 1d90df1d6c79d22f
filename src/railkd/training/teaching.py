"""Add the teacher's signals, the drawn blocks and the negative rows to a training batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerState

from railkd.data.collator import Batch
from railkd.errors import RailkdError
from railkd.models.distiller import Distiller
from railkd.runtime.hardware import to_device
from railkd.signals import Signals
from railkd.teacher import StoredTeacher, Teacher
from railkd.training import finite
from railkd.training.arguments import DistillationTrainingArguments
from railkd.training.feeding import Feed
from railkd.training.negatives import Negatives


class Kept:
    """Cache a small value on the device until it changes, so that a draw is not copied at each step."""

    def __init__(self) -> None:
        self._value: Any = None
        self._tensor: Tensor | None = None

    def __call__(self, value: Any, device: torch.device) -> Tensor:
        """Return a number, or a tuple of numbers, as a tensor on a device."""
        if self._tensor is None or value != self._value or self._tensor.device.type != device.type:
            self._value, self._tensor = value, to_device(torch.tensor(value), device)
        return self._tensor


class Teaching:
    """Compute the arguments of `railkd.models.distiller.Distiller.forward` that depend on the teacher.

    Args:
        args: settings of the run.
        teacher: live or a cache.
        pooling: of the states that the method reads. None if it reads outputs alone.
        keys: example keys of all training rows, (N, 2). None for a stream.
        negatives: draws the rows of a contrastive method. None for other methods.

    Attributes:
        feed: reads the signals of a cache. None for a live teacher.

    Raises:
        RailkdError: the states of a live teacher or of a stream are to be kept on the device.
    """

    def __init__(
        self,
        args: DistillationTrainingArguments,
        teacher: Teacher,
        pooling: str | None,
        keys: np.ndarray | None,
        negatives: Negatives | None,
    ) -> None:
        self.args, self.teacher, self.negatives = args, teacher, negatives
        self.feed: Feed | None = None
        if isinstance(teacher, StoredTeacher):
            self.feed = Feed(teacher, keys, pooling, args.device, args.states_on_device)
        elif args.states_on_device == "yes" and pooling is not None:
            raise RailkdError(
                "Expected a teacher cache for states_on_device yes, got a live teacher, which stores no states. Fix: "
                "build a cache, or leave states_on_device out."
            )
        # Tensors, so that compiled training does not retrace at each new draw.
        self._draw, self._scale, self._stage = Kept(), Kept(), Kept()

    def __call__(
        self, inputs: Batch, distiller: Distiller, state: TrainerState, draw: tuple[int, ...]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the arguments for a batch. Cached signals that are not finite raise `NotFinite`.

        Args:
            inputs: the batch, on the device of training.
            distiller: its pooling selects the states to read.
            state: state of Trainer at this step.
            draw: the drawn teacher blocks. Empty for methods that draw no blocks.

        Returns:
            The arguments, and the flags of a live teacher's signals as `railkd.training.finite.probes` returns them.
        """
        device, step, pooling = self.args.device, state.global_step, distiller.pooling
        signals, probes = self._signals(inputs, pooling, step)
        found = {"teacher_logits": signals.logits}
        if self.args.teacher_line is not None:
            slope, offset = self.args.teacher_line
            found["teacher_logits"] = signals.logits * slope + offset
        if signals.states is not None:
            found["teacher_states"] = signals.states
        if signals.answered is not None:
            found["teacher_answered"] = signals.answered
        if draw:
            found["draw"] = self._draw(draw, device)
        if self.negatives is not None and pooling is not None:
            found |= self.negatives(inputs, step=step, kept=self.feed.kept if self.feed else None)
        progress = step / max(1, state.max_steps)
        if distiller.objective.staged:
            found["term_scales"] = self._stage(distiller.objective.term_scales(progress), device)
        if self.args.intermediate_schedule != "constant":
            scale = self.args.intermediate_scale(progress)
            found["intermediate_scale"] = self._scale(scale, device)
        return found, probes

    def _signals(self, inputs: Batch, pooling: str | None, step: int) -> tuple[Signals, dict[str, Tensor]]:
        if self.feed is None:
            signals = self.teacher(inputs, pooling)
            return signals, finite.probes(signals)
        return self.feed(inputs, step), {}
