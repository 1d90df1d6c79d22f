"""Every text can be read: one without tokens gets one. What a model cannot read is refused before the pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from models.families.table import FAMILIES, SGD, Family, make_model, make_tokenizer
from railkd.data.keys import KEY
from railkd.data.tokens import keyed_tokens
from railkd.errors import RailkdError
from railkd.models import load_tokenizer
from railkd.models.inference import predict_logits
from railkd.teacher import LiveTeacher, TeacherCache
from tiny import WORDS, losses, make_trainer, save

BARE = {name: family for name, family in FAMILIES.items() if family.template is None}
EMPTY = Dataset.from_dict({"text": ["a good film", "", "bad", "", ""], "label": ["pos", "neg", "neg", "pos", "neg"]})
PAIRS = Dataset.from_dict({"text": ["", "a film", "", ""], "text_pair": ["", "", "bad", ""]})
by_family = pytest.mark.parametrize("family", BARE.values(), ids=list(BARE))


@by_family
@pytest.mark.parametrize("rows", [EMPTY.remove_columns("label"), PAIRS], ids=["texts", "pairs"])
def test_an_empty_text_has_one_answer_in_every_batch(family: Family, rows: Dataset, tmp_path: Path) -> None:
    model, tokenizer = make_model(family), make_tokenizer(family, "left")
    alone, together = (predict_logits(model, tokenizer, rows, max_length=16, batch_size=size) for size in (1, 8))
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
    empty = [row for row, texts in enumerate(zip(*rows.to_dict().values(), strict=True)) if not any(texts)]
    assert len(empty) > 1 and np.isfinite(alone).all()
    np.testing.assert_allclose(alone[empty], np.repeat(alone[empty[:1]], len(empty), axis=0), rtol=1e-4, atol=1e-5)
    cache = TeacherCache.build(model, rows.select(empty), tmp_path, tokenizer=tokenizer, batch_size=2, dtype="float32")
    keys = torch.from_numpy(keyed_tokens(rows.select(empty), tokenizer, max_length=16).keys)
    np.testing.assert_allclose(cache({KEY: keys}, "mean").logits.numpy(), alone[empty], rtol=1e-4, atol=1e-5)


@by_family
def test_batches_of_empty_texts_are_trained_on(family: Family, tmp_path: Path) -> None:
    teacher, tokenizer = make_model(family), make_tokenizer(family, "left")
    only = EMPTY.filter(lambda row: not row["text"])
    student = make_model(family, seed=1, num_hidden_layers=2)
    settings: dict[str, Any] = {"per_device_train_batch_size": 1, "max_steps": 3, **SGD}
    trainer = make_trainer(tmp_path, LiveTeacher(teacher, tokenizer), only, tokenizer, student=student, **settings)
    trainer.train()
    assert len(losses(trainer)) == 3 and np.isfinite(losses(trainer)).all()


def test_rows_of_tokens_that_are_empty_get_one_too() -> None:
    tokenizer = make_tokenizer(BARE["llama"])
    rows = Dataset.from_dict({"input_ids": [[5, 6], []], "attention_mask": [[1, 1], []], KEY: ["a", "b"]})
    found = keyed_tokens(rows, tokenizer, max_length=8)
    inputs = {name: [row.tolist() for row in lists] for name, lists in found.inputs.items()}
    assert inputs == {"input_ids": [[5, 6], [tokenizer.unk_token_id]], "attention_mask": [[1, 1], [1]]}
    tokenizer.unk_token = tokenizer.pad_token = None
    with pytest.raises(RailkdError, match="row 2 has no tokens, because its text is empty"):
        keyed_tokens(rows, tokenizer, max_length=8)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_tokens_without_an_embedding_are_refused_by_number(name: str, tmp_path: Path) -> None:
    model, tokenizer = make_model(FAMILIES[name]), make_tokenizer(FAMILIES[name])
    rows = Dataset.from_dict({"text": ["good film", "good"], "label": ["pos", "neg"]})
    tokenizer.add_tokens([f"more{number}" for number in range(32 - len(tokenizer))])
    for what in ("text", "padding"):
        if what == "text":
            tokenizer.add_tokens(["beyond"])
            bad = Dataset.from_dict({"text": ["good film", "beyond"], "label": ["pos", "neg"]})
        else:
            tokenizer.add_special_tokens({"pad_token": "[FILL]"})
            bad = rows
        calls = (
            lambda bad=bad: predict_logits(model, tokenizer, bad, max_length=8),
            lambda bad=bad: TeacherCache.build(model, bad, tmp_path / "c", tokenizer=tokenizer),
            lambda bad=bad: make_trainer(tmp_path, LiveTeacher(model, tokenizer), bad, tokenizer, student=model),
        )
        for call in calls:
            with pytest.raises(RailkdError, match=rf"numbers below 32, .*got 3\d .* in (a|the) {what}.*resize_token"):
                call()
    # Rows of equal length need no padding.
    assert predict_logits(model, tokenizer, rows.select([0]), max_length=8).shape == (1, 2)


def test_a_tokenizer_without_padding_and_end_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(BARE["llama"], words=WORDS)
    tokenizer.pad_token = None
    with pytest.raises(RailkdError, match="neither a pad_token nor an eos_token"):
        assert load_tokenizer(save(tmp_path, make_model(BARE["llama"]), tokenizer))
