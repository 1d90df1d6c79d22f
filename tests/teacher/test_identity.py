"""Whose numbers a cache holds: digests that change with what changes a number, and with nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from railkd.teacher.identity import module_digest, tokenizer_digest


def test_a_tokenizer_is_the_same_however_it_pads_and_truncates_at_the_moment() -> None:
    tokenizer = tiny.make_tokenizer()
    before = tokenizer_digest(tokenizer)
    tokenizer(["the film", "a"], padding="max_length", truncation=True, max_length=7)
    assert tokenizer.backend_tokenizer.truncation and tokenizer.backend_tokenizer.padding
    assert tokenizer_digest(tokenizer) == before == tokenizer_digest(tiny.make_tokenizer())


@pytest.mark.parametrize("words", [["truncation", *tiny.WORDS], ["padding", *tiny.WORDS], tiny.WORDS[::-1]])
def test_a_tokenizer_of_other_words_is_another_whatever_the_words(words: list[str]) -> None:
    tokenizer = tiny.make_tokenizer(words)
    found = tokenizer_digest(tokenizer)
    assert found != tokenizer_digest(tiny.make_tokenizer())
    tokenizer(["the film"], padding="max_length", truncation=True, max_length=5)
    assert tokenizer_digest(tokenizer) == found


def test_a_tokenizer_with_another_rule_or_special_token_is_another() -> None:
    from tokenizers import normalizers

    lower, special = tiny.make_tokenizer(), tiny.make_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    special.add_special_tokens({"mask_token": "[MASK]"})
    assert len({tokenizer_digest(t) for t in (tiny.make_tokenizer(), lower, special)}) == 3


@pytest.mark.parametrize("what", ["value", "name", "type", "shape", "order"])
def test_a_module_is_another_when_a_value_a_name_a_type_or_a_shape_is(what: str) -> None:
    def model() -> Any:
        torch.manual_seed(0)
        made = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2)})
        made["a"].bias.requires_grad_(False)
        for name, buffer in (("count", torch.tensor(3)), ("none", torch.zeros(0)), ("on", torch.tensor([True]))):
            made.register_buffer(name, buffer)
        made.register_buffer("halves", torch.ones(2, 3, dtype=torch.bfloat16).T)  # rows are no rows in memory
        return made

    changed = model()
    if what == "value":
        changed["b"].bias.data[1] += 1e-6
    elif what == "name":
        changed["c"] = changed.pop("b")
    elif what == "type":
        changed["a"].bias.data = changed["a"].bias.data.view(torch.int32)  # the same bytes
    elif what == "shape":
        changed["a"].weight.data = changed["a"].weight.data.reshape(3, 2)  # the same bytes
    else:
        changed["a"], changed["b"] = changed["b"], changed["a"]
    assert module_digest(changed) != module_digest(model()) == module_digest(copy.deepcopy(model()))
