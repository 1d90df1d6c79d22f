"""All settings of a distillation run: those of Trainer and those that the methods add."""

from __future__ import annotations

import os
from dataclasses import InitVar, dataclass, field, fields
from math import isfinite
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)
from transformers.training_args import OptimizerNames

from railkd.errors import RailkdError, did_you_mean
from railkd.models.freezing import check_names
from railkd.objectives import METHODS, MethodSpec, method_spec
from railkd.objectives.base import normalised_weights
from railkd.objectives.maps import LARGEST_SHARED_SIZE
from railkd.runtime.launcher import launched_processes
from railkd.signals import BlockShape
from railkd.training.fields import SWITCHES, WITHOUT_EFFECT, DistillationFields, check_sampling, check_shares, switched

#: (number of blocks, width) of the student and of the teacher.
Shapes = tuple[BlockShape, BlockShape]
#: Stand in for shapes that are not known: options are tried on them, without memory. No option is too large for them.
_ANY: Shapes = BlockShape(3, LARGEST_SHARED_SIZE), BlockShape(6, LARGEST_SHARED_SIZE)


@dataclass
class _Arguments(DistillationFields, TrainingArguments):
    """The fields of `DistillationTrainingArguments`, and the checks of their values."""

    per_device_train_batch_size: int = field(default=32, metadata={"help": "Rows per device and step in training."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Rows per device and step in evaluation."})
    optim: OptimizerNames | str = field(default="adamw_torch_fused", metadata={"help": "Optimizer, by name."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide NaN and infinite losses from the log."})
    shapes: InitVar[Shapes | None] = None

    def __post_init__(self, shapes: Shapes | None) -> None:
        for name in SWITCHES:
            setattr(self, name, switched(name, getattr(self, name)))
        spec = method_spec(self.method)
        self._check_options(spec)
        for name, value in spec.recipe.items():
            if getattr(self, name) is None:
                setattr(self, name, list(value))
        normalised_weights(self.weights, spec.objective.terms)
        check_names([str(name) for name in self.freeze or ()], shapes[0].blocks if shapes else None)
        self._refuse_fields()
        check_sampling(self.sampling, weighted=self.class_weights is not None)
        check_shares(self.source_rows, self.source_shares)
        if self.average_last is not None and not (self.average_last > 0 and not self.load_best_model_at_end):
            raise RailkdError(
                f"Expected average_last above 0, without load_best_model_at_end, got {self.average_last:g}. Fix: keep "
                "the mean of the last epochs, or the best one."
            )
        self.intermediate_scale(0.0)
        self._try_objective(spec, shapes)
        if self.skip_nonfinite and launched_processes() > 1:
            raise RailkdError("got skip_nonfinite on several ranks, which must step together; wanted a run of one rank")
        if self.teacher_line is not None and not (
            len(self.teacher_line) == 2 and all(map(isfinite, self.teacher_line))
        ):
            raise RailkdError(f"Expected a slope and an offset as teacher_line, got {self.teacher_line}.")
        if self.max_length < 1:
            raise RailkdError(f"got max_length {self.max_length}, wanted at least 1")
        if self.bf16 and not torch.accelerator.is_available():
            self.use_cpu = True  # otherwise Trainer refuses bf16 on a CPU
        super().__post_init__()
        if self.accelerator_config.dispatch_batches is None and launched_processes() == 1:
            self.accelerator_config.dispatch_batches = False  # of a stream it would join, and lose what the host knows
        self._check_trackers()

    def _refuse_fields(self) -> None:
        """Refuse values that have no effect here, or that fail later in words of other libraries."""
        for field_ in fields(type(self)):
            value, default = getattr(self, field_.name), field_.default
            if field_.name in WITHOUT_EFFECT and value != default and (value or default is True):
                # Without the value, which may be a token.
                raise RailkdError(f"{field_.name} has no effect in railkd. {WITHOUT_EFFECT[field_.name]}.")
        for name, limit in (("seed", 2**32), ("data_seed", 2**63)):
            value = getattr(self, name)
            if value is not None and not 0 <= value < limit:
                raise RailkdError(f"Expected a whole number from 0 to {limit - 1}, got {name} {value}.")
        for name, words in (("length_groups", ("pools", "split", "none")), ("states_on_device", ("auto", "yes", "no"))):
            if (given := getattr(self, name)) not in words:
                raise RailkdError(f"Expected {name} {', '.join(words[:-1])} or {words[-1]}, got {given!r}.")
        if self.length_groups == "split" and self.torch_compile:
            raise RailkdError(
                "length_groups split with torch_compile: the lengths of parts would be compiled one by one. Fix: keep "
                "one of the two."
            )
        if self.ddp_backend and "WORLD_SIZE" not in os.environ:
            raise RailkdError(
                f"ddp_backend={self.ddp_backend} has no effect in a run of one process. Fix: start it with torchrun."
            )

    def _check_trackers(self) -> None:
        """Refuse trackers whose packages are missing, before anything is trained."""
        wanted = [self.report_to] if isinstance(self.report_to, str) else list(self.report_to or ())
        unknown = [name for name in wanted if name not in (*INTEGRATION_TO_CALLBACK, "none", "all")]
        if unknown:
            raise RailkdError(f"Expected trackers out of {', '.join(INTEGRATION_TO_CALLBACK)}, got {unknown[0]}.")
        there = get_available_reporting_integrations()
        missing = [name for name in wanted if name not in (*there, "none", "all", "azure_ml", "flyte")]
        if missing:
            raise RailkdError(
                f"report_to: the package of {missing[0]} is not installed. Fix: pip install {missing[0]}."
            )

    def _check_options(self, spec: MethodSpec) -> None:
        """Refuse options that the method lacks. One that no method has may be a misspelt field."""
        names = [field_.name for field_ in fields(self)]
        for name in self.method_options.keys() - spec.options.keys():
            of_others = any(name in other.options for other in METHODS.values())
            if not of_others and not did_you_mean(name, spec.options) and (near := did_you_mean(name, names)):
                raise RailkdError(f"unknown training argument '{name}'.{near}")
        spec.check_options(self.method_options)

    def _try_objective(self, spec: MethodSpec, shapes: Shapes | None) -> None:
        """Build the objective once, so that options which do not fit raise an error at construction."""
        options = self.objective_options()
        if self.class_weights is None:  # a job computes them from its rows, later
            options.pop("class_weights_on_logits", None)
        if shapes is None:  # their lengths follow the number of blocks, which is not known here
            own = self.method_options
            options = {name: value for name, value in options.items() if name not in own or not _is_list(value)}
        if spec.ours:
            with torch.device("meta"):  # shapes alone: no memory, and no random numbers are used
                spec.build(*(shapes or _ANY), **options)
        elif shapes is not None:  # code of others may compute with numbers, so it gets memory
            with torch.random.fork_rng(devices=[]):
                spec.build(*shapes, **options)

    def intermediate_scale(self, progress: float) -> float:
        """Return the factor on the weight of the intermediate term.

        Args:
            progress: share of the training that is done, in [0, 1].

        Returns:
            A factor in [0, 1].

        Raises:
            RailkdError: ``intermediate_schedule`` is not a valid schedule.
        """
        if self.intermediate_schedule == "constant":
            return 1.0
        if self.intermediate_schedule == "linear":
            return max(0.0, 1.0 - progress)
        try:
            until = float(self.intermediate_schedule)
        except ValueError:
            until = -1.0
        if not 0 < until <= 1:
            raise RailkdError(
                f"got intermediate_schedule '{self.intermediate_schedule}', wanted constant, linear, or a fraction in "
                "(0, 1]"
            )
        return float(progress < until)

    def objective_options(self) -> dict[str, Any]:
        """Return the options for `railkd.objectives.build_objective`. Options that were not given are left out.

        Returns:
            Name of the option -> value. ``weights`` and ``temperature`` are always included.
        """
        chosen = dict(self.method_options)
        if self.class_weights is not None or self.class_weights_on_logits:
            chosen |= {"class_weights": self.class_weights, "class_weights_on_logits": self.class_weights_on_logits}
        return chosen | {"weights": self.weights, "temperature": self.temperature}


class DistillationTrainingArguments(_Arguments):
    """Hold `transformers.TrainingArguments`, with some other defaults, and `DistillationFields`.

    Args:
        values: of fields, by position.
        given: fields of `transformers.TrainingArguments` and of `DistillationFields`, and options of the method by
            their names (``railkd methods NAME`` lists them), which are kept in ``method_options``. ``shapes`` is the
            number of blocks and the width of the student and of the teacher, with which the options are tried. None
            tries them with sizes that every option fits.

    Raises:
        RailkdError: a setting is invalid. The check runs at construction.

    Example:
        ``DistillationTrainingArguments("runs/a", method="rail-kd-l", shared_size=64, redraw="step")``
    """

    def __init__(self, *values: Any, **given: Any) -> None:
        known = {"shapes", *(field_.name for field_ in fields(type(self)))}
        options = dict(given.pop("method_options", None) or {})
        options |= {name: given.pop(name) for name in list(given) if name not in known}
        chosen = {name: value for name, value in options.items() if value is not None}
        super().__init__(*values, method_options=chosen, **given)


def _is_list(value: Any) -> bool:
    """Return whether a value is a list, or text with numbers joined by commas."""
    if not isinstance(value, str):
        return isinstance(value, (list, tuple))
    parts = value.split(",")
    return len(parts) > 1 and all(part.strip().replace(".", "", 1).isdecimal() for part in parts)
