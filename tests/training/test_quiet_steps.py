"""A step that neither logs, saves nor evaluates never makes the device wait, and what is not finite reaches nothing.

Host reads are counted on any device, see `device.reads`: a CPU does not wait, but runs the same lines.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import TrainerCallback

import tiny
from device.reads import HostReads
from objectives.test_laws import make
from railkd import DistillationTrainer, TeacherCache, functional
from railkd.data.tokens import keyed_tokens
from railkd.errors import RailkdError
from railkd.objectives import METHODS
from railkd.signals import Negatives, Signals
from railkd.training.finite import EVERY, NotFinite, Watch, check_arrays
from training.runs import Spoilt

#: Methods that need a cache: they contrast with other rows of it, or fit their targets on it.
CACHED_ONLY = {
    name
    for name, spec in METHODS.items()
    if "negatives" in spec.options or spec.options.get("teacher_map") == "whitening"
}
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


@pytest.mark.parametrize("method", METHODS)
def test_no_method_reads_anything_in_a_quiet_step_from_a_cache(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device, method: str
) -> None:
    # More than an epoch: another draw, and the ragged last batch.
    window = window_of(tmp_path, cache, rows, tokenizer, device, method=method, steps=7)
    assert window.own() == []


@pytest.mark.parametrize("method", sorted(METHODS.keys() - CACHED_ONLY))
def test_no_method_reads_anything_in_a_quiet_step_with_a_live_teacher(
    tmp_path: Path, rows: Dataset, tokenizer: Any, device: torch.device, method: str
) -> None:
    window = window_of(tmp_path, tiny.make_model(4), rows, tokenizer, device, method=method)
    assert window.own() == []


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation_steps": 3},
        {"max_grad_norm": 0.0},
        {"intermediate_schedule": "linear"},
        {"redraw": "step"},
        {"skip_nonfinite": True},
    ],
    ids=str,
)
def test_no_setting_reads_anything_in_a_quiet_step(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device, settings: dict[str, Any]
) -> None:
    window = window_of(tmp_path, cache, rows, tokenizer, device, method="rail-kd-l", **settings)
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


# ---- what is not finite ----------------------------------------------------------------------------

ROWS_A_STEP = 4
POISONED = 3  # the step, counted from 0


def stream(rows: Dataset, without: int | None = None) -> IterableDataset:
    """Rows in their order, again and again, without those of one step."""
    order = [i % len(rows) for i in range(10 * len(rows))]
    left_out = range(ROWS_A_STEP * without, ROWS_A_STEP * (without + 1)) if without is not None else ()
    return rows.select([row for place, row in enumerate(order) if place not in left_out]).to_iterable_dataset()


def spoilt(cache: TeacherCache, rows: Dataset, tokenizer: Any, step: int, where: str = "logits") -> Spoilt:
    """A teacher whose signals for one row of a step are NaN."""
    key = keyed_tokens(rows, tokenizer, max_length=128).keys[ROWS_A_STEP * step + 1]
    return Spoilt(cache, key.tolist(), where, math.nan)


def moments(trainer: DistillationTrainer) -> dict[str, Tensor]:
    """Everything the optimizer remembers, by parameter and name."""
    state = trainer.optimizer.state_dict()["state"]
    return {f"{number} {name}": value for number, held in state.items() for name, value in held.items()}


STEADY: dict[str, Any] = {
    "method": "rail-kd-l",
    "redraw": "never",
    "lr_scheduler_type": "constant",
    "weight_decay": 0.1,
    "skip_nonfinite": True,
}


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch", "sgd"])
@pytest.mark.parametrize("what", ["logits", "states", "gradient", "cache"])
def test_a_skipped_step_leaves_weights_and_moments_as_if_its_rows_were_not_there(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, what: str, optim: str
) -> None:
    held = []
    for without in (None, POISONED):
        student = tiny.make_small(tiny.make_model(4, seed=11), 3, dropout=0.0)
        bad = without is None
        teacher: Any = cache
        if bad and what in ("logits", "states"):
            teacher = spoilt(cache, rows, tokenizer, POISONED, what)
        if bad and what == "cache":
            teacher = Rotten.open(cache.path)
            teacher.key = spoilt(cache, rows, tokenizer, POISONED).key.numpy()
        if bad and what == "gradient":
            factors = iter([1.0] * POISONED + [math.inf] + [1.0] * 100)
            student.classifier.weight.register_hook(lambda gradient, factors=factors: gradient * next(factors))
        settings = STEADY | {"optim": optim, "max_steps": 5 if bad else 4, "num_train_epochs": 1}
        trainer = tiny.make_trainer(
            tmp_path, teacher, stream(rows, without), tokenizer, student=student, gauges=False, **settings
        )
        trainer.train()
        assert trainer.skipped == int(bad)
        held.append((tiny.weights_of(trainer.model), moments(trainer)))
    for ours, reference in zip(*held, strict=True):
        assert ours.keys() == reference.keys()
        assert [name for name in reference if not torch.equal(ours[name], reference[name])] == []


def test_the_other_micro_batches_of_a_step_count_where_one_is_skipped(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    settings = STEADY | {"optim": "sgd", "max_grad_norm": 0.0, "max_steps": 1, "weight_decay": 0.0}
    held = []
    for bad in (True, False):
        student = tiny.make_small(tiny.make_model(4, seed=11), 3, dropout=0.0)
        teacher = spoilt(cache, rows, tokenizer, 1) if bad else cache
        # The batch left out has half of the rows of the step, so the other one counts half.
        how = {"gradient_accumulation_steps": 2 if bad else 1, "learning_rate": 0.5 if bad else 0.25}
        trainer = tiny.make_trainer(tmp_path, teacher, stream(rows), tokenizer, student=student, **settings, **how)
        before = tiny.weights_of(trainer.model)
        trainer.train()
        assert trainer.skipped == int(bad)
        held.append(tiny.weights_of(trainer.model))
        assert any(not torch.equal(before[name], held[-1][name]) for name in before)
    assert [name for name in held[0] if not torch.equal(held[0][name], held[1][name])] == []


class Rotten(TeacherCache):
    """A cache whose logits are NaN for one example."""

    key: np.ndarray

    def gather(self, keys: np.ndarray, pooling: str | None) -> tuple[np.ndarray, np.ndarray | None]:
        logits, states = super().gather(keys, pooling)
        logits = logits.copy()
        logits[(keys == self.key).all(axis=1)] = math.nan
        return logits, states


class Steps(TrainerCallback):
    """Knows how many steps a run has begun."""

    def __init__(self) -> None:
        self.begun = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begun = state.global_step + 1


@pytest.mark.parametrize(
    ("settings", "last"),
    [
        ({}, POISONED + EVERY),
        ({"save_strategy": "steps", "save_steps": 2}, POISONED + 1),
        ({"save_strategy": "steps", "save_steps": 3}, 6),
        ({"eval_strategy": "steps", "eval_steps": 5}, 5),
        ({"logging_strategy": "steps", "logging_steps": 7}, 7),
        ({"max_steps": POISONED + 2}, POISONED + 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("what", ["live", "gradient"])
def test_a_run_stops_at_the_next_read_and_names_step_term_and_rows(
    tmp_path: Path,
    cache: TeacherCache,
    rows: Dataset,
    tokenizer: Any,
    settings: dict[str, Any],
    last: int,
    what: str,
) -> None:
    student = tiny.make_small(tiny.make_model(4, seed=11), 3, dropout=0.0)
    steps = Steps()
    teacher: Any = cache
    if what == "live":
        teacher = spoilt(cache, rows, tokenizer, POISONED)
        (key, _), wanted = teacher.key.tolist(), "teacher logits that are NaN or infinite"
    else:
        factors = iter([1.0] * POISONED + [math.nan] + [1.0] * 100)
        student.classifier.weight.register_hook(lambda gradient: gradient * next(factors))
        key, wanted = "", "gradients with a norm of nan"
    settings = {"logging_strategy": "no", "max_steps": 40, "eval_dataset": rows, "callbacks": [steps], **settings}
    trainer = tiny.make_trainer(tmp_path, teacher, stream(rows), tokenizer, student=student, **settings)
    with pytest.raises(RailkdError, match=rf"step {POISONED + 1}: got {wanted}.*{key}"):
        trainer.train()
    assert POISONED < steps.begun <= last
    saved = sorted(int(folder.name.split("-")[1]) for folder in tmp_path.glob("checkpoint-*"))
    assert all(step <= POISONED for step in saved) and bool(saved) == ("save_steps" in settings)


def test_the_loss_term_is_named_when_the_run_stops(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    student = tiny.make_small(tiny.make_model(4, seed=11), 3)
    trainer = tiny.make_trainer(
        tmp_path, cache, rows, tokenizer, student=student, method="rail-kd-l", logging_strategy="no", max_steps=9
    )
    with torch.no_grad():
        trainer.model.objective.student_maps.bias.fill_(math.inf)
    before = tiny.weights_of(trainer.model)
    with pytest.raises(
        RailkdError, match=r"step 1: got a loss of nan \(intermediate not finite\), in examples with keys"
    ):
        trainer.train()
    after = tiny.weights_of(trainer.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_signals_of_a_cache_are_checked_in_every_precision(dtype: Any, value: float) -> None:
    keys = np.arange(10).reshape(5, 2)
    largest = np.full((5, 3, 4), np.finfo(dtype).max, dtype=dtype)
    largest[1] *= -1
    check_arrays({"logits": largest[:, 0], "states": largest}, keys, 0)
    bad = largest.copy()
    bad[3, 2, 1] = value
    with pytest.raises(
        NotFinite, match=r"step 8: got teacher states that are NaN or infinite, in examples with keys \[\[6, 7\]\]"
    ):
        check_arrays({"logits": largest[:, 0], "states": bad}, keys, 7)


def test_a_cache_with_nan_stops_the_step_before_the_student_runs(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    teacher, steps = Rotten.open(cache.path), Steps()
    teacher.key = spoilt(cache, rows, tokenizer, POISONED).key.numpy()
    student = tiny.make_small(tiny.make_model(4, seed=11), 3)
    runs: list[int] = []
    student.register_forward_pre_hook(lambda *_: runs.append(steps.begun))
    settings = {"logging_strategy": "no", "max_steps": 40, "callbacks": [steps], "method": "kd"}
    trainer = tiny.make_trainer(tmp_path, teacher, stream(rows), tokenizer, student=student, **settings)
    with pytest.raises(NotFinite, match=rf"step {POISONED + 1}: got teacher logits that are NaN.*{teacher.key[0]}"):
        trainer.train()
    assert steps.begun == POISONED + 1 and runs == list(range(1, POISONED + 1))


def test_a_finite_step_notes_its_share_to_the_last_bit() -> None:
    watch = Watch(["ce"])
    for share in (1.0, 1 / 3, 0.7):
        loss = torch.tensor(-2.5)
        factor = watch.note((loss, torch.ones(1), torch.ones(2, 2)), share, step=0, keys=None, probes={})
        assert torch.equal(loss * factor, loss * share)
    assert list(watch.read()) == [] and list(watch.read()) == []
