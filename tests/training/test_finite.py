"""Numbers that are none stop a run where they come up, with step, term and examples named; or are skipped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from railkd.data.tokens import keyed_tokens
from railkd.errors import RailkdError
from railkd.teacher import TeacherCache
from tiny import bert_config, make_model, make_small, make_trainer, text_rows, weights_of
from training.runs import Spoilt


@pytest.fixture
def key(rows: Dataset, tokenizer: Any) -> list[int]:
    return keyed_tokens(rows, tokenizer, max_length=128).keys[7].tolist()


@pytest.mark.parametrize(("where", "value"), [("logits", math.nan), ("states", math.inf)])
def test_a_teacher_that_gives_no_numbers_stops_the_run(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, key: list[int], where: str, value: float
) -> None:
    trainer = make_trainer(
        tmp_path, Spoilt(cache, key, where, value), rows, tokenizer, student=make_small(make_model()), gauges=False
    )
    with pytest.raises(RailkdError, match=rf"step \d: got teacher {where} that are NaN or infinite.*{key[0]}"):
        trainer.train()


def test_such_a_batch_can_be_skipped(
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
    trainer = make_trainer(tmp_path, None, rows, tokenizer, student=student, method="finetune")
    with pytest.raises(RailkdError, match=r"step \d: got an infinite label, in examples with keys"):
        trainer.train()


def test_a_student_out_of_bounds_is_named_with_the_term(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    student = make_small(make_model())
    with torch.no_grad():
        student.classifier.weight.fill_(math.nan)
    trainer = make_trainer(tmp_path, cache, rows, tokenizer, student=student, gauges=False)
    with pytest.raises(RailkdError, match=r"step 1: got a loss of nan \(ce, kd not finite\), in examples with keys"):
        trainer.train()


def test_gradients_that_are_no_numbers_stop_the_run_before_they_reach_the_weights(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    student = make_small(make_model())
    student.classifier.weight.register_hook(lambda gradient: gradient * math.inf)
    trainer = make_trainer(tmp_path, cache, rows, tokenizer, student=student, gauges=False)
    before = weights_of(trainer.model)
    with pytest.raises(RailkdError, match="step 1: got gradients with a norm of"):
        trainer.train()
    after = weights_of(trainer.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
