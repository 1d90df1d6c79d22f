"""Keep the mean of the student's weights over the last epochs, instead of the last or best ones.

Source: Izmailov, Podoprikhin, Garipov, Vetrov, Wilson 2018, "Averaging Weights Leads to Wider Optima and Better
Generalization" (arXiv 1803.05407). Unlike there: the mean of each step's weights, with the learning rate of the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from railkd.models.distiller import Distiller

#: The file of a checkpoint that holds the mean so far.
AVERAGE = "average.safetensors"


class Averaging(TrainerCallback):
    """Average the trained weights of the student after each step of the last epochs, and set them at the end.

    Args:
        epochs: number of last epochs, more than 0; None averages nothing.

    Attributes:
        count: number of steps in the mean so far.
    """

    def __init__(self, epochs: float | None) -> None:
        self.epochs = epochs
        self.count = 0
        self._mean: dict[str, Tensor] = {}
        self._first = 0

    def read(self, folder: str | Path) -> None:
        """Read the mean of a checkpoint, if it has one."""
        self.count, self._mean = 0, {}
        if self.epochs is not None and (Path(folder) / AVERAGE).is_file():
            self._mean = safetensors.torch.load_file(Path(folder) / AVERAGE)
            self.count = int(self._mean.pop("count"))

    def write(self, folder: str | Path) -> None:
        """Write the mean into a checkpoint, if it has begun."""
        if self.count:
            held = {name: value.contiguous() for name, value in self._mean.items()}
            safetensors.torch.save_file(held | {"count": torch.tensor(self.count)}, Path(folder) / AVERAGE)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Find the first step of the mean (called by Trainer). An epoch of a stream is the whole run."""
        if state.global_step == 0:
            self.count, self._mean = 0, {}
        length = state.max_steps
        loader: Any = given.get("train_dataloader")
        if has_length(loader):
            length = max(1, -(-len(loader) // args.gradient_accumulation_steps))
        steps = max(1, round(self.epochs * length)) if self.epochs else 0
        self._first = state.max_steps - steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: object
    ) -> None:
        """Take the weights of a step into the mean (called by Trainer)."""
        if self.epochs is None or state.global_step <= self._first:
            return
        self.count += 1
        with torch.no_grad():
            for name, weight in _trained(model).items():
                if self.count == 1:
                    self._mean[name] = weight.detach().clone()
                else:
                    self._mean[name] = self._mean[name].to(weight.device).lerp_(weight.detach(), 1 / self.count)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: object
    ) -> None:
        """Give the student the mean (called by Trainer)."""
        if self.count:
            with torch.no_grad():
                for name, weight in _trained(model).items():
                    weight.copy_(self._mean[name])


def _trained(model: Distiller) -> dict[str, nn.Parameter]:
    """Return the parameters of the student that are trained."""
    return {name: weight for name, weight in model.student.named_parameters() if weight.requires_grad}
