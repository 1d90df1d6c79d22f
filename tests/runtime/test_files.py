"""Files that railkd writes: complete or absent, never through a link, with ordinary permissions."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from railkd.runtime.files import (
    is_temporary,
    sync_all,
    temporary_beside,
    usual_permissions,
    write_bytes,
    write_json,
    write_text,
)


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path, durable: bool) -> None:
    write_text(tmp_path / "a.txt", "old, longer", durable=durable)
    write_text(tmp_path / "a.txt", "néw\n", durable=durable)
    assert (tmp_path / "a.txt").read_bytes() == "néw\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_json_is_readable_and_ends_its_line(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "café"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "name": "café"\n}\n'


def test_permissions_are_those_of_open(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "ours", b"")
        (tmp_path / "plain").write_bytes(b"")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"ours": 0o640, "plain": 0o640}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_what_others_write_gets_the_permissions_of_open(tmp_path: Path, umask: int) -> None:
    (tmp_path / "before").write_bytes(b"")
    (tmp_path / "before").chmod(0o604)
    old = os.umask(umask)
    try:
        with usual_permissions(tmp_path):
            safetensors.numpy.save_file({"a": np.zeros(2)}, tmp_path / "new")
            (tmp_path / "before").chmod(0o600)  # as a library does that writes a new file and renames it
        (tmp_path / "plain").write_bytes(b"")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"new": 0o666 & ~umask, "plain": 0o666 & ~umask, "before": 0o604}


@pytest.mark.parametrize("name", ["metrics.json", "é" * 120, "a\nb", "checkpoint-3", ".tmp"])
def test_a_temporary_name_is_known_and_never_the_same(tmp_path: Path, name: str) -> None:
    names = {temporary_beside(tmp_path / name) for _ in range(50)}
    assert len(names) == 50 and all(map(is_temporary, names))
    assert all(path.parent == tmp_path and path.name.startswith(".") for path in names)
    assert temporary_beside(tmp_path / name, 7) == temporary_beside(tmp_path / name, 7)


OTHERS = [".a.tmp", ".checkpoint-3.tmp", ".metrics.json.0123456789abcdef.tmp", "a.tmp", ".a.0123456789ab.00000000.tmp"]


@pytest.mark.parametrize("name", OTHERS)
def test_temporary_files_of_others_are_not_taken_for_ours(name: str) -> None:
    assert not is_temporary(Path(name))


def test_a_link_is_replaced_and_what_it_names_is_untouched(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("kept")
    (tmp_path / "out").symlink_to(tmp_path / "secret")
    write_text(tmp_path / "out", "new")
    assert (tmp_path / "secret").read_text() == "kept"
    assert not (tmp_path / "out").is_symlink() and (tmp_path / "out").read_text() == "new"


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_text(tmp_path / "folder", "x")  # a folder cannot be replaced by a file
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "\ud800")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "folder"]


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    name = "é" * 127
    write_text(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Whoever renames last wins; a mixture or an error would mean that they share a temporary file."""
    texts = [letter * 100_000 for letter in "abcdef"]
    failed: list[BaseException] = []

    def write(text: str) -> None:
        try:
            for _ in range(20):
                write_text(tmp_path / "shared", text)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=[text]) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and (tmp_path / "shared").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_with_folders_can_be_synced(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write_text(tmp_path / "deep" / "er" / "file", "x")
    sync_all(tmp_path)
