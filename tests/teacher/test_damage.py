"""A damaged cache is found out, with the file named, and reading damages nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from railkd.data.keys import KEY
from railkd.errors import RailkdError
from railkd.teacher import CacheWriter, TeacherCache
from railkd.teacher.manifest import manifest_checksum
from teacher.made import INFO, identity, read, same, signals, write


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
    with pytest.raises(RailkdError, match="Cannot read the cache manifest '.*manifest.json'"):
        TeacherCache.open(small.path)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("rows",), "6", "rows: input should be a valid integer, got '6'"),
        (("rows",), -6, "rows: input should be greater than or equal to 0, got -6"),
        (("rows",), True, "rows: .*, got True"),
        (("teacher", "width"), 2**70, "teacher.width: input should be less than 9007199254740992, got 118059"),
        (("teacher", "labels"), "pos", "teacher.labels: "),
        (("teacher", "labels"), ["neg", 1], "teacher.labels.1: .*, got 1"),
        (("teacher", "problem_type"), "art", "teacher.problem_type: .*, got 'art'"),
        (("identity", "max_length"), 10**400, "identity.max_length: "),
        (("identity", "versions"), {"torch": 2}, "identity.versions.torch: .*, got 2"),
        (("identity", "blocks"), 3, "identity.blocks: .*, got 3"),
        (("poolings",), [], "poolings: .*got no pooling"),
        (("poolings",), ["max"], "poolings: .*unknown pooling 'max'"),
        (("shards", 0), 7, "shards.0: "),
        (("shards", 0, "bytes"), 1.5, "shards.0.bytes: .*, got 1.5"),
        (("index", "file"), None, "index.file: .*, got None"),
    ],
    ids=str,
)
def test_a_manifest_of_other_types_is_refused_with_the_field(
    small: TeacherCache, place: tuple[Any, ...], value: Any, said: str
) -> None:
    """Its checksum fits, as if someone who knows the format had made it."""
    path = small.path / "manifest.json"
    manifest = json.loads(path.read_text())
    part: Any = manifest
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    path.write_text(json.dumps(manifest | {"checksum": manifest_checksum(manifest)}))
    with pytest.raises(RailkdError, match=f"manifest.json' does not describe a cache .{said}"):
        TeacherCache.open(small.path)


@pytest.mark.parametrize("depth", [300, 100_000])
def test_a_deeply_nested_manifest_is_refused(small: TeacherCache, depth: int) -> None:
    path = small.path / "manifest.json"
    path.write_text(path.read_text().replace('"identity": {', f'"identity": {{"deep": {"[" * depth}{"]" * depth},', 1))
    with pytest.raises(RailkdError, match="Cannot read the cache manifest .*recursion limit"):
        TeacherCache.open(small.path)


@pytest.mark.parametrize("part", ["shard-*", "index-*"])
def test_a_cut_or_missing_file_is_found_when_the_cache_is_opened(small: TeacherCache, part: str) -> None:
    (path,) = small.path.glob(part)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    said = f"Expected {len(data)} bytes in the cache file .*{path.name}', got {len(data) - 1}"
    with pytest.raises(RailkdError, match=said):
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher.width": 10**9}, "teacher: expected at most 67108864 numbers of states, got 3 x 1000000000"),
        ({"teacher.width": 10**7}, "shard-.*: expected at least 1440000216 bytes for 6 rows of 3 blocks of 10000000"),
        ({"teacher.blocks": 10**15}, "teacher: expected at most 67108864 numbers of states"),
        ({"teacher.blocks": 2**30, "teacher.width": 2**30}, "teacher: expected at most"),
        ({"teacher.labels": ["a"] * 500}, "shard-.*: expected at least"),
        ({"rows": 10**15}, "rows: expected the sum of the rows of the shards"),
        ({"rows": 10**15, "shards.0.rows": 10**15}, "index.bytes: expected"),
        ({"rows": 10**14, "shards.0.rows": 10**14, "index.bytes": 128 + 24 * 10**14}, "shard-.*: expected at least"),
        ({"rows": 0, "shards": [], "index.bytes": 128, "teacher.width": 10**9}, "teacher: expected at most"),
    ],
    ids=str,
)
def test_a_claim_that_does_not_fit_the_bytes_is_refused_before_it_is_believed(
    small: TeacherCache, changes: dict[str, Any], said: str
) -> None:
    path = small.path / "manifest.json"
    manifest = json.loads(path.read_text())
    for place, value in changes.items():
        *way, last = [int(step) if step.isdecimal() else step for step in place.split(".")]
        part: Any = manifest
        for step in way:
            part = part[step]
        part[last] = value
    path.write_text(json.dumps(manifest | {"checksum": manifest_checksum(manifest)}))
    with pytest.raises(RailkdError, match=f"manifest.json' does not describe a cache .{said}"):
        TeacherCache.open(small.path)


def rewrite_header(path: Path, header: bytes) -> None:
    data = path.read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)


@pytest.mark.parametrize("kind", ["nested", "nested metadata", "no shape", "wide", "keys", "poolings", "not UTF-8"])
def test_a_shard_whose_header_claims_what_is_not_there_is_refused(small: TeacherCache, kind: str) -> None:
    (path,) = small.path.glob("shard-*")
    raw = path.read_bytes()
    header: Any = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    metadata = json.loads(header["__metadata__"]["railkd"])
    if kind == "wide":
        metadata["wide"] = {"mean": [10**9]}
    elif kind == "poolings":
        metadata["poolings"] = ["mean"] * 3
    elif kind == "keys":
        header["keys"]["shape"] = [12]
    elif kind == "no shape":
        del header["mean"]["shape"]
    header["__metadata__"]["railkd"] = "[" * 200_000 if kind == "nested metadata" else json.dumps(metadata)
    texts = {"nested": b"[" * 200_000, "not UTF-8": b"\xff"}
    rewrite_header(path, texts.get(kind, json.dumps(header).encode()))
    with pytest.raises(RailkdError, match=f"Cannot read the cache file '.*{path.name}'"):
        CacheWriter(small.path, INFO, identity(), ("mean", "cls")).__enter__()


def make_odd(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
@pytest.mark.parametrize("name", ["manifest.json", ".lock", "shard-0.safetensors"])
def test_what_is_no_plain_file_is_refused_in_words_and_left_alone(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (tmp_path / "elsewhere").write_text("not railkd's")
    make_odd(folder / name, kind)
    before = sorted(folder.rglob("*"))
    with pytest.raises(RailkdError, match=f"{name}'"), CacheWriter(folder, INFO, identity(), ("mean", "cls")) as writer:
        writer.add(*signals(3))
    assert set(before) <= set(folder.rglob("*")) and (tmp_path / "elsewhere").read_text() == "not railkd's"


def test_a_folder_with_the_name_of_a_temporary_file_is_no_obstacle(tmp_path: Path) -> None:
    make_odd(tmp_path / ".a.tmp", "folder")
    assert write(tmp_path, signals(3)).rows == 3 and (tmp_path / ".a.tmp" / "inside").is_dir()


THEIRS = ["manifest.json", "shard-x.safetensors", "shard-0123456789abcdef.safetensors", "index-x.npy", ".foo.tmp"]
THEIRS += [".manifest.json.tmp", "index-0123456789abcdef.npy", "notes.txt", ".shard-x.0123456789ab.00000000.tmp"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("content", [b"theirs", b'{"format": "theirs", "files": []}'])
def test_files_of_others_in_a_cache_folder_stay(
    tmp_path: Path, cache: TeacherCache, overwrite: bool, name: str, content: bytes
) -> None:
    """In an empty folder, and beside a cache; whatever looks like a file of a cache is refused in words."""
    for folder in (tmp_path / "empty", Path(shutil.copytree(cache.path, tmp_path / "cache"))):
        folder.mkdir(exist_ok=True)
        if folder.name == "cache" and name == "manifest.json":
            continue
        (folder / name).write_bytes(content)
        refused = name.startswith(("manifest", "shard-", "index-"))
        words = pytest.raises(RailkdError, match=f"{name}' has the name of a file of a cache, but railkd did not write")
        with (
            words if refused else nullcontext(),
            CacheWriter(folder, cache.info, cache.identity, cache.poolings, overwrite=overwrite),
        ):
            pass
        if not refused:
            assert TeacherCache.open(folder).rows == (0 if overwrite or folder.name == "empty" else cache.rows)
        assert (folder / name).read_bytes() == content
