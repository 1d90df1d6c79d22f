"""kill -9 at chosen moments of a real process, then --resume: the run is that which was never killed, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from faults.driver import Driver
from faults.runs import BY_EPOCHS, BY_STEPS, differences, left, room
from railkd.runtime.sealed import seal
from thorough import unless

# 12 steps, 6 an epoch; saved at 3, 6, 9, 12.
MOMENTS = {
    "teacher pass, shard begun": "KILL@open:.shard-",
    "teacher pass, shard written": "KILL@rename:.shard-",
    "teacher pass, before the manifest": "KILL@rename:.manifest.json",
    "before the first checkpoint": "KILL@step:2",
    "between steps": "KILL@step:5",
    "at the end of an epoch": "KILL@step:6",
    "in the first epoch's last checkpoint": "KILL@open:.checkpoint-6.*/trainer_state.json",
    "checkpoint written, not renamed": "KILL@rename:.checkpoint-9.*.tmp",
    "checkpoint begun": "KILL@open:.checkpoint-9.*.tmp",
    "after the last step": "KILL@step:12",
    "student saved, no record yet": "KILL@open:metrics.json",
}


#: In a pass, in an epoch, at its end, in a checkpoint and after the training; make test-thorough kills at each moment.
TELLING = {
    "teacher pass, shard written",
    "between steps",
    "in the first epoch's last checkpoint",
    "checkpoint written, not renamed",
    "student saved, no record yet",
}


@pytest.mark.parametrize("moment", unless(TELLING.__contains__, MOMENTS), ids=str)
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, base: Path, railkd: Driver, by_steps: dict[str, Any], moment: str
) -> None:
    folder = room(base, tmp_path / "run")
    code, said = railkd(folder, "distill", *BY_STEPS, "--output", "out", fault=MOMENTS[moment])
    assert code == -9, said
    assert not (folder / "out" / "metrics.json").exists()
    code, said = railkd(folder, "distill", *BY_STEPS, "--output", "out", "--resume")
    assert code == 0, said
    assert differences(left(folder), by_steps) == []
    assert not list((folder / "out").glob(".*.tmp"))


def test_two_kills_in_one_run(tmp_path: Path, base: Path, railkd: Driver, by_steps: dict[str, Any]) -> None:
    folder = room(base, tmp_path / "run")
    assert railkd(folder, "distill", *BY_STEPS, "--output", "out", fault="KILL@step:5")[0] == -9
    assert railkd(folder, "distill", *BY_STEPS, "--output", "out", "--resume", fault="KILL@step:11")[0] == -9
    assert railkd(folder, "distill", *BY_STEPS, "--output", "out", "--resume")[0] == 0
    assert differences(left(folder), by_steps) == []


def test_an_incomplete_checkpoint_is_skipped_with_a_word(
    tmp_path: Path, base: Path, railkd: Driver, by_steps: dict[str, Any]
) -> None:
    folder = room(base, tmp_path / "run")
    assert railkd(folder, "distill", *BY_STEPS, "--output", "out", fault="KILL@step:10")[0] == -9
    weights = folder / "out" / "checkpoint-9" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    loud = [word for word in BY_STEPS if word != "--quiet"]
    code, said = railkd(folder, "distill", *loud, "--output", "out", "--resume")
    assert code == 0 and "checkpoint-9' is skipped: model.safetensors has" in said
    assert differences(left(folder), by_steps) == []


@pytest.mark.parametrize(
    ("name", "code", "step"),
    unless(
        [("INT", 130, 2), ("TERM", 143, 6)].__contains__,
        [("TERM", 143, 2), ("INT", 130, 2), ("HUP", 143, 2), ("TERM", 143, 6)],
    ),
)
def test_an_interruption_saves_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, base: Path, railkd: Driver, by_epochs: dict[str, Any], name: str, code: int, step: int
) -> None:
    """Saved by epochs: what stands at step 2 is there because of the signal. Step 6 ends an epoch."""
    folder = room(base, tmp_path / "run")
    got, said = railkd(folder, "distill", *BY_EPOCHS, "--output", "out", fault=f"{name}@step:{step}")
    assert got == code, said
    assert "with --resume to continue from the newest checkpoint in 'out'" in said and "Traceback" not in said
    assert [path.name for path in (folder / "out").glob("checkpoint-*")] == [f"checkpoint-{step}"]
    got, said = railkd(folder, "distill", *BY_EPOCHS, "--output", "out", "--resume")
    assert got == 0, said
    assert differences(left(folder), by_epochs) == []


@pytest.mark.parametrize(("name", "code"), unless(("TERM", 143).__eq__, [("TERM", 143), ("INT", 130), ("HUP", 143)]))
def test_an_interrupted_teacher_pass_is_continued(
    tmp_path: Path, base: Path, railkd: Driver, by_steps: dict[str, Any], name: str, code: int
) -> None:
    folder = room(base, tmp_path / "run")
    got, said = railkd(folder, "distill", *BY_STEPS, "--output", "out", fault=f"{name}@open:.shard-")
    assert got == code and "to continue from the newest checkpoint in 'out'" in said and "Traceback" not in said
    assert not list((folder / "out" / "cache").glob(".*.tmp"))
    got, said = railkd(folder, "distill", *BY_STEPS, "--output", "out", "--resume")
    assert got == 0, said
    assert differences(left(folder), by_steps) == []
    words = ["cache", "--teacher", "teacher", "--train", "train.tsv", "--cache", "cache"]
    got, said = railkd(folder, *words, fault=f"{name}@open:.shard-")
    assert got == code and "finished rows are kept. Fix: repeat the command to continue" in said
    assert railkd(folder, *words)[0] == 0 and railkd(folder, "cache", "--verify", "--cache", "cache")[0] == 0


def test_a_state_after_the_best_epoch_is_compared(
    tmp_path: Path, base: Path, railkd: Driver, by_steps: dict[str, Any]
) -> None:
    """The laws above see an optimizer that went on otherwise, though the student of the best epoch hides it."""
    folder = room(base, tmp_path / "run")
    assert railkd(folder, "distill", *BY_STEPS, "--output", "out", fault="KILL@step:11")[0] == -9
    newest = folder / "out" / "checkpoint-9"
    state = torch.load(newest / "optimizer.pt", weights_only=True)
    for kept in state["state"].values():
        kept["exp_avg"] += 1e-4
    torch.save(state, newest / "optimizer.pt")
    seal(newest)
    assert railkd(folder, "distill", *BY_STEPS, "--output", "out", "--resume")[0] == 0
    found = differences(left(folder), by_steps)
    assert {"checkpoint-12/model.safetensors", "checkpoint-12/optimizer.pt"} <= set(found)
