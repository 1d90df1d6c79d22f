"""YAML is read as version 1.2 has it, and a small document stays small."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from railkd.runtime.yaml_text import read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("-17", -17), ("+3", 3), ("0o17", 15), ("0xFf", 255), ("1.5", 1.5), ("5e-5", 5e-5), ("-.5E3", -500.0),
        ("6.", 6.0), (".inf", math.inf), ("-.INF", -math.inf), ("true", True), ("null", None), ("~", None),
        # text in YAML 1.2, or a number that would lose its zeros
        ("010", "010"), ("007", "007"), ("-08", "-08"), ("12:30", "12:30"), ("1:02:03", "1:02:03"), ("1_000", "1_000"),
        ("0b11", "0b11"), ("2026-11-25", "2026-11-25"), ("2026-11-25 10:00:00", "2026-11-25 10:00:00"),
        ("00.5", "00.5"), ("1e", "1e"), ("'1.5'", "1.5"), ("0x", "0x"), ("+", "+"), ("-", [None]),
    ],
)  # fmt: skip
def test_scalars(text: str, value: Any) -> None:
    found = read_yaml(text)
    assert found == value and type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(read_yaml(".nan"))


_LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_NUMBER_LIKE = st.from_regex(r"[-+]?[0-9_]{0,3}[.:]?[0-9]{0,2}([eE][-+]?[0-9])?", fullmatch=True)


@settings(deadline=None)
@given(
    st.recursive(_LEAF | _NUMBER_LIKE, lambda inner: st.lists(inner) | st.dictionaries(st.text() | _NUMBER_LIKE, inner))
)
def test_what_is_written_is_read_back(value: Any) -> None:
    document = write_yaml(value)
    found = read_yaml(document)
    assert found == value and repr(found) == repr(value)
    # A reader of YAML 1.1 gets no number where a text was written.
    if isinstance(value, str):
        assert yaml.safe_load(document) == value


@pytest.mark.parametrize("width", [2, 9, 30])
def test_aliases_that_multiply_are_refused_at_once(width: int) -> None:
    levels = math.ceil(math.log(1e9, width))
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels + 1)]
    start = time.perf_counter()
    with pytest.raises(ValueError, match="after aliases are replaced"):
        read_yaml("\n".join(lines))
    assert time.perf_counter() - start < 1


def test_ordinary_aliases_are_replaced() -> None:
    found = read_yaml("base: &base {epochs: 2}\none: *base\ntwo: {<<: *base, seed: 1}")
    assert found["one"] == {"epochs": 2} and found["two"] == {"epochs": 2, "seed": 1}


@pytest.mark.parametrize(
    "text", ["&a [*a]", "a: &a {b: *a}", "[" * 5000, "a: [1", "a: *b", "!!python/object:os.system {}"]
)
def test_what_is_not_a_document_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=".+"):
        read_yaml(text)
