"""A teacher that runs at every step."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from railkd.data.tokens import TEACHER_PREFIX
from railkd.errors import RailkdError
from railkd.models.blocks import BlockReader, accepted_inputs
from railkd.models.heads import label_names, task_of_config
from railkd.models.limits import warn_of_padding
from railkd.models.loading import first_device
from railkd.models.probe import is_causal
from railkd.runtime import hardware
from railkd.signals import Signals
from railkd.teacher.protocol import TeacherInfo


class LiveTeacher:
    """Runs a model without gradients and pools its block states as they are produced.

    Args:
        model: a fine-tuned sequence classifier. It is put into evaluation mode and stays on its device.
        tokenizer: of the teacher.
        max_length: of the inputs, in tokens.
        poolings: that `__call__` and `run` can return.
        bf16: run under bfloat16 autocast.
        blocks: regular expression for the blocks; see `railkd.models.blocks.find_blocks`.

    Attributes:
        info: the properties of the teacher that a student needs.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any = None,
        *,
        max_length: int = 128,
        poolings: Sequence[str] = ("mean",),
        bf16: bool = False,
        blocks: str | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.poolings = tuple(poolings)
        self.bf16 = bf16
        self._reader = BlockReader(model, self.poolings, blocks)
        self._takes = accepted_inputs(model)
        # Keys and values are for generating text: a pass would fill the memory with them.
        self._fixed = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
        config: Any = model.config
        warn_of_padding(config, tokenizer, "the teacher")
        task = task_of_config(config)
        self._output = task.output
        self.info = TeacherInfo(*self._reader.shape, label_names(config), task.problem_type, max_length)

    def __call__(self, batch: Mapping[str, Tensor], pooling: str | None) -> Signals:
        """Return the signals of one batch; see `railkd.teacher.Teacher`.

        Raises:
            RailkdError: the batch lacks the teacher's tokens, or the pooling is unknown here.
        """
        inputs = {
            name.removeprefix(TEACHER_PREFIX): value for name, value in batch.items() if name.startswith(TEACHER_PREFIX)
        }
        if not inputs:
            raise RailkdError(
                f"A live teacher reads its own tokens from the columns '{TEACHER_PREFIX}...', got {sorted(batch)}. "
                "Fix: give rows of text, which are then tokenised for the teacher too, or use a cache."
            )
        logits, states = self.run(inputs, () if pooling is None else (pooling,))
        home = next(iter(inputs.values())).device  # a teacher may be on other devices than the student
        return Signals(logits.to(home), None if pooling is None else states[pooling].to(home))

    def run(self, inputs: Mapping[str, Tensor], poolings: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the teacher on tokens.

        Args:
            inputs: the teacher's own tokens by input name, each (B, L). Without ``attention_mask`` all are real.
            poolings: of the states to return.

        Returns:
            Logits (B, C), and a mapping pooling -> states (B, n, d_t).

        Raises:
            RailkdError: a pooling that was not named when the teacher was made.
        """
        device = self.device
        given = {name: value for name, value in inputs.items() if name in self._takes and value is not None}
        tensors: dict[str, Any] = {name: hardware.to_device(value, device) for name, value in given.items()}
        mask = tensors["attention_mask"] if "attention_mask" in tensors else torch.ones_like(tensors["input_ids"])
        tensors |= self._fixed
        # no_grad, not inference_mode: a loss must be able to save the output for its backward pass.
        with torch.no_grad(), self._autocast(device):
            if not poolings:
                return getattr(self.model(**tensors), self._output), {}
            with self._reader.reading(mask):
                logits = getattr(self.model(**tensors), self._output)
        states = self._reader.states()
        for name in poolings:
            if name not in states:
                raise RailkdError(
                    f"This teacher pools {', '.join(self.poolings)}, but '{name}' was asked for. Fix: name it in "
                    "poolings= when the teacher is made."
                )
        return logits, {name: states[name] for name in poolings}

    def in_a_row(self) -> AbstractContextManager[Any]:
        """Return a context for several calls, in which autocast casts every weight once instead of once a call."""
        return self._autocast(self.device)

    @cached_property
    def causal(self) -> bool:
        """True for a decoder: a token sees only the tokens before it. False if a probe cannot tell."""
        try:
            return is_causal(self.model, self._reader.blocks)
        except RailkdError:
            return False

    @property
    def device(self) -> torch.device:
        """The device that the inputs go to."""
        device: torch.device = first_device(self.model)
        return device

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()
