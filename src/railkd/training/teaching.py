"""What a training batch gets beside its rows: the teacher's signals, the draw of the moment, rows to contrast with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerState

from railkd.data.collator import Batch
from railkd.data.keys import KEY
from railkd.errors import RailkdError
from railkd.models.distiller import Distiller
from railkd.runtime.hardware import to_device
from railkd.signals import Signals
from railkd.teacher import Teacher, TeacherCache
from railkd.training import finite
from railkd.training.arguments import DistillationTrainingArguments
from railkd.training.negatives import Negatives


class Kept:
    """A small value that the device keeps until it changes: a draw is copied once an epoch, not once a step."""

    def __init__(self) -> None:
        self._value: Any = None
        self._tensor: Tensor | None = None

    def __call__(self, value: Any, device: torch.device) -> Tensor:
        """Return a number, or a tuple of numbers, as a tensor on a device."""
        if self._tensor is None or value != self._value or self._tensor.device.type != device.type:
            self._value, self._tensor = value, to_device(torch.tensor(value), device)
        return self._tensor


class Teaching:
    """Makes the keyword arguments of `railkd.models.distiller.Distiller.forward` that the teacher's side adds.

    Args:
        args: of the run.
        teacher: live or a cache.
        negatives: rows of a contrastive method; None for the others.
    """

    def __init__(self, args: DistillationTrainingArguments, teacher: Teacher, negatives: Negatives | None) -> None:
        self.args, self.teacher, self.negatives = args, teacher, negatives
        # As a tensor, so that compiled training does not retrace at every new draw.
        self._draw, self._scale = Kept(), Kept()

    def __call__(
        self, inputs: Batch, distiller: Distiller, state: TrainerState, draw: tuple[int, ...]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the arguments, and the probes that say on the device whether a live teacher's signals are finite.

        Args:
            inputs: on the device of training.
            distiller: says which states are read.
            state: of the training, at this step.
            draw: the teacher blocks of the moment; empty for methods without.

        Raises:
            NotFinite: signals of a cache that are not finite.
        """
        device, step, pooling = self.args.device, state.global_step, distiller.pooling
        signals, probes = self._signals(inputs, pooling, step)
        found = {"teacher_logits": signals.logits}
        if signals.states is not None:
            found["teacher_states"] = signals.states
        if draw:
            found["draw"] = self._draw(draw, device)
        if self.negatives is not None and pooling is not None:
            found |= self.negatives(inputs, step=step)
        if self.args.intermediate_schedule != "constant":
            scale = self.args.intermediate_scale(step / max(1, state.max_steps))
            found["intermediate_scale"] = self._scale(scale, device)
        return found, probes

    def _signals(self, inputs: Batch, pooling: str | None, step: int) -> tuple[Signals, dict[str, Tensor]]:
        if not isinstance(self.teacher, TeacherCache):
            signals = self.teacher(inputs, pooling)
            return signals, finite.probes(signals)
        keys = inputs.on_host(KEY)
        if keys is None:
            raise RailkdError(
                f"a teacher cache is read by example keys: got a batch of {sorted(inputs)}, wanted '{KEY}'"
            )
        logits, states = self.teacher.gather(keys, pooling)
        finite.check_arrays({"logits": logits, "states": states}, keys, step)
        device = self.args.device
        return Signals(to_device(logits, device), None if states is None else to_device(states, device)), {}
