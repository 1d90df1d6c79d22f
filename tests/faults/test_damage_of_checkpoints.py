"""A damaged checkpoint is never trusted: an older one takes its place, in words, and the run ends as it would have."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults.driver import Driver
from faults.runs import BY_STEPS, differences, left, room
from railkd.runtime.sealed import SEAL, find_damage, listed, remove, seal
from thorough import unless

LOUD = [word for word in BY_STEPS if word != "--quiet"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, base: Path, railkd: Driver) -> Path:
    """A run that was killed after its third checkpoint, at step 9 of 12. The best one is among them."""
    folder = room(base, tmp_path_factory.mktemp("killed") / "run")
    assert railkd(folder, "distill", *BY_STEPS, "--output", "out", fault="KILL@step:10")[0] == -9
    assert [path.name for path in sorted((folder / "out").glob("checkpoint-*"))] == [
        "checkpoint-3",
        "checkpoint-6",
        "checkpoint-9",
    ]
    return folder


def again(killed: Path, folder: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(killed, folder, symlinks=True))


def flip(path: Path, chance: random.Random) -> None:
    """Turn one bit of a file."""
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


FILES = ["config.json", "log_sums.json", "model.safetensors", "objective.safetensors", "optimizer.pt"]
FILES += ["rng_state.pth", "scheduler.pt", "tokenizer.json", "trainer_state.json", SEAL]
DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": lambda path: flip(path, random.Random(path.name)),
    "zeros": lambda path: path.write_bytes(path.read_bytes()[:-40] + bytes(min(40, path.stat().st_size))),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
}


def test_every_file_of_a_checkpoint_is_in_the_list(killed: Path) -> None:
    newest = killed / "out" / "checkpoint-9"
    names = {path.name for path in newest.iterdir()}
    assert set(FILES) <= names and listed(newest) == names


def test_every_file_can_be_read_by_those_who_could_read_a_file_of_open(killed: Path) -> None:
    (killed / "plain").write_text("")
    files = [path for path in (killed / "out").rglob("*") if path.is_file()]
    assert len(files) > 30 and {path.stat().st_mode for path in files} == {(killed / "plain").stat().st_mode}


@pytest.mark.parametrize("kind", DAMAGE)
def test_any_damage_to_any_file_is_found(killed: Path, tmp_path: Path, kind: str) -> None:
    for name in sorted(path.name for path in (killed / "out" / "checkpoint-9").iterdir()):
        copy = Path(shutil.copytree(killed / "out" / "checkpoint-9", tmp_path / name))
        assert find_damage(copy) is None
        DAMAGE[kind](copy / name)
        assert find_damage(copy) is not None, name


def test_a_flipped_bit_is_found_wherever_it_is(killed: Path, tmp_path: Path) -> None:
    chance = random.Random(7)
    copy = Path(shutil.copytree(killed / "out" / "checkpoint-9", tmp_path / "copy"))
    for path in sorted(copy.iterdir()):
        whole = path.read_bytes()
        for _ in range(8):
            flip(path, chance)
            assert find_damage(copy) is not None, path.name
            path.write_bytes(whole)
    assert find_damage(copy) is None


def resumed(railkd: Driver, folder: Path, by_steps: dict[str, Any]) -> str:
    """Resume a run, which must end as if nothing had happened; return its messages."""
    code, said = railkd(folder, "distill", *LOUD, "--output", "out", "--resume")
    assert code == 0, said
    assert differences(left(folder), by_steps) == []
    return said


@pytest.mark.parametrize(
    "name",
    unless(lambda name: name in ("optimizer.pt", SEAL), ["model.safetensors", "optimizer.pt", "rng_state.pth", SEAL]),
)
def test_a_run_resumes_from_the_checkpoint_before(
    tmp_path: Path, killed: Path, railkd: Driver, by_steps: dict[str, Any], name: str
) -> None:
    folder = again(killed, tmp_path / "run")
    flip(folder / "out" / "checkpoint-9" / name, random.Random(3))
    said = resumed(railkd, folder, by_steps)
    assert "checkpoint-9' is skipped: " in said and name in said, said
    assert not (folder / "out" / "checkpoint-9").exists() or find_damage(folder / "out" / "checkpoint-9") is None


def test_without_a_whole_checkpoint_a_run_starts_anew(
    tmp_path: Path, killed: Path, railkd: Driver, by_steps: dict[str, Any]
) -> None:
    folder = again(killed, tmp_path / "run")
    for path in sorted((folder / "out").glob("checkpoint-*")):
        flip(path / "objective.safetensors", random.Random(path.name))
    said = resumed(railkd, folder, by_steps)
    assert said.count("is skipped: ") == 3 and "objective.safetensors" in said, said


def test_the_best_checkpoint_is_compared_too(
    tmp_path: Path, killed: Path, railkd: Driver, by_steps: dict[str, Any]
) -> None:
    """The run loads it at its end; a newer checkpoint that rests on a damaged best one is skipped."""
    folder = again(killed, tmp_path / "run")
    best = json.loads((folder / "out" / "checkpoint-9" / "trainer_state.json").read_text())["best_global_step"]
    flip(folder / "out" / f"checkpoint-{best}" / "model.safetensors", random.Random(5))
    said = resumed(railkd, folder, by_steps)
    assert "model.safetensors is damaged" in said, said


def test_a_best_checkpoint_that_is_damaged_while_training_is_refused(
    tmp_path: Path, killed: Path, railkd: Driver, by_steps: dict[str, Any]
) -> None:
    """Between the start and the end of a run; the next --resume makes good for it."""
    folder = again(killed, tmp_path / "run")
    best = json.loads((folder / "out" / "checkpoint-9" / "trainer_state.json").read_text())["best_global_step"]
    path = folder / "out" / f"checkpoint-{best}" / "model.safetensors"
    assert railkd(folder, "distill", *BY_STEPS, "--output", "out", "--resume", fault="KILL@step:12")[0] == -9
    state = json.loads((folder / "out" / "checkpoint-9" / "trainer_state.json").read_text())
    assert state["best_global_step"] == best, "the case needs a best step before the last"
    flip(path, random.Random(6))
    code, said = railkd(folder, "distill", *BY_STEPS, "--output", "out", "--resume")
    assert code == 0, said
    assert differences(left(folder), by_steps) == []


def test_a_sealed_folder_gives_up_its_own_files_alone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "ours").write_text("a")
    seal(folder)
    assert listed(folder) == {"ours", SEAL} and find_damage(folder) is None
    (folder / "theirs").write_text("b")
    remove(folder, listed(folder))
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    (folder / "theirs").unlink()
    remove(folder, set())
    assert not folder.exists()


@pytest.mark.parametrize(
    "text",
    ["", "[", "[]", "{}", "null", '{"files": {}}', '{"format": "railkd sealed folder"}', "[" * 9999, '{"a": "b"}'],
)
def test_a_list_of_somebody_else_is_not_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / SEAL).write_text(text)
    (tmp_path / "a").write_text("mine")
    assert listed(tmp_path) == set() and find_damage(tmp_path) is not None


def test_the_list_of_an_older_railkd_knows_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("ours")
    (tmp_path / SEAL).write_text('{"a": 4}')
    assert find_damage(tmp_path) is None and listed(tmp_path) == {"a", SEAL}
    (tmp_path / "a").write_text("cut")
    assert find_damage(tmp_path) == "a has 3 bytes instead of 4"
