"""A cache is copied to a folder and to the hub, and back: verified, without what is there, and merged by rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from railkd.errors import RailkdError, RunFailed
from railkd.teacher import CacheWriter, TeacherCache
from railkd.teacher.exchange import STAGING, pull, push
from railkd.teacher.manifest import manifest_checksum
from railkd.teacher.places import FolderPlace, HubPlace, Place
from stand_in_hub import Hub
from teacher.made import INFO, identity, read, same, signals, write
from teacher.test_outputs_alone import add_states, outputs, write_outputs

#: What a copy may hold: nothing else can leave the machine.
KINDS = {"README.md", "manifest.json", ".lock", "index", "shard"}


def numbers(start: int, rows: int) -> dict[str, np.ndarray]:
    _, logits, states = signals(rows, start=start)
    return states | {"logits": logits}


@pytest.fixture(params=["folder", "hub"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Place]:
    """The same place anew, as another command would see it."""
    if request.param == "folder":
        return lambda: FolderPlace(tmp_path / "there" / "copy")
    hub: Hub = request.getfixturevalue("hub")
    return lambda: HubPlace("me/x", token="hf_x", endpoint=hub.endpoint)


def test_what_is_pushed_comes_back_and_only_new_shards_are_copied(place: Callable[[], Place], tmp_path: Path) -> None:
    cache = write(tmp_path / "a", signals(4), signals(3, start=4))
    done = push(cache.path, place())
    assert (done.files, done.kept, done.rows) == (2, 0, 7)
    assert {name.partition("-")[0] for name in place().sizes()} <= KINDS
    back = pull(place(), tmp_path / "b")
    assert (back.files, back.kept, back.rows, back.new) == (2, 0, 7, 7)
    assert not (tmp_path / "b" / STAGING).exists()
    for path in [*cache.path.glob("shard-*"), *cache.path.glob("index-*"), cache.path / "manifest.json"]:
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()
    assert same(read(TeacherCache.open(tmp_path / "b"), signals(7)[0]), numbers(0, 7))
    again = push(cache.path, place())
    assert (again.files, again.kept) == (0, 2)

    write(cache.path, signals(2, start=7))  # the cache grows
    done = push(cache.path, place())
    assert (done.files, done.kept, done.rows) == (1, 2, 9)
    assert sum(name.startswith("index-") for name in place().sizes()) == 1
    back = pull(place(), tmp_path / "b")
    assert (back.files, back.kept, back.rows, back.new) == (1, 2, 9, 2)
    TeacherCache.open(tmp_path / "b").verify()
    assert pull(place(), tmp_path / "b").files == 0


def test_the_card_says_whose_numbers_they_are_and_keeps_what_others_wrote(tmp_path: Path) -> None:
    cache, there = write(tmp_path / "a", signals(4), dtype="int8"), tmp_path / "copy"
    push(cache.path, FolderPlace(there))
    text = (there / "README.md").read_text()
    for part in ("States can leak text", "no text and no\nweights", "mean, cls of 3 blocks of 4, int8", "| rows | 4 |"):
        assert part in text
    assert "## Licence" in text and cache.identity.content() in text
    (there / "README.md").write_text(text.replace("State here the licences", "MIT. Formerly: state the licences"))
    write(cache.path, signals(2, start=4), dtype="int8")
    push(cache.path, FolderPlace(there))
    text = (there / "README.md").read_text()
    assert "MIT. Formerly" in text and "| rows | 6 |" in text and "| rows | 4 |" not in text


def test_the_caches_of_two_machines_become_one(place: Callable[[], Place], tmp_path: Path) -> None:
    ours = write(tmp_path / "a", signals(4), signals(4, start=4))  # rows 0 to 7
    theirs = write(tmp_path / "b", signals(5, start=6), signals(3, start=20))  # 6 to 10, 20 to 22
    push(theirs.path, place())
    with pytest.raises(RailkdError, match="that lacks 6 of 8. Fix: run 'railkd cache pull' into"):
        push(ours.path, place())
    back = pull(place(), ours.path)
    assert (back.rows, back.new) == (14, 6)
    merged = TeacherCache.open(ours.path)
    merged.verify()
    for start, rows in ((0, 11), (20, 3)):
        assert same(read(merged, signals(rows, start=start)[0]), numbers(start, rows))
    done = push(ours.path, place())
    assert done.rows == 14 and done.kept == 1  # the shard of rows 20 to 22 went there and back as it was
    assert pull(place(), theirs.path).rows == 14
    TeacherCache.open(theirs.path).verify()
    assert sum(name.startswith("shard-") for name in place().sizes()) == 4


def test_rows_of_outputs_alone_are_copied_as_they_are(tmp_path: Path) -> None:
    write_outputs(tmp_path / "a", 0, 6)
    push(tmp_path / "a", FolderPlace(tmp_path / "copy"))
    pull(FolderPlace(tmp_path / "copy"), tmp_path / "b")
    mixed = add_states(tmp_path / "a", 0, 4)  # a second pass over some of the rows
    there = FolderPlace(tmp_path / "mixed")
    push(mixed.path, there)
    pull(there, tmp_path / "c")
    back = TeacherCache.open(tmp_path / "c")
    back.verify()
    keys = signals(6)[0]
    np.testing.assert_array_equal(outputs(back, keys), signals(6)[1])
    assert back.missing(keys, states=True).tolist() == [4, 5]
    with pytest.raises(RailkdError, match="the poolings are none in the cache, mean, cls here"):
        pull(there, tmp_path / "b")


@pytest.mark.parametrize("change", [{"weights": "other"}, {"max_length": 64}, {"dtype": "int8"}], ids=str)
def test_another_teacher_is_refused_both_ways(change: dict[str, Any], tmp_path: Path) -> None:
    ours, there = write(tmp_path / "a", signals(3)), FolderPlace(tmp_path / "copy")
    with CacheWriter(tmp_path / "b", INFO, identity(**change), ("mean", "cls")) as writer:
        writer.add(*signals(2, start=9))
    push(ours.path, there)
    before = {path.name: path.read_bytes() for path in there.folder.iterdir()}
    for work in (lambda: push(tmp_path / "b", there), lambda: pull(there, tmp_path / "b")):
        with pytest.raises(
            RailkdError, match="Expected two caches of one teacher run, got the cache '.*b' .*Fix: name"
        ):
            work()
    assert {path.name: path.read_bytes() for path in there.folder.iterdir()} == before
    assert TeacherCache.open(tmp_path / "b").rows == 2


def test_an_interrupted_pull_goes_on_with_what_has_arrived(hub: Hub, tmp_path: Path) -> None:
    cache = write(tmp_path / "a", signals(2), signals(2, start=2), signals(2, start=4))
    there = HubPlace("me/x", token="hf_x", endpoint=hub.endpoint)
    push(cache.path, there)
    hub.allowed, hub.refused = 4, 1  # manifest, index and two shards
    with pytest.raises(RunFailed, match="the hub's data set 'me/x' did not answer .*Files that have arrived are kept"):
        pull(HubPlace("me/x", endpoint=hub.endpoint), tmp_path / "b")
    assert not TeacherCache.is_built(tmp_path / "b")
    hub.downloads.clear()
    assert pull(HubPlace("me/x", endpoint=hub.endpoint), tmp_path / "b").rows == 6
    assert sum(name.startswith("shard-") for name in hub.downloads) == 1
    assert same(read(TeacherCache.open(tmp_path / "b"), signals(6)[0]), numbers(0, 6))


def test_a_damaged_file_is_refused_and_nothing_of_it_arrives(tmp_path: Path) -> None:
    cache, there = write(tmp_path / "a", signals(4)), FolderPlace(tmp_path / "copy")
    push(cache.path, there)
    flips = 0
    for path in sorted(there.folder.glob("*-*")):
        data = path.read_bytes()
        for at in range(0, len(data), 97):
            flips += 1
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
            with pytest.raises(RailkdError, match="What came from the folder '.*copy' cannot be used"):
                pull(there, tmp_path / "b")
            assert not list((tmp_path / "b").glob("[!.]*-*")) and not list((tmp_path / "b" / STAGING).glob("shard-*"))
        path.write_bytes(data[:-1])
        with pytest.raises(RailkdError, match=f"Expected {len(data):,} bytes of '{path.name}' in the folder"):
            pull(there, tmp_path / "b")
        path.write_bytes(data)
    assert flips > 10
    assert pull(there, tmp_path / "b").rows == 4
    (shard,) = cache.path.glob("shard-*")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(RailkdError, match="was altered"):  # nor is a damaged cache pushed
        push(cache.path, FolderPlace(tmp_path / "third"))


def rewrite(folder: Path, **changes: Any) -> None:
    """Change a manifest so that its checksum fits, as someone who knows the format would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(manifest | {"checksum": manifest_checksum(manifest)}))


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "shard-0.pkl", "a/shard-0123456789abcdef.safetensors", ""]
)
def test_a_manifest_that_names_other_files_is_refused(name: str, tmp_path: Path) -> None:
    cache, there = write(tmp_path / "a", signals(4)), FolderPlace(tmp_path / "copy")
    push(cache.path, there)
    (entry,) = json.loads((there.folder / "manifest.json").read_text())["shards"]
    rewrite(there.folder, shards=[entry | {"file": name}])
    with pytest.raises(RailkdError, match="Expected names such as shard-.*railkd did not write it"):
        pull(there, tmp_path / "b")


