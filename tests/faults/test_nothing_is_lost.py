"""Files that railkd did not write are never lost, wherever they lie and whatever the command is."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import TrainerCallback

from faults.driver import Driver
from faults.runs import BY_STEPS, differences, left, room
from railkd.cli import main
from railkd.cli.verb import printer
from railkd.cli.verbs import JOBS
from railkd.jobs import distill
from thorough import unless

# ---- whatever stands where --------------------------------------------------------------------------

FILES = ["--train", "train.tsv", "--max-length", "16", "--quiet"]
TRAINING = [*FILES, "--max-steps", "1", "--no-bf16", "--keep-predictions", "answers", "--test", "dev.tsv"]
#: Each verb that writes, as a user types it.
_STUDENT = ["distill", "--teacher", "teacher", "--student-layers", "2", "--method", "kd", "--allow-weak-teacher"]
COMMANDS = {
    "finetune": ["finetune", "--model", "teacher", *TRAINING, "--output", "out"],
    "distill": [*_STUDENT, *TRAINING, "--output", "out"],
    "distill with a cache": [*_STUDENT, *TRAINING, "--output", "out", "--cache", "cache"],
    "cache": ["cache", "--teacher", "teacher", *FILES, "--cache", "cache"],
    "evaluate": ["evaluate", "--model", "teacher", "--test", "dev.tsv", "--quiet", "--output", "scores.json"],
    "predict": ["predict", "--model", "teacher", "--test", "dev.tsv", "--quiet", "--output", "said.tsv"],
    "report": ["report", "out", "--csv", "a.csv", "--markdown", "a.md"],
}
FLAGS = {"finetune": ["", "--overwrite", "--resume"], "cache": ["", "--overwrite"]}
FLAGS |= dict.fromkeys(("distill", "distill with a cache"), FLAGS["finetune"])
#: Flag -> what stands in the output folder, where it is not any of them.
ROOMS = {"--resume": ["killed"], "--overwrite": ["finished", "killed"]}
#: Names that a file of somebody else may have too.
OURS = ["config.yaml", "metrics.json", "draws.json", "gauges.json", "objective.safetensors", "files.json", ".lock"]
OURS += [
    "student",
    "model",
    "predictions",
    "cache",
    "checkpoint-1",
    "checkpoint-500",
    "checkpoint-mine",
    "manifest.json",
]
OURS += ["shard-x.safetensors", "shard-0123456789abcdef.safetensors", "index-x.npy", "model.safetensors", "dev.tsv"]
OURS += [".checkpoint-1.tmp", ".student.tmp", ".config.yaml.0123456789ab.00000000.tmp", "trainer_state.json", ".x.tmp"]
PLACES = ["", "out", "out/student", "out/model", "out/predictions", "out/checkpoint-1", "out/checkpoint-5"]
PLACES += ["out/cache", "cache", "out/mine", "mine", "", "out"]
names = st.one_of(st.sampled_from(OURS), st.from_regex(r"[a-z]{1,4}(\.[a-z]{1,3})?", fullmatch=True))
KINDS = ["file", "empty file", "folder", "folder with a file", "link", "link to a folder", "link to nothing"]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory, base: Path, railkd: Driver) -> dict[str, Path]:
    """Working directories without outputs, with finished ones, and with those of a run that was killed."""
    found = {}
    for name in ("empty", "finished", "killed"):
        found[name] = room(base, tmp_path_factory.mktemp(name) / "run")
        if name != "empty":
            fault = "KILL@open:metrics.json" if name == "killed" else None
            kept = ["--save-steps", "1"] if name == "killed" else []
            assert railkd(found[name], *COMMANDS["distill"], *kept, fault=fault)[0] in (0, -9)
            assert railkd(found[name], *COMMANDS["cache"])[0] == 0
    return found


def make(path: Path, kind: str, elsewhere: Path) -> None:
    """Put something of somebody else's at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind.startswith("folder"):
        path.mkdir()
        if kind != "folder":
            (path / "theirs").write_text("theirs")
    elif kind.startswith("link"):
        path.symlink_to({"link": elsewhere / "file", "link to a folder": elsewhere}.get(kind, elsewhere / "nothing"))
    else:
        path.write_text("theirs" if kind == "file" else "")


def seen(paths: Iterable[Path]) -> dict[Path, tuple[object, ...]]:
    """Return the kind and the content of each path."""
    found: dict[Path, tuple[object, ...]] = {}
    for path in paths:
        if path.is_symlink():
            found[path] = ("link", os.readlink(path))
        elif path.is_dir():
            found[path] = ("folder",)
        else:
            found[path] = (path.read_bytes(), path.stat().st_mode) if path.exists() else ("gone",)
    return found


@pytest.mark.parametrize("verb", COMMANDS)
def test_what_railkd_did_not_write_is_unchanged_after_every_verb(
    rooms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, verb: str
) -> None:
    ended: Counter[int] = Counter()

    @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def law(data: st.DataObject) -> None:
        flag = data.draw(st.sampled_from(FLAGS.get(verb, [""])))
        room = rooms[data.draw(st.sampled_from(ROOMS.get(flag, sorted(rooms))))]
        folder = Path(shutil.copytree(room, tmp_path_factory.mktemp("room") / "run", symlinks=True))
        (elsewhere := folder / "elsewhere").mkdir()
        (elsewhere / "file").write_text("kept")
        theirs = []
        for place in data.draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
            path = folder / place / data.draw(names)
            if not os.path.lexists(path) and not any(above.is_file() or above.is_symlink() for above in path.parents):
                make(path, data.draw(st.sampled_from(KINDS)), elsewhere)
                theirs += [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]
        inputs = [folder / name for name in ("teacher", "train.tsv", "dev.tsv")]
        before = seen([*theirs, *elsewhere.rglob("*"), *inputs])
        with chdir(folder):
            code = main([*COMMANDS[verb], *([flag] if flag else [])])
        assert seen(before) == before, flag
        ended[code] += 1

    law()
    assert set(ended) <= {0, 1, 2} and ended[0], ended  # not all were refused


# ---- two at once ------------------------------------------------------------------------------------


class At(TrainerCallback):
    """Does something after a step."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        if state.global_step == self.step:
            self.act()


@pytest.mark.parametrize(
    ("step", "second"),
    unless(
        [(1, "--overwrite"), (7, ""), (12, "--resume")].__contains__,
        itertools.product((1, 7, 12), ("", "--resume", "--overwrite")),
    ),
)
def test_two_starts_leave_one_whole_run_and_one_refusal(
    tmp_path: Path,
    base: Path,
    railkd: Driver,
    by_steps: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    second: str,
) -> None:
    folder = room(base, tmp_path / "run")
    monkeypatch.chdir(folder)
    words = ["distill", *map(str, BY_STEPS), "--output", "out"]
    answers: list[tuple[int, str]] = []
    other = At(step, lambda: answers.append(railkd(folder, *words, *second.split())))
    verb = dataclasses.replace(
        JOBS["distill"], run=lambda request: distill.distill(request, printer(request.options.quiet), [other])
    )
    assert main(words, {"distill": verb}) == 0
    ((code, said),) = answers
    assert code == 2 and ("another run is writing to 'out'" in said or not second), said
    assert differences(left(folder), by_steps) == []
