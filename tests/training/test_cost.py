"""The cost of a step, counted in operations, casts and page faults. No clock can make these tests fail."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from railkd.models.distiller import Distiller
from railkd.models.student import make_student
from railkd.teacher import LiveTeacher, TeacherCache


class Operations(TorchDispatchMode):
    """Counts every tensor operation run inside, and the numbers it makes, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.numbers: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func).removeprefix("aten.").split(".")[0]
        self.calls[name] += 1
        self.numbers[name] += out.numel() if isinstance(out, torch.Tensor) else 0
        return out


def step_of(method: str, blocks: int, *, padded: bool) -> Operations:
    """Forward and backward of one batch, states from a cache."""
    student = make_student(tiny.make_model(2 * blocks, width=32, dropout=0.0), blocks)
    distiller = Distiller.from_method(
        method, student, (2 * blocks, 32), **({"shared_size": 8} if "rail" in method else {})
    )
    ids = torch.randint(5, 20, (8, 12))
    batch: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.zeros(8).long()}
    if padded:
        batch["attention_mask"][:4, 9:] = 0
    if method != "finetune":
        states = torch.randn(8, 2 * blocks, 32, dtype=torch.float16)
        batch |= {"teacher_logits": torch.randn(8, 2), "teacher_states": states, "draw": torch.arange(1, blocks)}
    distiller.train()
    with Operations() as counted:
        distiller(**batch)[0].backward()
    return counted


@pytest.mark.parametrize("padded", [False, True])
def test_distilling_adds_few_operations_to_a_step_and_few_to_each_block(padded: bool) -> None:
    extra = {}
    for blocks in (3, 6):
        plain, rail = (step_of(method, blocks, padded=padded) for method in ("finetune", "rail-kd-l"))
        extra[blocks] = rail.calls.total() - plain.calls.total()
        # A gather of maps writes a gradient of all maps and adds into it, row by row: three milliseconds a step.
        assert rail.calls["index_put_"] == plain.calls["index_put_"] == 0
        assert rail.calls["masked_fill"] == plain.calls["masked_fill"]  # four times the price of a product on a CPU
        # Pooling, forward and backward, of the blocks that are matched and not of the last one.
        assert rail.calls["bmm"] - plain.calls["bmm"] == 2 * (blocks - 1) + 3  # three: gradients through the maps
    each = (extra[6] - extra[3]) / 3
    assert each <= 12, extra
    assert extra[6] <= 190, extra


def test_a_teacher_pass_casts_each_weight_once(tmp_path: Path, rows: Dataset, tokenizer: Any) -> None:
    """Under autocast, however many batches: cast at every batch, the weights cost as much as the smaller batches."""
    teacher = tiny.make_model(4)
    weights = sum(module.weight.numel() for module in teacher.modules() if isinstance(module, torch.nn.Linear))
    cast = {}
    for batch_size in (22, 2):
        with Operations() as counted:
            folder = tmp_path / str(batch_size)
            TeacherCache.build(teacher, rows, folder, tokenizer=tokenizer, bf16=True, batch_size=batch_size)
        cast[batch_size] = counted.numbers["_to_copy"]
    activations = cast[22] - weights
    assert cast[2] < weights + 1.5 * activations


def test_calls_in_a_row_give_the_numbers_of_calls_alone(tokenizer: Any) -> None:
    live = LiveTeacher(tiny.make_model(4), tokenizer, bf16=True)
    batches = [dict(tokenizer([text], return_tensors="pt")) for text in ("the film was good", "so dull")]
    alone = [live.run(batch, ("mean",)) for batch in batches]
    with live.in_a_row():
        together = [live.run(batch, ("mean",)) for batch in batches]
    for (logits, states), (same_logits, same_states) in zip(alone, together, strict=True):
        assert torch.equal(logits, same_logits) and torch.equal(states["mean"], same_states["mean"])


FAULTS = """
import resource, sys, torch
from railkd.runtime import hardware
if sys.argv[1] == "kept":
    assert hardware.keep_freed_memory()
table = torch.nn.Embedding(60_000, 200)  # its gradient has 48 MB, above what glibc keeps by itself
ids = torch.arange(64)
for step in range(12):
    if step == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    table(ids).sum().backward()
    table.zero_grad()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tells glibc what to keep")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    """Page faults of eight steps: a gradient that is mapped anew at each costs thousands, or tens in huge pages."""
    faults = {}
    for how in ("kept", "given back"):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    assert faults["kept"] < 0.5 * faults["given back"], faults


def test_frozen_word_embeddings_stay_and_all_else_moves(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    trainer = tiny.make_trainer(
        tmp_path, cache, rows, tokenizer, student=tiny.make_small(tiny.make_model(4, seed=11)), freeze_embeddings=True
    )
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    moved = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in moved if "word_embeddings" in name]
    assert [name for name in moved if "position_embeddings" in name and "layer.0" not in name] and len(moved) > 20
