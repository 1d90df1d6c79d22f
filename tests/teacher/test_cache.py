"""The cache: keyed by content, of one teacher, complete or absent, and never silently wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets

from railkd.errors import RailkdError
from railkd.examples import KEY, example_key, keyed_tokens
from railkd.teacher import CacheWriter, TeacherCache, TeacherInfo
from railkd.teacher.identity import Identity, identify
from tiny import WORDS, CountingBert, bert_config, make_model, make_tokenizer, save, text_rows

TESTS = Path(__file__).resolve().parents[1]


# ---- made of numbers, without a model ---------------------------------------------------------------


INFO = TeacherInfo(blocks=3, width=4, labels=("neg", "pos"), problem_type="single_label_classification", max_length=128)


def identity(dtype: str = "float32", **changes: Any) -> Identity:
    parts: dict[str, Any] = {
        "weights": "w",
        "config": {"a": 1},
        "tokenizer": "t",
        "max_length": 128,
        "precision": "float32",
    }
    return Identity(**(parts | {"states_dtype": dtype, "versions": {}} | changes))


def signals(rows: int, *, start: int = 0, size: float = 1.0) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Keys, logits and states of rows start .. start + rows: a function of the row's number alone."""
    numbers = [np.random.default_rng(i) for i in range(start, start + rows)]
    keys = np.asarray([example_key(f"row {i}") for i in range(start, start + rows)], dtype=np.int64)
    logits = np.stack([rng.normal(size=2) for rng in numbers]).astype(np.float32)
    states = {
        name: np.stack([rng.normal(size=(3, 4)) * size for rng in numbers]).astype(np.float32)
        for name in ("mean", "cls")
    }
    return keys, logits, states


def write(folder: Path, *parts: tuple[Any, ...], dtype: str = "float32") -> TeacherCache:
    """A cache with one shard for each part."""
    with CacheWriter(folder, INFO, identity(dtype), ("mean", "cls")) as writer:
        for part in parts:
            writer.add(*part)
            writer.flush()
    return TeacherCache.open(folder)


def read(cache: TeacherCache, keys: np.ndarray) -> dict[str, np.ndarray]:
    """Everything the cache holds of these rows."""
    batch = {KEY: torch.from_numpy(keys.copy())}
    found = {name: cache(batch, name).states.float().numpy() for name in ("mean", "cls")}
    return found | {"logits": cache(batch, None).logits.numpy()}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture
def small(tmp_path: Path) -> TeacherCache:
    return write(tmp_path / "cache", signals(6))


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


# ---- damage -----------------------------------------------------------------------------------------


def spoil(cache: TeacherCache, part: str, stride: int) -> Iterator[tuple[Path, int]]:
    """Flip one byte at a time of the files of a cache, and mend it again."""
    for path in sorted(cache.path.glob(part)):
        with path.open("r+b") as file:
            data = file.read()
            for position in range(0, len(data), stride):
                file.seek(position)
                file.write(bytes([data[position] ^ 0x41]))
                file.flush()
                yield path, position
                file.seek(position)
                file.write(data[position : position + 1])
                file.flush()


def use(folder: Path, keys: np.ndarray) -> dict[str, np.ndarray]:
    """Open a cache, read rows, verify all."""
    found = read(TeacherCache.open(folder), keys)
    TeacherCache.open(folder).verify()
    return found


def test_a_flipped_byte_anywhere_in_a_shard_is_found_and_the_file_named(small: TeacherCache) -> None:
    keys, flips = signals(6)[0], 0
    for path, position in spoil(small, "shard-*", 3):
        flips += 1
        with pytest.raises(RailkdError) as found:
            use(small.path, keys)
        assert path.name in str(found.value), position
    assert flips > 300
    use(small.path, keys)  # mended


