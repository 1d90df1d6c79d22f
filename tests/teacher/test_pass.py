"""The teacher pass: batches by tokens that are halved when memory runs out, and results written meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import BertForSequenceClassification

from railkd.errors import RailkdError
from railkd.teacher import TeacherCache
from railkd.teacher.batches import plan_batches
from railkd.teacher.runner import WritingThread
from teacher.made import read_all
from tiny import bert_config, make_model, text_rows


@pytest.mark.parametrize("tokens", [None, 1, 7, 40, 10_000])
@pytest.mark.parametrize("rows", [None, 1, 5])
def test_batches_hold_every_row_once_the_longest_first_within_their_limits(
    tokens: int | None, rows: int | None
) -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 200)
    todo = np.random.default_rng(1).permutation(200)[:150]
    batches = plan_batches(lengths, todo, tokens=tokens, rows=rows)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == sorted(todo.tolist())
    assert (np.diff(lengths[order]) <= 0).all()
    for batch in batches:
        assert rows is None or len(batch) <= rows
        assert tokens is None or len(batch) == 1 or len(batch) * lengths[batch].max() <= tokens
    full = [batch for batch in batches[:-1] if rows is None or len(batch) < rows]
    assert tokens is None or all((len(batch) + 1) * lengths[batch[0]] > tokens for batch in full)  # none is wasted
    assert plan_batches(lengths, todo[:0], tokens=tokens, rows=rows) == []


class SmallMemory(BertForSequenceClassification):
    """A teacher on a device whose memory holds so many tokens."""

    holds = 10**9
    error: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    def forward(self, input_ids: Tensor, **inputs: Any) -> Any:
        self.tried.append(tuple(input_ids.shape))
        if input_ids.numel() > self.holds:
            raise self.error
        return super().forward(input_ids, **inputs)


def small_memory(holds: int, error: Exception | None = None) -> SmallMemory:
    torch.manual_seed(0)
    model = SmallMemory(bert_config(2, width=8)).eval()
    model.holds, model.tried = holds, []
    if error is not None:
        model.error = error
    return model


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        MemoryError(),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:12]}",
)
@pytest.mark.parametrize("holds", [14, 40, 100])
def test_a_batch_that_does_not_fit_is_halved_and_the_size_that_fits_is_kept(
    tmp_path: Path, tokenizer: Any, holds: int, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    rows = text_rows(60, seed=4)
    wanted = TeacherCache.build(small_memory(10**9), rows, tmp_path / "a", tokenizer=tokenizer, dtype="float32")
    teacher = small_memory(holds, error)
    cache = TeacherCache.build(teacher, rows, tmp_path / "b", tokenizer=tokenizer, dtype="float32")
    got, whole = read_all_mean(cache, rows, tokenizer), read_all_mean(wanted, rows, tokenizer)
    for name in whole:
        np.testing.assert_allclose(got[name], whole[name], rtol=1e-6, atol=1e-6)
    too_large = [count * length > holds for count, length in teacher.tried]
    assert too_large[0] and not any(too_large[too_large.index(False) :])  # it is not tried again
    assert caplog.text.count("Memory ran out") == sum(too_large)
    assert sum(count for (count, length) in teacher.tried if count * length <= holds) == 60


def read_all_mean(cache: TeacherCache, rows: Dataset, tokenizer: Any) -> dict[str, np.ndarray]:
    return read_all(cache, rows, tokenizer, poolings=("mean",))


def test_a_row_that_does_not_fit_alone_is_an_error_in_words_and_the_others_are_kept(
    tmp_path: Path, tokenizer: Any
) -> None:
    teacher = small_memory(3)
    with pytest.raises(RailkdError, match="Memory ran out while the teacher read one row of 14 tokens"):
        TeacherCache.build(teacher, text_rows(60, seed=4), tmp_path, tokenizer=tokenizer)


def test_another_error_of_the_teacher_is_raised_as_it_is(tmp_path: Path, tokenizer: Any) -> None:
    teacher = small_memory(3, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        TeacherCache.build(teacher, text_rows(9), tmp_path, tokenizer=tokenizer)
    assert len(teacher.tried) == 1


def test_nan_is_found_by_the_writing_thread_and_raised_where_the_build_was_called(
    tmp_path: Path, tokenizer: Any, rows: Dataset
) -> None:
    teacher = make_model(2, width=8)
    torch.nn.init.constant_(teacher.classifier.bias, float("nan"))
    with pytest.raises(RailkdError, match="gave logits that are no numbers"):
        TeacherCache.build(teacher, rows, tmp_path, tokenizer=tokenizer, batch_size=2)
    assert not [thread for thread in threading.enumerate() if "railkd" in thread.name]


class Result:
    """Results that are ready at once."""

    def __init__(self, number: int) -> None:
        self.keys = np.asarray([[number, number]])

    def arrays(self) -> dict[str, np.ndarray]:
        return {"": np.zeros((1, 2))}


class SlowDisk:
    """Writes a row in a while, and fails at one of them."""

    def __init__(self, bad: int | None = None) -> None:
        self.bad, self.added = bad, []

    def add(self, keys: np.ndarray, logits: np.ndarray, states: dict[str, np.ndarray]) -> None:
        time.sleep(0.005)
        if keys[0, 0] == self.bad:
            raise OSError(28, "No space left on device")
        self.added.append(int(keys[0, 0]))


def hand_over(disk: Any, rows: int, error: Any = None) -> None:
    with WritingThread(disk) as thread:
        for number in range(rows):
            thread.add(Result(number))  # type: ignore[arg-type]
        if error is not None:
            raise error


@pytest.mark.parametrize("bad", [0, 1, 7])
def test_an_error_of_the_disk_ends_the_pass_with_that_error(bad: int) -> None:
    disk = SlowDisk(bad)
    with pytest.raises(OSError, match="No space left on device"):
        hand_over(disk, 8)
    assert disk.added == list(range(bad))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RailkdError("no"), SystemExit(3)])
def test_what_was_handed_over_before_an_interruption_is_written(error: BaseException) -> None:
    disk = SlowDisk()
    with pytest.raises(type(error)):
        hand_over(disk, 6, error)
    assert disk.added == list(range(6))
