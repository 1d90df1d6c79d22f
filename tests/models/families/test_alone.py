"""A teacher pass gives for each row what the row gives alone, whatever the tokenizer and the config say of padding."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from models.families.table import BERT_NAMES, FAMILIES, Family, make_model, make_tokenizer
from railkd.data.keys import KEY
from railkd.data.tokens import keyed_tokens
from railkd.teacher import LiveTeacher, TeacherCache
from thorough import unless
from tiny import save, text_rows

CAUSAL: dict[str, dict[str, Any]] = {"final_norm": None, "template": None, "causal": True}
GPT = {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 64, "initializer_range": 0.2}
#: Decoders whose positions are a table, a slope or a rotation, and whose attention has a window.
DECODERS = {name: family for name, family in FAMILIES.items() if family.causal} | {
    "gpt2": Family("gpt2", GPT, **CAUSAL),
    "opt": Family("opt", BERT_NAMES | {"ffn_dim": 32, "word_embed_proj_dim": 16, "init_std": 0.2}, **CAUSAL),
    "mistral, window": Family("mistral", BERT_NAMES | {"num_key_value_heads": 1, "sliding_window": 3}, **CAUSAL),
    "gpt-neox": Family("gpt_neox", BERT_NAMES | {"rotary_pct": 0.5}, **CAUSAL),
}
SIDES = ("right", "left")
#: Which of them names a padding token. "last": it is the word that ends every second text.
PADS = ("both", "tokenizer", "config", "neither", "last")
ROWS = Dataset.from_dict({"text": [text + " good" * (i % 2) for i, text in enumerate(text_rows(14)["text"])]})


def teacher_of(family: Family, side: str, pad: str) -> tuple[Any, Any]:
    model, tokenizer = make_model(family), make_tokenizer(family, side)
    if pad in ("config", "neither"):
        tokenizer.pad_token = None
    if pad in ("tokenizer", "neither"):
        model.config.pad_token_id = None
    if pad == "last":
        tokenizer.pad_token = "good"
        model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def alone(model: Any, tokenizer: Any, rows: Dataset) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return outputs (N, C) and states (N, n, d) of every row by itself, which needs no padding."""
    live = LiveTeacher(model, tokenizer, poolings=("mean", "cls"))
    tokens = keyed_tokens(rows, tokenizer, max_length=32)
    found = []
    for row in range(len(rows)):
        inputs = {name: torch.tensor([values[row].tolist()]) for name, values in tokens.inputs.items()}
        found.append(live.run(inputs, ("mean", "cls")))
    states = {name: torch.cat([each[name] for _, each in found]).numpy() for name in ("mean", "cls")}
    return torch.cat([logits for logits, _ in found]).numpy(), states


#: Every case of two decoders, whose positions are a rotation and a table; two cases of each other.
CASES = unless(
    lambda case: case[0] in ("llama", "gpt2") or case[1:] in (("left", "neither"), ("right", "last")),
    itertools.product(DECODERS, SIDES, PADS),
)


@pytest.mark.parametrize(("name", "side", "pad"), CASES)
def test_a_row_of_a_pass_is_the_row_alone(tmp_path: Path, name: str, side: str, pad: str) -> None:
    model, tokenizer = teacher_of(DECODERS[name], side, pad)
    before = copy.deepcopy(model.config.to_dict())
    logits, states = alone(model, tokenizer, ROWS)
    cache = TeacherCache.build(
        *(model, ROWS, tmp_path), tokenizer=tokenizer, max_length=32, dtype="float32", pooling=["mean", "cls"]
    )
    keys = {KEY: torch.from_numpy(keyed_tokens(ROWS, tokenizer, max_length=32).keys)}
    for name in ("mean", "cls"):
        got = cache(keys, name)
        assert got.states is not None
        np.testing.assert_allclose(got.states, states[name], atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(got.logits, logits, atol=1e-4, rtol=1e-4)
    assert np.ptp(logits, axis=0).max() > 1e-2  # the rows differ
    assert model.config.to_dict() == before


@pytest.mark.parametrize("family", [DECODERS["llama"], DECODERS["gpt2"]], ids=["llama", "gpt2"])
def test_where_every_token_of_the_vocabulary_occurs_and_none_is_padding(tmp_path: Path, family: Family) -> None:
    """No token can stand for padding, so the rows run one by one."""
    model, tokenizer = teacher_of(family, "right", "neither")
    ids = [list(range(32)), [8, 9], [3, 14, 15, 4, 6]]
    rows = Dataset.from_dict(
        {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], KEY: ["a", "b", "c"]}
    )
    logits, states = alone(model, tokenizer, rows)
    cache = TeacherCache.build(model, rows, tmp_path, tokenizer=tokenizer, dtype="float32")
    got = cache({KEY: torch.from_numpy(keyed_tokens(rows, tokenizer, max_length=128).keys)}, "mean")
    np.testing.assert_allclose(got.logits, logits, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(got.states, states["mean"], atol=1e-4, rtol=1e-4)


def test_a_folder_of_a_decoder_without_a_padding_token(tmp_path: Path) -> None:
    family = DECODERS["llama"]
    model, tokenizer = teacher_of(family, "left", "neither")
    tokenizer.eos_token = "good"
    folder = save(tmp_path / "teacher", model, tokenizer)
    one, many = (
        TeacherCache.build(folder, ROWS, tmp_path / f"cache{size}", batch_size=size, dtype="float32")
        for size in (1, 14)
    )
    keys = {KEY: torch.from_numpy(keyed_tokens(ROWS, tokenizer, max_length=128).keys)}
    torch.testing.assert_close(one(keys, "mean").states, many(keys, "mean").states, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one(keys, None).logits, many(keys, None).logits, atol=1e-4, rtol=1e-4)
