"""Rows of tokens in parts: what does not fit one part is as it would be in one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from railkd.data.keys import keys_of
from railkd.data.tokens import Growing, Ragged, keyed_tokens, model_inputs
from railkd.errors import RailkdError
from tiny import WORDS

LISTS = st.lists(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-128, 127), max_size=4), max_size=6)


@given(st.lists(LISTS, max_size=4))
def test_lists_that_come_in_parts_are_kept_as_they_are(parts: list[list[list[int]]]) -> None:
    growing, every = Growing(), [row for part in parts for row in part]
    for part in parts:
        growing.extend(part)
    found = growing.done()
    assert [row.tolist() for row in found] == every == found.arrow().to_pylist() == [list(row) for row in found[:]]
    assert len(found) == len(every) and found.lengths.tolist() == [len(row) for row in every]
    largest = max((abs(number) for row in every for number in row), default=0)
    assert found.values.itemsize == 1 or largest >= 128


def test_a_number_of_more_than_32_bits_is_refused() -> None:
    with pytest.raises(RailkdError, match=r"Expected token numbers below 2,147,483,648, got 2,147,483,648\."):
        Ragged.of([[1], [2**31]])


def test_a_table_of_several_parts_has_the_tokens_and_keys_of_its_rows(tokenizer: Any) -> None:
    texts = [f"{WORDS[number % 20]} {WORDS[number // 20 % 20]} film" * (1 + number % 3) for number in range(2500)]
    rows = Dataset.from_dict({"text": texts, "text_pair": texts[::-1]})
    found = keyed_tokens(rows, tokenizer, max_length=9)
    wanted = model_inputs(tokenizer, list(zip(texts, texts[::-1], strict=True)), 9)
    assert {name: [row.tolist() for row in lists] for name, lists in found.inputs.items()} == wanted
    np.testing.assert_array_equal(found.keys, keys_of(rows))
    with pytest.raises(RailkdError, match="column 'text', row 2300: expected text, got None"):
        keyed_tokens(Dataset.from_dict({"text": [*texts[:2299], None]}), tokenizer, max_length=9)
