"""A cache of outputs alone is as small as they are; a second pass adds states and leaves the outputs as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets

from railkd.data.keys import KEY
from railkd.errors import RailkdError
from railkd.teacher import CacheWriter, TeacherCache
from railkd.training.pairing import check_rows
from teacher.made import INFO, identity, keys_of, read, read_all, rows_read, same, signals
from tiny import CountingBert, make_model, make_trainer, text_rows


def write_outputs(folder: Path, start: int, rows: int) -> TeacherCache:
    keys, logits, _ = signals(rows, start=start)
    with CacheWriter(folder, INFO, identity(), ()) as writer:
        new = writer.missing(keys)
        writer.add(keys[new], logits[new], {})
    return TeacherCache.open(folder)


def add_states(folder: Path, start: int, rows: int, shift: float = 0.0) -> TeacherCache:
    """Run a second pass whose outputs differ from those of the first by ``shift``."""
    keys, logits, states = signals(rows, start=start)
    with CacheWriter(folder, INFO, identity(), ("mean", "cls")) as writer:
        new = writer.missing(keys)
        writer.add(keys[new], logits[new] + np.float32(shift), {name: s[new] for name, s in states.items()})
    return TeacherCache.open(folder)


def outputs(cache: TeacherCache, keys: np.ndarray) -> np.ndarray:
    return np.asarray(cache({KEY: torch.from_numpy(keys)}, None).logits)


def test_a_cache_of_outputs_alone_is_as_small_as_they_are(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    _, alone = rows_read(counting, rows, tmp_path / "alone", tokenizer, pooling="none")
    _, full = rows_read(counting, rows, tmp_path / "full", tokenizer)
    keys = keys_of(rows, tokenizer)
    assert alone.poolings == () and alone.rows == 22 and alone.info == full.info
    np.testing.assert_array_equal(outputs(alone, keys), outputs(full, keys))
    per_row = sum(path.stat().st_size for path in alone.path.glob("shard-*")) - 500
    assert per_row <= 22 * (16 + 2 * 4 + 4)  # key, two outputs, checksum; the header aside
    alone.verify()
    said = (
        r"holds outputs alone.*a second pass of the teacher over 22 rows adds their mean states \(704 B\); the outputs"
    )
    with pytest.raises(RailkdError, match=said):
        alone({KEY: torch.from_numpy(keys)}, "mean")
    with pytest.raises(RailkdError, match="a second pass of the teacher over 22 rows"):
        alone.moments("mean")
    with pytest.raises(RailkdError, match="a second pass of the teacher over 22 rows"):
        check_rows(alone, keys, "mean")
    check_rows(alone, keys, None)


def test_a_second_pass_adds_states_and_leaves_the_outputs_bit_for_bit(tmp_path: Path) -> None:
    write_outputs(tmp_path, 0, 7)
    before = write_outputs(tmp_path, 7, 5)
    keys = signals(12)[0]
    first = outputs(before, keys)
    after = add_states(tmp_path, 0, 12, shift=1e-6)
    assert after.poolings == ("mean", "cls") and after.rows == 12
    np.testing.assert_array_equal(outputs(after, keys), first)
    assert all(np.array_equal(read(after, keys)[name], signals(12)[2][name]) for name in ("mean", "cls"))
    after.verify()
    np.testing.assert_array_equal(outputs(before, keys), first)  # a reader that opened it before goes on
    assert same(read(add_states(tmp_path, 0, 12), keys), read(after, keys))


def test_other_outputs_than_before_are_refused_with_both_named(tmp_path: Path) -> None:
    cache = write_outputs(tmp_path, 0, 3)
    with pytest.raises(RailkdError, match="Expected the outputs that the cache holds, got others"):
        add_states(tmp_path, 0, 3, shift=0.1)
    again = TeacherCache.open(tmp_path)
    assert again.poolings == () and np.array_equal(outputs(again, signals(3)[0]), outputs(cache, signals(3)[0]))


@pytest.mark.parametrize(("start", "rows"), [(0, 4), (2, 8), (5, 6), (0, 10), (20, 3)])
def test_rows_that_the_second_pass_does_not_read_keep_their_outputs(tmp_path: Path, start: int, rows: int) -> None:
    write_outputs(tmp_path, 0, 5)
    write_outputs(tmp_path, 5, 5)
    cache = add_states(tmp_path, start, rows)
    known, asked = signals(10)[0], signals(rows, start=start)
    every = np.unique(np.concatenate([known, asked[0]]), axis=0)
    assert cache.rows == len(every) and not len(cache.missing(every))
    np.testing.assert_array_equal(outputs(cache, known), signals(10)[1])
    assert np.array_equal(read(cache, asked[0])["cls"], asked[2]["cls"])
    left = [i for i in range(10) if not start <= i < start + rows]
    assert cache.missing(known, states=True).tolist() == left
    if left:
        with pytest.raises(RailkdError, match=f"second pass of the teacher over {len(left)} rows"):
            read(cache, known)
        with pytest.raises(RailkdError, match="training rows are not in the cache"):
            check_rows(cache, known, "mean")
    cache.verify()
    if rows > 1:
        assert cache.moments("mean").count == rows
    finished = add_states(tmp_path, 0, 10)
    assert np.array_equal(read(finished, known)["mean"], signals(10)[2]["mean"]) and finished.rows == len(every)
    finished.verify()


def die(folder: Path, start: int, rows: int, dtype: str = "float32") -> None:
    keys, logits, states = signals(rows, start=start)
    with CacheWriter(folder, INFO, identity(dtype), ("mean", "cls")) as writer:
        writer.add(keys, logits, states)
        raise KeyboardInterrupt


def test_a_second_pass_that_was_killed_leaves_a_cache_of_outputs_and_is_continued(tmp_path: Path) -> None:
    write_outputs(tmp_path, 0, 10)
    with pytest.raises(KeyboardInterrupt):
        die(tmp_path, 0, 6)
    cache = TeacherCache.open(tmp_path)
    assert cache.poolings == () and np.array_equal(outputs(cache, signals(10)[0]), signals(10)[1])
    grown = write_outputs(tmp_path, 10, 2)  # outputs are added meanwhile
    assert grown.poolings == () and grown.rows == 12
    grown.verify()
    with CacheWriter(tmp_path, INFO, identity(), ("mean", "cls")) as writer:
        assert writer.missing(signals(12)[0]).tolist() == list(range(6, 12))
    finished = add_states(tmp_path, 0, 12)
    assert finished.rows == 12 and np.array_equal(read(finished, signals(12)[0])["mean"], signals(12)[2]["mean"])
    finished.verify()


def test_a_kill_between_the_last_shard_and_the_manifest_doubles_no_row(tmp_path: Path) -> None:
    write_outputs(tmp_path, 0, 10)
    manifest = (tmp_path / "manifest.json").read_bytes()
    add_states(tmp_path, 0, 4)  # writes the rows left over as a shard of their own
    (tmp_path / "manifest.json").write_bytes(manifest)
    for finish in (lambda: write_outputs(tmp_path, 10, 2), lambda: add_states(tmp_path, 0, 12)):
        cache = finish()
        assert cache.rows == 12 and np.array_equal(outputs(cache, signals(12)[0]), signals(12)[1])
        cache.verify()


def test_outputs_are_added_to_a_cache_with_states_by_a_builder_that_did_not_know_of_them(tmp_path: Path) -> None:
    add_states(tmp_path, 0, 4)
    cache = write_outputs(tmp_path, 2, 4)
    assert cache.poolings == ("mean", "cls") and cache.rows == 6
    assert np.array_equal(read(cache, signals(4)[0])["mean"], signals(4)[2]["mean"])
    cache.verify()


def test_a_manifest_of_states_does_not_say_more_than_that_of_the_first_release(tmp_path: Path) -> None:
    assert set(json.loads((add_states(tmp_path, 0, 2).path / "manifest.json").read_text())["shards"][0]) == {
        *("file", "bytes", "rows", "header_crc")
    }


def test_the_teacher_runs_again_over_the_rows_without_states_alone(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    more = concatenate_datasets([rows, text_rows(30, seed=8)])
    distinct = len(set(more["text"]))
    assert rows_read(counting, rows, tmp_path, tokenizer, pooling="none")[0] == 22
    assert rows_read(counting, rows, tmp_path, tokenizer, pooling="none")[0] == 0
    assert rows_read(counting, more, tmp_path, tokenizer, pooling="none")[0] == distinct - 22
    count, cache = rows_read(counting, rows, tmp_path, tokenizer, pooling="cls")
    assert count == 22 and cache.poolings == ("cls",) and cache.rows == distinct
    assert rows_read(counting, rows, tmp_path, tokenizer, pooling="none")[0] == 0
    count, cache = rows_read(counting, more, tmp_path, tokenizer, pooling="cls")
    assert count == distinct - 22
    _, whole = rows_read(counting, more, tmp_path / "whole", tokenizer, pooling="cls")
    keys = {KEY: torch.from_numpy(keys_of(more, tokenizer))}
    torch.testing.assert_close(cache(keys, "cls").states, whole(keys, "cls").states)


def test_an_unfinished_build_with_states_is_continued_as_it_began(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    rows_read(counting, rows, tmp_path, tokenizer)
    (tmp_path / "manifest.json").unlink()
    count, cache = rows_read(counting, rows, tmp_path, tokenizer, pooling="none")
    assert count == 0 and cache.poolings == ("mean",)


@pytest.mark.parametrize("pooling", [["none", "mean"], [], ["non"]])
def test_none_stands_alone(tmp_path: Path, rows: Dataset, tokenizer: Any, pooling: list[str]) -> None:
    with pytest.raises(RailkdError, match="alone or names of poolings|got no pooling|unknown pooling 'non'"):
        TeacherCache.build(make_model(1, width=8), rows, tmp_path / "c", tokenizer=tokenizer, pooling=pooling)


def test_training_on_outputs_reads_them_and_training_on_states_says_what_is_missing(
    tmp_path: Path, rows: Dataset, tokenizer: Any
) -> None:
    teacher = make_model(3, width=8)
    cache = TeacherCache.build(teacher, rows, tmp_path / "cache", tokenizer=tokenizer, pooling="none", dtype="float32")
    trainer = make_trainer(tmp_path, cache, rows, tokenizer, student=make_model(2, width=8), method="kd", max_steps=2)
    trainer.train()
    for method in ("rail-kd-l", "pkd-skip", "rail-kd-w"):
        with pytest.raises(RailkdError, match="a second pass of the teacher over 22 rows"):
            make_trainer(tmp_path, cache, rows, tokenizer, student=make_model(2, width=8), method=method)


@pytest.mark.parametrize("stored", [{"dtype": "int8"}, {"states_dim": 3}, {"dtype": "int8", "states_dim": 3}], ids=str)
def test_the_second_pass_chooses_how_states_are_stored(
    stored: dict[str, Any], tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    keys, path = keys_of(rows, tokenizer), tmp_path / "c"
    some = rows.select(range(15))
    first = outputs(rows_read(counting, rows, path, tokenizer, pooling="none")[1], keys)
    second = rows_read(counting, some, path, tokenizer, **stored)[1]
    assert (second.identity.states_dtype, second.identity.states_dim) == (
        stored.get("dtype", "float16"),
        stored.get("states_dim"),
    )
    fresh = rows_read(counting, some, tmp_path / "fresh", tokenizer, **stored)[1]
    got, want = (read_all(cache, some, tokenizer, ("mean",))["mean"] for cache in (second, fresh))
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(outputs(second, keys), first)
    second.verify()
    with pytest.raises(RailkdError, match="in the cache"):  # from now on it is fixed
        rows_read(counting, rows, path, tokenizer)
    assert rows_read(counting, rows, path, tokenizer, **stored)[0] == 7


def test_a_format_of_states_changes_nothing_where_none_are_stored(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    alone = rows_read(counting, rows, tmp_path / "c", tokenizer, pooling="none")[1]
    count, again = rows_read(counting, text_rows(30, seed=8), alone.path, tokenizer, pooling="none", dtype="int8")
    assert count == again.rows - 22 > 0 and again.identity == alone.identity


def test_a_second_pass_that_was_killed_does_not_fix_the_format_of_outputs(tmp_path: Path) -> None:
    write_outputs(tmp_path, 0, 10)
    with pytest.raises(KeyboardInterrupt):
        die(tmp_path, 0, 4, dtype="int8")
    assert write_outputs(tmp_path, 10, 2).rows == 12
    with CacheWriter(tmp_path, INFO, identity(dtype="int8"), ("mean", "cls")) as one:
        assert one.missing(signals(12)[0]).tolist() == list(range(4, 12))
