"""NaN and infinity stop a run at the next read, with step, term and examples named, or their steps are skipped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import TrainerCallback

from railkd import DistillationTrainer, TeacherCache
from railkd.data.tokens import keyed_tokens
from railkd.errors import RailkdError
from railkd.training.finite import EVERY, NotFinite, Watch, check_arrays
from tiny import bert_config, make_model, make_small, make_trainer, text_rows, weights_of
from training.runs import Spoilt


@pytest.fixture
def key(rows: Dataset, tokenizer: Any) -> list[int]:
    return keyed_tokens(rows, tokenizer, max_length=128).keys[7].tolist()


@pytest.mark.parametrize(("where", "value"), [("logits", math.nan), ("states", math.inf)])
def test_teacher_signals_that_are_not_finite_stop_the_run(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, key: list[int], where: str, value: float
) -> None:
    trainer = make_trainer(
        tmp_path, Spoilt(cache, key, where, value), rows, tokenizer, student=make_small(make_model()), gauges=False
    )
    with pytest.raises(RailkdError, match=rf"step \d: got teacher {where} that are NaN or infinite.*{key[0]}"):
        trainer.train()


def test_a_batch_with_nan_can_be_skipped(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, key: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(
        *(tmp_path, Spoilt(cache, key, "logits", math.nan), rows, tokenizer),
        **{"student": make_small(make_model()), "gauges": False, "skip_nonfinite": True},
    )
    before = weights_of(trainer.model)
    trainer.train()
    assert trainer.skipped == 2 and caplog.text.count("batch skipped: step") == 2  # once an epoch
    assert trainer.state.log_history[-1]["skipped_batches"] == 2
    after = weights_of(trainer.model)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values() if tensor.is_floating_point())
    assert any(not torch.equal(before[name], after[name]) for name in after)


def test_an_infinite_label_is_named(tmp_path: Path, tokenizer: Any) -> None:
    rows = text_rows(8, labels=None).add_column("label", [0.5] * 7 + [math.inf])
    from transformers import BertForSequenceClassification

    student = BertForSequenceClassification(bert_config(2, id2label={0: "score"}, label2id={"score": 0}))
    with pytest.raises(RailkdError, match="column 'label', row 8: expected a number .*, got the label inf"):
        make_trainer(tmp_path, None, rows, tokenizer, student=student, method="finetune")


def with_a_head_of_nan(student: Any) -> None:
    with torch.no_grad():
        student.classifier.weight.fill_(math.nan)


def with_infinite_gradients(student: Any) -> None:
    student.classifier.weight.register_hook(lambda gradient: gradient * math.inf)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (with_a_head_of_nan, r"step 1: got a loss of nan \(ce, kd not finite\), in examples with keys"),
        (with_infinite_gradients, "step 1: got gradients with a norm of"),
    ],
)
def test_a_student_out_of_bounds_stops_the_run_before_its_weights_change(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, spoil: Any, said: str
) -> None:
    student = make_small(make_model())
    spoil(student)
    trainer = make_trainer(tmp_path, cache, rows, tokenizer, student=student, gauges=False)
    before = weights_of(trainer.model)
    with pytest.raises(RailkdError, match=said):
        trainer.train()
    torch.testing.assert_close(weights_of(trainer.model), before, rtol=0, atol=0, equal_nan=True)


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
        student = make_small(make_model(4, seed=11), 3, dropout=0.0)
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
        trainer = make_trainer(
            tmp_path, teacher, stream(rows, without), tokenizer, student=student, gauges=False, **settings
        )
        trainer.train()
        assert trainer.skipped == int(bad)
        held.append((weights_of(trainer.model), moments(trainer)))
    for ours, reference in zip(*held, strict=True):
        assert ours.keys() == reference.keys()
        assert [name for name in reference if not torch.equal(ours[name], reference[name])] == []


def test_the_other_micro_batches_of_a_step_count_where_one_is_skipped(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    settings = STEADY | {"optim": "sgd", "max_grad_norm": 0.0, "max_steps": 1, "weight_decay": 0.0}
    held = []
    for bad in (True, False):
        student = make_small(make_model(4, seed=11), 3, dropout=0.0)
        teacher = spoilt(cache, rows, tokenizer, 1) if bad else cache
        # The batch left out has half of the rows of the step, so the other one counts half.
        how = {"gradient_accumulation_steps": 2 if bad else 1, "learning_rate": 0.5 if bad else 0.25}
        trainer = make_trainer(tmp_path, teacher, stream(rows), tokenizer, student=student, **settings, **how)
        before = weights_of(trainer.model)
        trainer.train()
        assert trainer.skipped == int(bad)
        held.append(weights_of(trainer.model))
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
    student = make_small(make_model(4, seed=11), 3, dropout=0.0)
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
    trainer = make_trainer(tmp_path, teacher, stream(rows), tokenizer, student=student, **settings)
    with pytest.raises(RailkdError, match=rf"step {POISONED + 1}: got {wanted}.*{key}"):
        trainer.train()
    assert POISONED < steps.begun <= last
    saved = sorted(int(folder.name.split("-")[1]) for folder in tmp_path.glob("checkpoint-*"))
    assert all(step <= POISONED for step in saved) and bool(saved) == ("save_steps" in settings)


def test_fp16_without_a_scaler_lets_no_gradient_through_that_is_not_finite(
    tmp_path: Path, rows: Dataset, tokenizer: Any
) -> None:
    """accelerate has no gradient scaler on a CPU."""
    student = make_small(make_model(4, seed=11), 3)
    student.classifier.weight.register_hook(lambda gradient: gradient * math.nan)
    settings = {"method": "finetune", "fp16": True, "max_steps": 2, "logging_strategy": "no"}
    trainer = make_trainer(tmp_path, None, rows, tokenizer, student=student, **settings)
    before = weights_of(trainer.model)
    with pytest.raises(NotFinite, match="step 1: got gradients with a norm of nan"):
        trainer.train()
    assert all(torch.equal(before[name], value) for name, value in weights_of(trainer.model).items())


def test_steps_that_a_gradient_scaler_skips_are_counted_in_the_log_also_after_a_resume(
    tmp_path: Path, rows: Dataset, tokenizer: Any
) -> None:
    said = []
    for steps, resume in ((2, None), (6, str(tmp_path / "checkpoint-2"))):
        student = make_small(make_model(4, seed=11), 3)
        settings = {"method": "finetune", "fp16": True, "max_steps": steps, "save_strategy": "steps", "save_steps": 2}
        trainer = make_trainer(tmp_path, None, rows, tokenizer, student=student, **settings)
        # As accelerate sets up on a card. The scale falls from 2**100 to 2**10, and then no gradient overflows.
        trainer.accelerator.native_amp = True
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100, backoff_factor=2.0**-30)
        before = weights_of(trainer.model)
        trainer.train(resume_from_checkpoint=resume)
        said.append(trainer.state.log_history[-1]["skipped_steps_of_fp16"])
        changed = any(not torch.equal(before[name], value) for name, value in weights_of(trainer.model).items())
        assert changed == (steps == 6)
    assert said == [2, 3]


def test_the_loss_term_is_named_when_the_run_stops(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    student = make_small(make_model(4, seed=11), 3)
    trainer = make_trainer(
        tmp_path, cache, rows, tokenizer, student=student, method="rail-kd-l", logging_strategy="no", max_steps=9
    )
    with torch.no_grad():
        trainer.model.objective.student_maps.bias.fill_(math.inf)
    before = weights_of(trainer.model)
    with pytest.raises(
        RailkdError, match=r"step 1: got a loss of nan \(intermediate not finite\), in examples with keys"
    ):
        trainer.train()
    after = weights_of(trainer.model)
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
    student = make_small(make_model(4, seed=11), 3)
    runs: list[int] = []
    student.register_forward_pre_hook(lambda *_: runs.append(steps.begun))
    settings = {"logging_strategy": "no", "max_steps": 40, "callbacks": [steps], "method": "kd"}
    trainer = make_trainer(tmp_path, teacher, stream(rows), tokenizer, student=student, **settings)
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
