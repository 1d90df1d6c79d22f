"""Builds: unfinished ones are gone on with, caches grow, and of two builders at once one waits."""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from forks import Fork
from railkd.data.keys import KEY
from railkd.errors import RailkdError
from railkd.teacher import CacheWriter, TeacherCache
from teacher.made import INFO, identity, keys_of, read, read_all, rows_read, same, signals
from tiny import WORDS, CountingBert, bert_config, text_rows


def test_a_cache_grows_by_new_rows_and_keeps_the_old(small: TeacherCache) -> None:
    keys, logits, states = signals(9)
    with CacheWriter(small.path, INFO, identity(), ("mean", "cls")) as writer:
        new = writer.missing(np.concatenate([keys, keys]))
        assert new.tolist() == [6, 7, 8]
        writer.add(keys[new], logits[new], {name: s[new] for name, s in states.items()})
    grown = TeacherCache.open(small.path)
    assert grown.rows == 9 and np.array_equal(read(grown, keys)["logits"], logits)
    # A reader may have the manifest from before: the index it names stays, until the next build.
    assert len(list(grown.path.glob("index-*"))) == 2
    with CacheWriter(small.path, INFO, identity(), ("mean", "cls")) as writer:
        assert not len(writer.missing(keys))
    assert len(list(grown.path.glob("index-*"))) == 1
    grown.verify()


def test_a_writer_refuses_the_folder_of_another_teacher(small: TeacherCache) -> None:
    with (
        pytest.raises(RailkdError, match="another teacher"),
        CacheWriter(small.path, INFO, identity(weights="x"), ("mean", "cls")),
    ):
        pass
    with (
        pytest.raises(RailkdError, match="stores the poolings mean, cls, wanted mean"),
        CacheWriter(small.path, INFO, identity()),
    ):
        pass
    TeacherCache.open(small.path).verify()


def test_a_finished_shard_of_a_build_that_died_is_kept(tmp_path: Path) -> None:
    def die(writer: CacheWriter) -> None:
        writer.add(*signals(5))
        writer.flush()
        writer.add(*signals(5, start=5))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), CacheWriter(tmp_path, INFO, identity(), ("mean", "cls")) as writer:
        die(writer)
    with pytest.raises(RailkdError, match="The cache at .* is unfinished"):
        TeacherCache.open(tmp_path)
    with CacheWriter(tmp_path, INFO, identity(), ("mean", "cls")) as writer:
        assert set(writer.missing(signals(10)[0]).tolist()) <= set(range(5, 10))


def test_a_complete_cache_is_not_written_to_again(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    rows_read(counting, rows, tmp_path, tokenizer)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    rows_read(counting, rows, tmp_path, tokenizer)
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


def test_a_build_without_its_manifest_is_unfinished_and_taken_up_again(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any
) -> None:
    wanted = read_all(rows_read(counting, rows, tmp_path, tokenizer, pooling=["mean", "cls"])[1], rows, tokenizer)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(RailkdError, match="The cache at .* is unfinished"):
        TeacherCache.open(tmp_path)
    count, cache = rows_read(counting, rows, tmp_path, tokenizer, pooling=["mean", "cls"])
    assert count == 0 and same(read_all(cache, rows, tokenizer), wanted)


def test_a_build_that_died_in_the_middle_runs_the_teacher_only_on_what_is_missing(
    tmp_path: Path, tokenizer: Any
) -> None:
    torch.manual_seed(0)
    teacher = CountingBert(bert_config(1, width=2)).eval()
    words = [f"{a} {b} {c} {d}" for a in WORDS for b in WORDS for c in WORDS[:10] for d in WORDS[:3]][:9000]
    many = Dataset.from_dict({"text": words})

    def die(done: int, _: int) -> None:
        if done >= 4000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows_read(teacher, many, tmp_path, tokenizer, batch_size=1024, on_progress=die)
    assert not list(tmp_path.glob(".*.tmp")) and not (tmp_path / "manifest.json").exists()
    count, cache = rows_read(teacher, many, tmp_path, tokenizer, batch_size=1024)
    assert count == 9000 - 4096 and cache.rows == 9000
    cache.verify()


def test_progress_counts_the_rows_to_do(tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any) -> None:
    told: list[tuple[int, int]] = []
    rows_read(counting, rows, tmp_path, tokenizer, batch_size=8, on_progress=lambda *numbers: told.append(numbers))
    assert told == [(8, 22), (16, 22), (22, 22)]


def test_two_builders_at_once_end_with_one_right_cache(tmp_path: Path, teacher_folder: Path, tokenizer: Any) -> None:
    names = ("one", "two")

    def build(name: str) -> None:
        Path(f"{name} is here").touch()
        while not all(Path(f"{other} is here").exists() for other in names):
            time.sleep(0.001)
        print(TeacherCache.build(teacher_folder, text_rows(600, seed=3), "cache", batch_size=8, dtype="float32").rows)

    builders = [Fork(tmp_path, lambda name=name: build(name), name) for name in names]  # type: ignore[misc]
    assert [builder.end() for builder in builders] == [(0, "600\n")] * 2
    rows = text_rows(600, seed=3)
    cache = TeacherCache.open(tmp_path / "cache")
    cache.verify()
    alone = TeacherCache.build(teacher_folder, rows, tmp_path / "alone", batch_size=8, dtype="float32")
    keys = keys_of(rows, tokenizer)
    batch = {KEY: torch.from_numpy(keys)}
    assert cache.rows == alone.rows == 600
    torch.testing.assert_close(cache(batch, "mean").states, alone(batch, "mean").states)


class Terminal(io.StringIO):
    """Takes what would be written to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_build_from_python_shows_a_bar_on_a_terminal_alone(
    tmp_path: Path, counting: CountingBert, rows: Dataset, tokenizer: Any, kind: Any
) -> None:
    with contextlib.redirect_stderr(kind()) as shown:
        rows_read(counting, rows, tmp_path, tokenizer, batch_size=8)
        first = shown.getvalue()
        rows_read(counting, rows, tmp_path, tokenizer)  # nothing to do
    assert shown.getvalue() == first
    assert ("teacher pass" in first and "22/22" in first) == (kind is Terminal) == bool(first)