def test_a_flipped_byte_in_the_index_is_found(small: TeacherCache) -> None:
    keys, other = signals(6)[0], []
    for path, position in spoil(small, "index-*", 1):
        try:
            use(small.path, keys)
        except RailkdError as error:
            if path.name not in str(error):
                other.append((position, str(error)))
        except Exception as error:
            other.append((position, type(error).__name__))
        else:
            other.append((position, "not found"))
    assert other == []


def test_flipped_keys_of_a_shard_never_give_another_rows_numbers(small: TeacherCache) -> None:
    """verify alone reads the stored keys: a batch goes by the index, and checksums take in the key asked for."""
    keys, wanted = signals(6)[0], read(small, signals(6)[0])
    (path,) = small.path.glob("shard-*")
    data = path.read_bytes()
    place = data.index(keys.tobytes())
    path.write_bytes(data[:place] + keys[::-1].tobytes() + data[place + keys.nbytes :])
    assert same(read(TeacherCache.open(small.path), keys), wanted)
    with pytest.raises(RailkdError, match=path.name):
        TeacherCache.open(small.path).verify()


def test_a_flipped_byte_in_the_manifest_is_found(small: TeacherCache) -> None:
    keys = signals(6)[0]
    data = (small.path / "manifest.json").read_bytes()
    for path, position in spoil(small, "manifest.json", 2):
        if data[position : position + 1].isspace():  # between the words
            continue
        with pytest.raises(RailkdError, match=path.name):
            use(small.path, keys)


def test_an_edited_manifest_is_refused(small: TeacherCache) -> None:
    path = small.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["identity"]["max_length"] = 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(RailkdError, match="manifest.json' was altered"):
        TeacherCache.open(small.path)
    path.write_text("{")
    with pytest.raises(RailkdError, match="manifest.json' cannot be read"):
        TeacherCache.open(small.path)


@pytest.mark.parametrize("part", ["shard-*", "index-*"])
def test_a_cut_or_missing_file_is_found_when_the_cache_is_opened(small: TeacherCache, part: str) -> None:
    (path,) = small.path.glob(part)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(RailkdError, match=f"{path.name}' has {len(data) - 1} bytes, wanted {len(data)}"):
        TeacherCache.open(small.path)
    path.unlink()
    with pytest.raises(RailkdError, match=f"{path.name}' is missing"):
        TeacherCache.open(small.path)


def test_two_shards_that_changed_places_are_found(tmp_path: Path) -> None:
    cache = write(tmp_path / "cache", signals(5), signals(5, start=5))
    one, two = cache.path.glob("shard-*")
    spare = tmp_path / "spare"
    one.rename(spare), two.rename(one), spare.rename(two)
    with pytest.raises(RailkdError, match=r"shard-\w+.safetensors"):
        read(TeacherCache.open(cache.path), signals(10)[0][:1])
    with pytest.raises(RailkdError):
        TeacherCache.open(cache.path).verify()


@pytest.mark.parametrize("pooling", ["mean", "cls", None])
def test_only_what_is_touched_is_checked_and_verify_checks_all(small: TeacherCache, pooling: str | None) -> None:
    """Start-up time must not grow with the cache."""
    keys = signals(6)[0]
    (path,) = small.path.glob("shard-*")
    data = bytearray(path.read_bytes())
    last = signals(6)[2]["cls"][5].tobytes()
    place = bytes(data).index(last)
    data[place] ^= 1
    path.write_bytes(data)
    cache = TeacherCache.open(small.path)
    cache({KEY: torch.from_numpy(keys[:5])}, "cls")
    cache({KEY: torch.from_numpy(keys)}, "mean")
    with pytest.raises(RailkdError, match="checksum of cls, row 5"):
        cache({KEY: torch.from_numpy(keys)}, "cls")
    with pytest.raises(RailkdError, match="checksum of cls, row 5"):
        cache.verify()


