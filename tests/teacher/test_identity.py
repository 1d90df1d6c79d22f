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


@pytest.mark.parametrize("words", [[*tiny.WORDS, '"truncation":'], [*tiny.WORDS, '"padding":{'], tiny.WORDS[::-1]])
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
        return nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2)})

    changed = model()
    if what == "value":
        changed["b"].bias.data[1] += 1e-6
    elif what == "name":
        changed["c"] = changed.pop("b")
    elif what == "type":
        changed["a"].weight.data = changed["a"].weight.data.double()
    elif what == "shape":
        changed["a"].weight.data = changed["a"].weight.data.T.reshape(2, 3).T.contiguous()
    else:
        changed["a"], changed["b"] = changed["b"], changed["a"]
    assert module_digest(changed) != module_digest(model()) == module_digest(copy.deepcopy(model()))
