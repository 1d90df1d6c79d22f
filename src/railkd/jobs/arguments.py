"""The training arguments of a job: those of the user, and our defaults for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from railkd.errors import RailkdError
from railkd.jobs.options import RunOptions, Say, required
from railkd.jobs.request import Request
from railkd.jobs.settings import plain
from railkd.runtime import hardware
from railkd.tasks.metrics import greater_is_better
from railkd.training import DistillationTrainingArguments
from railkd.training.arguments import Shapes


def training_arguments(
    request: Request[RunOptions],
    rows: int,
    metric: str | None,
    say: Say,
    max_length: int,
    shapes: Shapes | None = None,
    *,
    greater: bool | None = None,
) -> DistillationTrainingArguments:
    """Return the training arguments: those of the user, and our defaults for the others.

    Args:
        request: options and training arguments of the job.
        rows: number of training rows.
        metric: metric that chooses the best epoch; None keeps the last one.
        say: receives lines for the user.
        max_length: length in tokens at which texts are cut.
        shapes: shapes of student and teacher, if they are known.
        greater: whether higher is better; None: as the table of metrics says.

    Returns:
        The arguments.

    Raises:
        RailkdError: arguments do not fit each other or the shapes.
    """
    options, training = request.options, request.training
    if getattr(options, "live", False) and training.get("states_on_device") == "yes":
        raise RailkdError(
            "--states-on-device yes has no effect with --live, which stores no states. Fix: leave one of the two out."
        )
    chosen: dict[str, Any] = {
        "output_dir": required(options.output, "--output"),
        "max_length": max_length,
        "report_to": "none",
        "run_name": Path(required(options.output, "--output")).absolute().name,
        "disable_tqdm": True,
        "use_cpu": options.device == "cpu",
        "dataloader_pin_memory": hardware.can_pin(),  # elsewhere it only warns
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "logging_steps": max(1, rows // 320),
    }
    if "save_steps" in training:
        chosen["save_strategy"] = "steps"
    chosen |= _evaluating(request, chosen["save_strategy"], metric)
    if metric is not None:
        chosen["greater_is_better"] = greater_is_better(metric) if greater is None else greater
    given = {name: value for name, value in training.items() if value is not None}
    if metric is not None and "metric_for_best_model" in given:
        given["metric_for_best_model"] = metric  # as the scores are named
    if "bf16" not in given and "fp16" not in given:
        chosen |= _precision(say)
    try:
        return DistillationTrainingArguments(**{**chosen, **given}, shapes=shapes)
    except RailkdError:
        raise
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise RailkdError(
            f"Expected training arguments that fit together, got: {reason}. Fix: change the named argument."
        ) from error


def _precision(say: Say) -> dict[str, bool]:
    """Return the fields of the precision that this machine is fast in, and say it with the reason."""
    if hardware.fast_bf16():
        say("precision: bfloat16 autocast (--no-bf16 turns it off)")
        return {"bf16": True, "fp16": False}
    slow = "this machine is not fast at bfloat16"
    if hardware.fast_fp16():
        say(f"precision: float16 autocast with a gradient scaler, because {slow} (--no-fp16 turns it off)")
        return {"bf16": False, "fp16": True}
    say(f"precision: float32, because {slow}")
    return {"bf16": False}


def _evaluating(request: Request[RunOptions], saving: str, metric: str | None) -> dict[str, Any]:
    """Return when a run evaluates and how it chooses its weights. ``saving`` is the default strategy."""
    training = request.training
    if request.options.patience and training.get("average_last"):
        raise RailkdError(
            "--patience may end the run before the epochs that --average-last takes the mean of. Fix: give one of them."
        )
    save = plain(training.get("save_strategy", saving))
    if metric is None and save == "best":
        raise RailkdError(
            "Expected rows to compare the steps on for --save-strategy best, got none. Fix: give --eval FILE or "
            "--eval-share P."
        )
    if metric is None:
        return {}
    return {
        "eval_strategy": "epoch" if save == "best" else save,
        "eval_steps": training.get("save_steps"),
        "load_best_model_at_end": not training.get("average_last"),
        "metric_for_best_model": metric,
    }
