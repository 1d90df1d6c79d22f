"""Files of another user are refused before any teacher runs, with the path, its owner and the flag that helps."""

from __future__ import annotations

import io
import os
import shutil
from contextlib import chdir, redirect_stderr
from pathlib import Path

import pytest

from faults.runs import prepare
from railkd.cli import main

FILES = ["--teacher", "teacher", "--train", "train.tsv", "--max-length", "16"]
CACHE = ["cache", *FILES, "--cache", "kept/cache", "--quiet"]
DISTILL = ["distill", *FILES, "--student-layers", "2", "--method", "kd", "--allow-weak-teacher", "--max-steps", "1"]
DISTILL += ["--no-bf16", "--cache", "kept/cache", "--output", "mine/out", "--quiet"]
CHECK = ["check", *FILES, "--student-layers", "2", "--allow-weak-teacher", "--cache", "kept/cache", "--quiet"]


def as_somebody(folder: Path, words: list[str]) -> tuple[int, str]:
    """Run a command in a process without privileges; its exit code and what it said."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said, code = io.StringIO(), 99
        try:
            with chdir(folder), redirect_stderr(said):
                if os.getuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                code = main(words)
        finally:
            os.write(writer, said.getvalue().encode()[-4000:])
            os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return os.waitstatus_to_exitcode(status), pipe.read()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files, a folder ``mine`` that everybody may write, and a folder ``kept`` with a finished cache."""
    folder = prepare(tmp_path_factory.mktemp("shared"))
    (folder / "mine").mkdir()
    with chdir(folder):
        assert main(CACHE) == 0
    return folder


@pytest.fixture
def room(built: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(built, tmp_path / "room"))
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o055)
    (folder / "mine").chmod(0o777)
    (folder / "teacher" / "model.safetensors").chmod(0o644)
    (folder / "kept" / "cache" / ".lock").unlink(missing_ok=True)
    for closed in (folder / "kept" / "cache", folder / "kept"):
        closed.chmod(0o555)
    return folder


def test_a_cache_of_somebody_else_is_read(room: Path) -> None:
    assert as_somebody(room, DISTILL) == (0, "")
    assert as_somebody(room, CACHE) == (0, "")


@pytest.mark.parametrize("words", [CACHE, DISTILL], ids=["cache", "distill"])
def test_a_cache_of_somebody_else_that_must_grow_is_refused_before_the_pass(room: Path, words: list[str]) -> None:
    with (room / "train.tsv").open("a") as file:
        file.write("a row that the cache lacks\tpos\n")
    code, said = as_somebody(room, words)
    assert code == 2 and "--cache: 'kept/cache' belongs to the user" in said and "Fix: name another --cache" in said


@pytest.mark.parametrize("words", [CACHE, DISTILL, CHECK], ids=["cache", "distill", "check"])
def test_a_cache_where_nothing_may_be_written_is_refused_first(room: Path, words: list[str]) -> None:
    words = ["kept/new" if word == "kept/cache" else word for word in words]
    code, said = as_somebody(room, words)
    assert code == 2 and f"--cache: '{room / 'kept'}' belongs to the user" in said and said.count("\n") == 1


@pytest.mark.parametrize("words", [CACHE, DISTILL, CHECK], ids=["cache", "distill", "check"])
@pytest.mark.parametrize("name", ["manifest.json", "shard-*.safetensors", "."])
def test_a_cache_that_may_not_be_read_is_refused_first(room: Path, words: list[str], name: str) -> None:
    (path,) = (room / "kept" / "cache").glob(name) if name != "." else [room / "kept" / "cache"]
    path.chmod(0o000)
    code, said = as_somebody(room, words)
    path.chmod(0o755)
    assert code == 2 and f"--cache: '{path.relative_to(room)}' belongs to the user" in said and "chmod -R a+rX" in said


@pytest.mark.parametrize("words", [CACHE, DISTILL, CHECK], ids=["cache", "distill", "check"])
def test_weights_of_somebody_else_are_refused_first(room: Path, words: list[str]) -> None:
    (room / "teacher" / "model.safetensors").chmod(0o600)
    code, said = as_somebody(room, words)
    assert code == 2 and "--teacher: no permission to read 'teacher/model.safetensors' (owner" in said
