"""Training that runs out of memory ends in words: what was asked for, and the flags that help, with their values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import BertForSequenceClassification

from railkd import TeacherCache
from railkd.errors import RunFailed
from tiny import bert_config
from training.runs import trainer_of

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79 GiB")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)
MPS = RuntimeError("MPS backend out of memory (MPS allocated: 1 GB). Tried to allocate 512.00 MB on private pool.")


class Student(BertForSequenceClassification):
    """A student whose pass fails at its third step."""

    error: BaseException
    steps = 0

    def forward(self, *args: Any, **inputs: Any) -> Any:
        self.steps += 1
        if self.steps == 3:
            raise self.error
        return super().forward(*args, **inputs)


def train(folder: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, error: BaseException, **more: Any) -> None:
    torch.manual_seed(0)
    student = Student(bert_config(3))
    student.error = error
    trainer_of(folder, cache, rows, tokenizer, student=student, **more).train()


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (CUDA, ", when 2.50 GiB were"),
        (CPU, ", when 9 bytes were"),
        (MPS, ", when 512.00 MB were"),
        (MemoryError(), ". Fix"),
    ],
    ids=["cuda", "cpu", "mps", "python"],
)
def test_it_says_what_was_asked_for_and_what_helps_this_run(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, error: BaseException, asked: str
) -> None:
    with pytest.raises(RunFailed) as found:
        train(tmp_path, cache, rows, tokenizer, error, gradient_accumulation_steps=2, max_length=64)
    said = str(found.value)
    assert said.startswith("Memory ran out in training on cpu") and asked in said
    assert "--batch-size 2 --gradient-accumulation-steps 4 (now 4 and 2)" in said
    assert "--max-length 32 (now 64)" in said and "--activation-checkpointing" in said and "--bf16" in said
    assert found.value.__cause__ is error


def test_flags_that_are_set_are_not_offered(tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any) -> None:
    options: dict[str, Any] = {"per_device_train_batch_size": 1, "max_length": 16, "freeze_embeddings": True}
    with pytest.raises(RunFailed, match=r"Fix, any of these: a student of fewer blocks\.$"):
        train(tmp_path, cache, rows, tokenizer, CUDA, **options, bf16=True, activation_checkpointing=True)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), KeyError("x"), KeyboardInterrupt()])
def test_other_errors_pass(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, error: BaseException
) -> None:
    with pytest.raises(type(error)) as found:
        train(tmp_path, cache, rows, tokenizer, error)
    assert found.value is error