def test_links_pickles_and_other_folders_are_refused(tmp_path: Path) -> None:
    cache, there = write(tmp_path / "a", signals(4)), FolderPlace(tmp_path / "copy")
    push(cache.path, there)
    (shard,), (index,) = there.folder.glob("shard-*"), there.folder.glob("index-*")
    data = index.read_bytes()
    np.save(index, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    index.write_bytes(index.read_bytes().ljust(len(data), b" ")[: len(data)])
    with pytest.raises(RailkdError, match="What came from .* cannot be used"):
        pull(there, tmp_path / "b")
    index.write_bytes(data)
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RailkdError, match=f"bytes of '{shard.name}' in the folder"):
        pull(there, tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / STAGING).symlink_to(tmp_path / "a")
    with pytest.raises(RailkdError, match="Expected no link at"):
        pull(there, tmp_path / "b")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(RailkdError, match="with other files .'thesis.txt'."):
        push(cache.path, FolderPlace(tmp_path / "mine"))
    with pytest.raises(RailkdError, match="Expected a teacher cache in the folder '.*mine', got none"):
        pull(FolderPlace(tmp_path / "mine"), tmp_path / "d")


@pytest.mark.parametrize("first", ["new", "known", "in parts"])
def test_a_push_that_another_came_before_drops_none_of_its_rows(first: str, hub: Hub, tmp_path: Path) -> None:
    """The other push ends after this one has compared, or between two commits of this one."""
    ours = write(
        tmp_path / "a", signals(4), *(signals(1, start=20 + n) for n in range(50 if first == "in parts" else 1))
    ).path
    theirs = write(tmp_path / "b", signals(4), signals(3, start=8)).path

    class Late(HubPlace):
        def store(self, paths: Any, stale: Any = ()) -> None:
            hub.between = lambda: push(theirs, HubPlace("me/x", token="hf_x", endpoint=hub.endpoint))
            if first != "in parts":
                hub.run_between()
            super().store(paths, stale)

    if first == "known":
        push(write(tmp_path / "c", signals(4)).path, HubPlace("me/x", token="hf_x", endpoint=hub.endpoint))
    with pytest.raises(RunFailed, match="another push came between, and its rows stay. Fix: repeat the command"):
        push(ours, Late("me/x", token="hf_x", endpoint=hub.endpoint))
    assert pull(HubPlace("me/x", endpoint=hub.endpoint), tmp_path / "back").rows == 7
    with pytest.raises(RailkdError, match="lacks 3 of 7"):  # repeated, it says what to do
        push(ours, HubPlace("me/x", token="hf_x", endpoint=hub.endpoint))


def test_a_new_data_set_is_asked_for_twice_whatever_the_number_of_shards(hub: Hub, tmp_path: Path) -> None:
    cache = write(tmp_path / "a", *(signals(1, start=start) for start in range(5)))
    assert push(cache.path, HubPlace("me/x", token="hf_x", endpoint=hub.endpoint)).files == 5
    assert hub.listings == 2  # before and after it is made


@pytest.mark.parametrize(
    ("gated", "said"),
    [("", "there is no such data set, or no access to it"), ("GatedRepo", "got none: it is gated")],
    ids=["none or private", "gated"],
)
def test_a_pull_without_access_says_so_and_makes_no_folder(gated: str, said: str, hub: Hub, tmp_path: Path) -> None:
    hub.gated = gated
    with pytest.raises(RailkdError, match=said):
        pull(HubPlace("me/x", endpoint=hub.endpoint), tmp_path / "b")
    assert not (tmp_path / "b").exists()
