"""The cache: keyed by content, of one teacher, and never silently wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets

from railkd.data.keys import KEY, example_key
from railkd.errors import RailkdError
from railkd.teacher import CacheWriter, TeacherCache, TeacherInfo
from railkd.teacher.identity import identify
from teacher.made import INFO, identity, keys_of, read, rows_read, same, signals, write
from tiny import WORDS, CountingBert, make_model, make_tokenizer, save, text_rows

# ---- made of numbers, without a model -----------------------------------------------------------


def test_a_row_is_read_back_as_it_was_written(small: TeacherCache) -> None:
    keys, logits, states = signals(6)
    order = [4, 0, 5, 0]
    got = read(small, keys[order])
    assert np.array_equal(got["logits"], logits[order])
    assert all(np.array_equal(got[name], states[name][order]) for name in states)
    assert small.rows == 6 and small.info == INFO


def test_many_shards_answer_as_one(tmp_path: Path) -> None:
    one = write(tmp_path / "one", signals(30))
    many = write(tmp_path / "many", signals(7), signals(1, start=7), signals(22, start=8))
    assert len(list(many.path.glob("shard-*"))) == 3 and len(list(one.path.glob("shard-*"))) == 1
    keys = signals(30)[0][np.random.default_rng(0).permutation(30)]
    assert same(read(one, keys), read(many, keys)) and same(read(one, keys[:1]), read(many, keys[:1]))
    many.verify()


def test_rows_that_are_not_there_are_named(small: TeacherCache) -> None:
    keys = signals(8)[0]
    assert small.missing(keys).tolist() == [6, 7]
    with pytest.raises(RailkdError, match="2 of 8 examples are not in the cache"):
        read(small, keys)


def test_keys_that_share_half_their_bits_are_told_apart(tmp_path: Path) -> None:
    _, logits, states = signals(5)
    keys = np.asarray([[5, 7], [5, -3], [-9, 0], [5, 1], [2**62, 2]], dtype=np.int64)
    cache = write(
        tmp_path,
        (keys[:3], logits[:3], {n: s[:3] for n, s in states.items()}),
        (keys[3:], logits[3:], {n: s[3:] for n, s in states.items()}),
    )
    order = [4, 1, 0, 3, 2, 1]
    assert np.array_equal(read(cache, keys[order])["logits"], logits[order])
    others = np.asarray([[5, 0], [5, 2], [5, 9], [-9, 1], [-10, 0], [2**62, 3], [2**62 + 1, 2]], dtype=np.int64)
    assert (cache.find(others) == -1).all() and len(cache.find(others[:0])) == 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_states_beyond_half_precision_are_kept_wide(tmp_path: Path, dtype: str) -> None:
    keys, logits, states = signals(9)
    states["mean"][4:, 1] *= (
        1e6  # one block of the later rows: the middle shard holds both kinds of row, the first none
    )
    parts = [
        (keys[p], logits[p], {n: s[p] for n, s in states.items()}) for p in (slice(0, 3), slice(3, 6), slice(6, 9))
    ]
    cache = write(tmp_path / "cache", *parts, dtype=dtype)
    got = read(cache, keys[::-1])
    for name in states:
        np.testing.assert_allclose(got[name], states[name][::-1], rtol=1e-3, atol=1e-6)
    cache.verify()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["logits", "mean", "cls"])
def test_numbers_that_are_none_are_refused_with_the_row_named(tmp_path: Path, bad: float, where: str) -> None:
    keys, logits, states = signals(4)
    (logits if where == "logits" else states[where])[2].flat[-1] = bad
    with pytest.raises(RailkdError, match=f"gave {where} that are no numbers.*{keys[2, 0]}"):
        write(tmp_path / "cache", (keys, logits, states))
    with pytest.raises(RailkdError, match="no teacher cache"):
        TeacherCache.open(tmp_path / "cache")


@pytest.mark.parametrize("poolings", [("mean",), ("mean", "cls")])
def test_a_cache_costs_little_more_than_its_numbers(tmp_path: Path, poolings: tuple[str, ...]) -> None:
    rows, n, d, classes = 400, 6, 384, 2
    rng = np.random.default_rng(0)
    with CacheWriter(
        tmp_path, TeacherInfo(n, d, ("0", "1"), INFO.problem_type, 128), identity("float16"), poolings
    ) as writer:
        for _ in range(0, rows, 100):
            keys = rng.integers(-(2**63), 2**63 - 1, (100, 2))
            writer.add(keys, rng.normal(size=(100, classes)), {name: rng.normal(size=(100, n, d)) for name in poolings})
    wanted = len(poolings) * n * d * 2 + classes * 4
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) / rows <= 1.1 * wanted
    assert TeacherCache.open(tmp_path).bytes / rows <= 1.1 * wanted


# ---- of a real teacher --------------------------------------------------------------------------


def test_shuffles_subsets_and_merged_sets_hit_and_a_changed_text_misses(
    cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    subset, shuffled = rows.select([3, 1]), rows.shuffle(seed=1)
    merged = concatenate_datasets([subset, rows])
    for dataset in (
        rows,
        subset,
        shuffled,
        merged,
        rows.remove_columns("label"),
        rows.rename_column("text", "sentence"),
    ):
        assert len(cache.missing(keys_of(dataset, tokenizer))) == 0
    changed = Dataset.from_dict({"text": [rows["text"][0] + " ", rows["text"][0].upper(), rows["text"][1]]})
    assert cache.missing(keys_of(changed, tokenizer)).tolist() == [0, 1]
    pair = Dataset.from_dict({"sentence1": rows["text"][:2], "sentence2": rows["text"][:2]})
    assert cache.missing(keys_of(pair, tokenizer)).tolist() == [0, 1]


def test_the_teacher_runs_once_over_each_text_and_only_over_what_is_missing(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    more = concatenate_datasets([rows, text_rows(30, seed=8, labels=None), rows])
    distinct = len(set(more["text"]))
    assert rows_read(counting, rows, tmp_path, tokenizer)[0] == 22
    assert rows_read(counting, rows.shuffle(seed=2), tmp_path, tokenizer)[0] == 0
    read_now, cache = rows_read(counting, more, tmp_path, tokenizer)
    assert read_now == distinct - 22 and cache.rows == distinct
    cache.verify()


def test_a_pooling_that_is_not_stored_is_refused_by_name(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    _, cache = rows_read(counting, rows, tmp_path, tokenizer)
    with pytest.raises(RailkdError, match="stores the pooling mean, but 'cls' is wanted.*--pooling mean,cls"):
        cache({KEY: torch.from_numpy(keys_of(rows, tokenizer))}, "cls")
    with pytest.raises(RailkdError, match="'cls' is wanted"):
        rows_read(counting, rows, tmp_path, tokenizer, pooling="cls")
    with pytest.raises(RailkdError, match="Did you mean 'mean'"):
        rows_read(counting, rows, tmp_path, tokenizer, pooling="maen")


def test_a_stored_extra_pooling_is_no_matter(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    rows_read(counting, rows, tmp_path, tokenizer, pooling=["cls", "mean"])
    count, cache = rows_read(counting, rows, tmp_path, tokenizer, pooling="cls")
    assert count == 0 and cache.poolings == ("mean", "cls")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_length": 64}, "max_length is 128 in the cache, 64 here"),
        ({"dtype": "float32"}, "states_dtype is float16 in the cache, float32 here"),
        ({"bf16": True}, "precision is float32 in the cache, bfloat16 here"),
        ({"teacher": "other weights"}, "other teacher weights"),
        ({"teacher": "deeper"}, "config.num_hidden_layers is 2 in the cache, 3 here"),
        ({"tokenizer": "other"}, "another tokenizer"),
    ],
)
def test_a_cache_of_another_teacher_is_refused_with_the_difference_named(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any, change: dict[str, Any], said: str
) -> None:
    rows_read(counting, rows, tmp_path, tokenizer)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    others = {"other weights": make_model(2, width=8, seed=1), "deeper": make_model(3, width=8)}
    teacher = others.get(change.pop("teacher", ""), counting)
    theirs = make_tokenizer(WORDS[::-1]) if change.pop("tokenizer", None) else tokenizer
    with pytest.raises(RailkdError, match=f"is of another teacher run: .*{said}"):
        TeacherCache.build(teacher, rows, tmp_path, tokenizer=theirs, **change)
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before
    replaced = TeacherCache.build(teacher, rows, tmp_path, tokenizer=theirs, overwrite=True, **change)
    assert replaced.rows == 22 and replaced.info.blocks == teacher.config.num_hidden_layers
    replaced.verify()


def test_the_same_teacher_as_a_folder_and_as_a_module_has_one_tokenizer_and_config(
    teacher_folder: Path, tokenizer: Any, cache: TeacherCache
) -> None:
    options: dict[str, Any] = {"max_length": 128, "precision": "float32", "states_dtype": "float32"}
    here = identify(teacher_folder, tokenizer, **options)
    assert cache.identity.differences(here) == []
    tokenizer(["a film"], truncation=True, max_length=3, padding=True)  # the moment's settings are no part of it
    assert cache.identity.differences(identify(teacher_folder, tokenizer, **options)) == []
    module = identify(make_model(), tokenizer, **options)
    assert cache.identity.differences(module, ignore=("weights",)) == []


def test_a_folder_that_is_not_a_cache_is_refused(tmp_path: Path, rows: Dataset) -> None:
    with pytest.raises(RailkdError, match="no teacher cache at"):
        TeacherCache.open(tmp_path / "nowhere")
    with pytest.raises(RailkdError, match="no teacher cache at"):
        TeacherCache.open(tmp_path)
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RailkdError, match="is a file, wanted a folder"),
        CacheWriter(tmp_path / "file", INFO, identity()),
    ):
        pass
    with pytest.raises(RailkdError, match="Expected a tokenizer beside the teacher module"):
        TeacherCache.build(make_model(1), rows, tmp_path / "cache")
    with pytest.raises(RailkdError, match="holds no model"):
        TeacherCache.build(tmp_path, rows, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_teacher_folder_needs_no_tokenizer_argument(tmp_path: Path, tokenizer: Any, rows: Dataset) -> None:
    folder = save(tmp_path / "teacher", make_model(1, width=8), tokenizer)
    one = TeacherCache.build(folder, rows, tmp_path / "one")
    two = TeacherCache.build(str(folder), rows, tmp_path / "two", tokenizer=tokenizer)
    assert one.identity.differences(two.identity) == []


def test_a_cache_of_the_first_release_is_read_as_it_was_written() -> None:
    """Two shards that version 0.1.0 wrote; one holds a block that half precision cannot hold."""
    cache = TeacherCache.open(Path(__file__).parent / "cache_0.1.0")
    keys = np.asarray([example_key(f"row {i}") for i in range(6)], dtype=np.int64)
    states = np.stack([np.arange(12).reshape(3, 4) * (i + 1) for i in range(6)]).astype(np.float32)
    wanted = {"mean": states, "cls": -states, "logits": np.asarray([[i, -i] for i in range(6)], dtype=np.float32)}
    wanted["cls"][2, 1] = 1e6
    assert cache.info == INFO and cache.identity.versions == {"torch": "2.13.0"}
    assert same(read(cache, keys), wanted)
    cache.verify()