def test_reading_changes_no_file(small: TeacherCache) -> None:
    def listing() -> list[tuple[str, int, int]]:
        return sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in small.path.iterdir())

    before = listing()
    os.chmod(small.path, 0o555)  # no obstacle to root, hence the listing
    try:
        cache = TeacherCache.open(small.path)
        read(cache, signals(6)[0])
        cache.verify()
    finally:
        os.chmod(small.path, 0o755)
    assert listing() == before


# ---- unfinished builds, growth, two builders --------------------------------------------------------


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
    with pytest.raises(RailkdError, match="unfinished cache"):
        TeacherCache.open(tmp_path)
    with CacheWriter(tmp_path, INFO, identity(), ("mean", "cls")) as writer:
        assert set(writer.missing(signals(10)[0]).tolist()) <= set(range(5, 10))


# ---- of a real teacher ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counting() -> CountingBert:
    torch.manual_seed(0)
    return CountingBert(bert_config(2, width=8)).eval()


def rows_read(
    teacher: CountingBert, dataset: Dataset, folder: Path, tokenizer: Any, **options: Any
) -> tuple[int, TeacherCache]:
    before = teacher.rows_read
    cache = TeacherCache.build(teacher, dataset, folder, tokenizer=tokenizer, **options)
    return teacher.rows_read - before, cache


def keys_of(dataset: Dataset, tokenizer: Any) -> np.ndarray:
    return keyed_tokens(dataset, tokenizer, max_length=128).keys


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
    with pytest.raises(RailkdError, match="unfinished cache"):
        TeacherCache.open(tmp_path)
    count, cache = rows_read(counting, rows, tmp_path, tokenizer, pooling=["mean", "cls"])
    assert count == 0 and same(read_all(cache, rows, tokenizer), wanted)


def read_all(cache: TeacherCache, rows: Dataset, tokenizer: Any) -> dict[str, np.ndarray]:
    return read(cache, keys_of(rows, tokenizer))


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


def test_what_is_no_cache_is_refused(tmp_path: Path, rows: Dataset) -> None:
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
    with pytest.raises(RailkdError, match="without a tokenizer"):
        TeacherCache.build(make_model(1), rows, tmp_path / "cache")
    with pytest.raises(RailkdError, match="holds no model"):
        TeacherCache.build(tmp_path, rows, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


BUILDER = """
import sys, time
from pathlib import Path
from tiny import text_rows
from railkd.teacher import TeacherCache
Path(sys.argv[1] + sys.argv[3]).touch()
while not (Path(sys.argv[1] + "1").exists() and Path(sys.argv[1] + "2").exists()):
    time.sleep(0.01)
print(TeacherCache.build(sys.argv[2], text_rows(600, seed=3), sys.argv[1], batch_size=8, dtype="float32").rows)
"""


def test_two_builders_at_once_end_with_one_right_cache(tmp_path: Path, teacher_folder: Path, tokenizer: Any) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "cache"), str(teacher_folder)]
    builders = [
        subprocess.Popen([*command, name], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in "12"
    ]
    for builder in builders:
        out, err = builder.communicate(timeout=120)
        assert builder.returncode == 0 and out.strip() == "600", err
    rows = text_rows(600, seed=3)
    cache = TeacherCache.open(tmp_path / "cache")
    cache.verify()
    alone = TeacherCache.build(teacher_folder, rows, tmp_path / "alone", batch_size=8, dtype="float32")
    keys = keys_of(rows, tokenizer)
    batch = {KEY: torch.from_numpy(keys)}
    assert cache.rows == alone.rows == 600
    torch.testing.assert_close(cache(batch, "mean").states, alone(batch, "mean").states)


def test_a_teacher_folder_needs_no_tokenizer_argument(tmp_path: Path, tokenizer: Any, rows: Dataset) -> None:
    folder = save(tmp_path / "teacher", make_model(1, width=8), tokenizer)
    one = TeacherCache.build(folder, rows, tmp_path / "one")
    two = TeacherCache.build(str(folder), rows, tmp_path / "two", tokenizer=tokenizer)
    assert one.identity.differences(two.identity) == []
