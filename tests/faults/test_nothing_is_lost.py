"""What railkd did not write is never lost, whatever stands where and whatever it is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from faults.driver import Driver
from faults.runs import BY_STEPS, differences, left, room
from railkd.cli import main
from railkd.cli.verb import printer
from railkd.cli.verbs import JOBS
from railkd.jobs import distill


class At(TrainerCallback):
    """Does something after a step."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> None:
        if state.global_step == self.step:
            self.act()


@pytest.mark.parametrize("step", [1, 7, 12])
@pytest.mark.parametrize("second", [[], ["--resume"], ["--overwrite"]], ids=str)
def test_two_starts_leave_one_whole_run_and_one_refusal(
    tmp_path: Path,
    base: Path,
    railkd: Driver,
    by_steps: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    second: list[str],
) -> None:
    folder = room(base, tmp_path / "run")
    monkeypatch.chdir(folder)
    words = ["distill", *map(str, BY_STEPS), "--output", "out"]
    answers: list[tuple[int, str]] = []
    other = At(step, lambda: answers.append(railkd(folder, *words, *second)))
    verb = dataclasses.replace(
        JOBS["distill"], run=lambda request: distill.distill(request, printer(request.options.quiet), [other])
    )
    assert main(words, {"distill": verb}) == 0
    ((code, said),) = answers
    assert code == 2 and ("another run is writing to 'out'" in said or not second), said
    assert differences(left(folder), by_steps) == []
