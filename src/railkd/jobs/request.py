"""Holds the settings of one job: its options and its training arguments. Does not import torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Generic, TypeVar, cast

from railkd.errors import RailkdError
from railkd.jobs.settings import NEVER_WRITTEN, SHORT_NAMES, plain, settings_of
from railkd.runtime.yaml_text import write_yaml

Options = TypeVar("Options", covariant=True)
Job = TypeVar("Job", bound=Callable[..., Any])


@dataclass(frozen=True)
class Request(Generic[Options]):
    """The settings of one job.

    Attributes:
        options: options of the job, such as `railkd.jobs.options.DistillOptions`.
        training: field of ``DistillationTrainingArguments`` -> value, for those that the user chose.
    """

    options: Options
    training: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that the user chose, by short name, as plain values.

        Returns:
            The options that differ from their defaults, then the training arguments.
        """
        chosen: dict[str, Any] = {}
        for setting in settings_of(type(self.options)).values():
            value = getattr(self.options, setting.name)
            if setting.name not in NEVER_WRITTEN and value != setting.default:
                chosen[setting.name] = plain(value)
        for name, value in self.training.items():
            if name not in NEVER_WRITTEN and value is not None:
                chosen[SHORT_NAMES.get(name, name)] = plain(value)
        return chosen

    def dump(self) -> str:
        """Return `as_dict` as YAML. ``--config`` reads it back to an equal request."""
        verb = type(self.options).__name__.removesuffix("Options").lower()
        body = write_yaml(self.as_dict())
        return f"# railkd {verb} --config THIS_FILE --overwrite\n{body}"

    def with_options(self, **changes: Any) -> Request[Options]:
        """Return a copy with other values of some options."""
        options: Any = self.options
        return Request(dataclasses.replace(options, **changes), self.training)

    def with_training(self, **changes: Any) -> Request[Options]:
        """Return a copy with other values of some training arguments."""
        return Request(self.options, {**self.training, **changes})


def on_its_device(job: Job) -> Job:
    """Return a job that runs on the device that its options name (``--device``, or ``--use-cpu`` of Trainer).

    Args:
        job: takes a request or its options first.

    Returns:
        The job.
    """

    @wraps(job)
    def run(asked: Any, *others: Any, **options: Any) -> Any:
        from railkd.runtime import hardware

        named = getattr(asked, "options", asked).device
        use_cpu = getattr(asked, "training", {}).get("use_cpu")
        if use_cpu and named not in (None, "cpu"):
            raise RailkdError(f"--use-cpu and --device {named} exclude each other. Fix: leave one of them out.")
        with hardware.chosen(named or ("cpu" if use_cpu else None)):
            return job(asked, *others, **options)

    return cast("Job", run)
