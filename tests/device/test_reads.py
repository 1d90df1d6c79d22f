"""Host reads in training are counted, with the line of code that reads."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

import tiny
from device.reads import COPIES, HostReads
from railkd import TeacherCache
from railkd.objectives import METHODS

QUIET = 4


class QuietSteps(TrainerCallback):
    """Counts host reads of some steps that neither log, save nor evaluate."""

    def __init__(self) -> None:
        self.reads, self.steps, self._stack = HostReads(), 0, contextlib.ExitStack()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            self._stack.enter_context(self.reads)
        elif state.global_step == 2 + QUIET:
            self._stack.close()
            self.steps = QUIET


def quiet_reads(
    folder: Path, teacher: Any, rows: Dataset, tokenizer: Any, device: torch.device, **settings: Any
) -> HostReads:
    """The host reads of four quiet steps of a training."""
    counted = QuietSteps()
    settings = {"use_cpu": device.type == "cpu", "logging_strategy": "no", "max_steps": 3 + QUIET, **settings}
    student = tiny.make_small(tiny.make_model(4, seed=11), 3)
    trainer = tiny.make_trainer(folder, teacher, rows, tokenizer, student=student, callbacks=[counted], **settings)
    trainer.train()
    assert counted.steps == QUIET
    return counted.reads


def test_every_kind_of_read_is_seen(device: torch.device) -> None:
    values = torch.arange(4.0, device=device)
    with HostReads() as reads:
        float(values[1])
        bool(values.isfinite().all())
        values[2].item()
        int(values[3])
        torch.equal(values, values)
        values[values > 1]
        values.nonzero()
        (values + 1).sum()  # reads nothing
    assert sum(reads.found.values()) == 7
    with HostReads() as copies:
        values.tolist()
        values.cpu()
        values.cpu().numpy()
        values * 2
    assert sum(number for (_, name, _), number in copies.found.items() if name in COPIES) == 4


@pytest.mark.parametrize("method", METHODS)
def test_reads_of_quiet_steps_are_counted_for_every_method(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device, method: str
) -> None:
    """pytest -rP shows the table. Trainer itself reads at least once a step, so an empty count is a broken one."""
    teacher = None if method == "finetune" else cache
    reads = quiet_reads(tmp_path, teacher, rows, tokenizer, device, method=method)
    for (package, name, place), number in sorted(reads.found.items()):
        print(f"{number / QUIET:g} a step: {package} {name} {place}")
    assert reads.count("railkd") + reads.count("transformers") + reads.count("accelerate") >= QUIET
