"""States in int8 are near the exact ones, small, checked byte by byte, and never taken for those of another format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from railkd.errors import RailkdError
from railkd.teacher import TeacherCache
from railkd.teacher.number_formats import pack_states, unpack_states
from teacher.made import keys_of, read, read_all, rows_read, signals, write
from teacher.test_damage import spoil, use
from tiny import CountingBert


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e5, 1e30])
def test_an_int8_number_is_off_by_half_a_step_of_its_vector_at_most(size: float) -> None:
    states = np.random.default_rng(3).normal(size=(40, 3, 7)).astype("f4") * np.float32(size)
    states[0, 1], states[1, 2, 1:] = 0, 0
    arrays, wide = pack_states("mean", [states[:9], states[9:]], "int8")
    got = unpack_states(arrays, "mean", np.arange(40), wide)
    step = np.abs(states).max(axis=2, keepdims=True) / 127
    assert got.dtype == np.float32 and (np.abs(got - states) <= step * 0.5001).all()
    assert np.abs(got - states).max() > 0
    assert (got[0, 1] == 0).all()  # a vector of zeros, and what is beside one number alone, are exact
    np.testing.assert_allclose(got[1, 2], states[1, 2], rtol=1e-6)
    np.testing.assert_array_equal(unpack_states(arrays, "mean", np.array([7, 2]), wide), got[[7, 2]])


def test_a_cache_in_int8_is_small_grows_and_finds_every_flipped_byte(tmp_path: Path) -> None:
    cache = write(tmp_path / "c", signals(4), signals(3, start=4), dtype="int8")
    keys, logits, states = signals(7)
    found = read(cache, keys)
    np.testing.assert_array_equal(found["logits"], logits)  # outputs stay as they are
    for name in ("mean", "cls"):
        assert 0 < np.abs(found[name] - states[name]).max() <= np.abs(states[name]).max() / 254 * 1.001
        np.testing.assert_allclose(
            cache.moments(name).mean.numpy(),
            states[name].astype("f8").mean(axis=0),
            atol=np.abs(states[name]).max() / 254,
        )
    grown = write(cache.path, signals(2, start=7), dtype="int8")
    assert grown.rows == 9
    np.testing.assert_array_equal(read(grown, keys)["cls"], found["cls"])
    flips = 0
    for path, position in spoil(write(tmp_path / "d", signals(3), dtype="int8"), "shard-*", 5):
        flips += 1
        with pytest.raises(RailkdError) as raised:
            use(tmp_path / "d", keys[:3])
        assert path.name in str(raised.value), position
    assert flips > 150
    with pytest.raises(RailkdError, match="holds states of another teacher, max length, precision"):
        write(cache.path, signals(1, start=20), dtype="float16")


def test_a_teacher_pass_in_int8_is_not_taken_for_one_in_float16(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    _, exact = rows_read(counting, rows, tmp_path / "exact", tokenizer, dtype="float32")
    read_rows, small = rows_read(counting, rows, tmp_path / "small", tokenizer, dtype="int8")
    assert read_rows == 22 and "2 blocks of 8 in int8" in small.described and " bytes a row)" in small.described
    mean, near = (read_all(cache, rows, tokenizer, ("mean",))["mean"] for cache in (exact, small))
    assert 0 < np.abs(mean - near).max() <= np.abs(mean).max() / 254 * 1.001
    (shard,) = small.path.glob("shard-*")
    assert shard.stat().st_size <= 22 * (16 + 2 * 4 + 2 * (8 + 4) + 2 * 4) + 700  # the header aside
    for dtype in ("float16", "float32"):
        with pytest.raises(RailkdError, match=f"states_dtype is int8 in the cache, {dtype} here"):
            rows_read(counting, rows, small.path, tokenizer, dtype=dtype)
    assert len(small.missing(keys_of(rows, tokenizer), states=True)) == 0
    with pytest.raises(
        RailkdError, match="Expected float16, float32, int8 as dtype of states, got 'int4'. Did you mean"
    ):
        TeacherCache.build(counting, rows, tmp_path / "other", tokenizer=tokenizer, dtype="int4")
