"""A step that neither logs, saves nor evaluates never makes the device wait.

Host reads are counted on any device, see `device.reads`: a CPU does not wait, but runs the same lines.
"""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback

import tiny
from device.reads import HostReads
from objectives.cases import make
from railkd import TeacherCache, functional
from railkd.objectives import METHODS
from railkd.signals import Negatives, Signals
from railkd.training.finite import EVERY
from thorough import methods

#: Methods that need a cache: they contrast with other rows of it, or fit their targets on it.
CACHED_ONLY = {name for name, spec in METHODS.items() if "negatives" in spec.options or spec.fits}
FIRST = 2  # a run may read while it starts
#: A pooled mean is looked at where it lies, in main memory; devices take another branch (see the law on meta tensors).
_lines, _start = inspect.getsourcelines(functional.all_finite)
CPU_ALONE = {f"railkd/functional.py:{_start + number}" for number in range(len(_lines))}


class Window(TrainerCallback):
    """Counts host reads from the end of one step to the end of another."""

    def __init__(self, steps: int) -> None:
        self.reads, self.steps, self.counted = HostReads(), steps, 0
        self._stack = contextlib.ExitStack()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == FIRST:
            self._stack.enter_context(self.reads)
        elif state.global_step == FIRST + self.steps:
            self._stack.close()
            self.counted = self.steps

    def own(self) -> list[str]:
        """The lines of railkd that read, each as often as it did."""
        assert self.counted == self.steps
        own = [(line, n) for (who, name, line), n in self.reads.found.items() if who == "railkd"]
        return [line for line, n in own if line not in CPU_ALONE for _ in range(n)]


def window_of(
    folder: Path, teacher: Any, rows: Any, tokenizer: Any, device: torch.device, *, steps: int = 5, **settings: Any
) -> Window:
    """The reads of a training of quiet steps alone, but for the first ones."""
    window = Window(steps)
    if settings.get("method") == "codir":
        settings |= {"negatives": 4, "shared_size": 8}
    settings |= {"use_cpu": device.type == "cpu"}
    settings = {"logging_strategy": "no", "max_steps": FIRST + steps + 1, "callbacks": [window], **settings}
    student = tiny.make_small(tiny.make_model(4, seed=11), 3)
    trainer = tiny.make_trainer(folder, teacher, rows, tokenizer, student=student, **settings)
    trainer.train()
    return window


@pytest.mark.parametrize("method", methods())
def test_no_method_reads_anything_in_a_quiet_step_from_a_cache(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device, method: str
) -> None:
    # More than an epoch: another draw, and the ragged last batch.
    window = window_of(tmp_path, cache, rows, tokenizer, device, method=method, steps=7)
    assert window.own() == []


@pytest.mark.parametrize("method", methods(sorted(METHODS.keys() - CACHED_ONLY)))
def test_no_method_reads_anything_in_a_quiet_step_with_a_live_teacher(
    tmp_path: Path, rows: Dataset, tokenizer: Any, device: torch.device, method: str
) -> None:
    window = window_of(tmp_path, tiny.make_model(4), rows, tokenizer, device, method=method)
    assert window.own() == []


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation_steps": 3, "class_weights": [0.5, 2.0], "class_weights_on_logits": True},
        {"max_grad_norm": 0.0},
        {"intermediate_schedule": "linear"},
        {"redraw": "step"},
        {"states_on_device": "yes"},
        {"length_groups": "split"},
        {"skip_nonfinite": True},
    ],
    ids=str,
)
def test_no_setting_reads_anything_in_a_quiet_step(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device, settings: dict[str, Any]
) -> None:
    window = window_of(tmp_path, cache, rows, tokenizer, device, method="rail-kd-l", **settings)
    assert window.own() == []


def test_rows_of_a_stream_read_nothing_in_a_quiet_step(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device
) -> None:
    window = window_of(tmp_path, cache, rows.to_iterable_dataset(), tokenizer, device, length_groups="split")
    assert window.own() == []


@pytest.mark.parametrize("labels", ["some", None])
@pytest.mark.parametrize("method", ["kd", "codir"])
def test_rows_without_labels_read_nothing_in_a_quiet_step(
    tmp_path: Path, cache: TeacherCache, tokenizer: Any, device: torch.device, method: str, labels: str | None
) -> None:
    window = window_of(tmp_path, cache, tiny.text_rows(labels=labels), tokenizer, device, method=method)
    assert window.own() == []


@pytest.mark.parametrize("method", ["finetune", "rail-kd-l"])
def test_checks_are_read_once_in_sixteen_steps_at_most(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device, method: str
) -> None:
    steps = 3 * EVERY
    window = window_of(tmp_path, cache, rows, tokenizer, device, method=method, steps=steps)
    assert EVERY == 16 and 0 < len(window.own()) <= steps // EVERY


@pytest.mark.parametrize("method", METHODS)
def test_no_objective_asks_a_device_for_a_value(method: str) -> None:
    """Tensors of the device "meta" have no values: whatever reads one fails."""
    case = make(method)
    case.objective.to("meta")

    def leaf(values: Tensor) -> Tensor:
        return values.detach().to("meta").requires_grad_(values.requires_grad)

    def moved(signals: Signals) -> Signals:
        held = signals.negatives
        others = None if held is None else Negatives(held.states.to("meta"), held.group.to("meta"))
        assert signals.states is not None
        return Signals(leaf(signals.logits), leaf(signals.states), others)

    student, teacher, terms = moved(case.student), moved(case.teacher), case.objective.weights
    draw = None if case.draw is None else torch.tensor(case.draw, device="meta")
    assert case.labels is not None
    losses = {
        "ce": lambda: functional.task_loss(student.logits, case.labels.to("meta")),  # type: ignore[union-attr]
        "kd": lambda: functional.kd_loss(student.logits, teacher.logits, 2.0),
        "intermediate": lambda: case.objective.intermediate(student, teacher, draw),
    }
    loss = torch.stack([losses[name]() for name in terms]).sum()
    assert loss.device.type == "meta" and loss.shape == ()
    loss.backward()


def test_no_pooling_asks_a_device_for_a_value() -> None:
    states, mask = torch.ones(2, 5, 3, device="meta"), torch.ones(2, 5, device="meta")
    for pooled in (
        functional.masked_mean(states, mask),
        functional.token_at_edge(states, mask),
        functional.token_at_edge(states, mask, last=True),
    ):
        assert pooled.shape == (2, 3)
    with pytest.raises(RuntimeError):
        bool(states.sum())
