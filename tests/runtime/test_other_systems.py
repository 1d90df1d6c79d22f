"""Calls that fail on macOS, Windows and network file systems fail here in the same way, and railkd still works."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainerControl, TrainerState

import tiny
from objectives.cases import make
from railkd.objectives import METHODS, collapse
from railkd.runtime import hardware
from railkd.runtime.files import sync, sync_all, write_text
from railkd.signals import Signals
from railkd.teacher import TeacherCache
from railkd.training.gauges import Gauging
from railkd.training.probe import Probed
from training.runs import run


class Apple(torch.Tensor):
    """A tensor that refuses what the GPUs of Apple refuse, until it is copied to main memory."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "cpu":
            return args[0].as_subclass(torch.Tensor)
        doubled = any(given is torch.float64 for given in (*args, *(kwargs or {}).values()))
        if doubled or name in ("double", "linalg_eigvalsh"):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return super().__torch_function__(func, types, args, kwargs or {})


def test_the_stand_in_refuses_double_precision() -> None:
    x = torch.ones(2, 2).as_subclass(Apple)
    for refused in (x.double, lambda: x.to(torch.float64), lambda: torch.linalg.eigvalsh(x + 1)):
        with pytest.raises(TypeError, match="MPS"):
            refused()
    assert type(x.cpu()) is torch.Tensor


def test_gauges_are_computed_in_main_memory() -> None:
    x, y = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0))
    states = torch.randn(9, 3, 4, generator=torch.Generator().manual_seed(1))
    for function, given in (
        (collapse.effective_rank, (x,)),
        (collapse.component_variance, (x,)),
        (collapse.linear_cka, (x, y)),
        (collapse.similarity, (states, states.flip(0))),
    ):
        assert function(*(part.as_subclass(Apple) for part in given)) == function(*given)


@pytest.mark.parametrize(
    "method", [n for n, spec in METHODS.items() if spec.pooling and "negatives" not in spec.options]
)
def test_the_readings_of_every_method_need_no_double_precision(tmp_path: Path, method: str) -> None:
    case, read = make(method), []
    for kind in (torch.Tensor, Apple):
        student, teacher = (
            Signals(signals.logits.detach().as_subclass(kind), signals.states.detach().as_subclass(kind))
            for signals in (case.student, case.teacher)
        )
        probed = Probed(case.objective, student, teacher)
        gauging = Gauging(partial(lambda found: found, probed), lambda values: None)
        gauging.on_train_begin(tiny.arguments(tmp_path), TrainerState(), TrainerControl())
        read.append(gauging.as_dict())
    assert read[0] == read[1] and read[0]["similarity"]


def test_a_system_without_mallopt_keeps_its_own_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    for error in (
        TypeError("argument of type 'NoneType' is not iterable"),  # Windows
        OSError("no such library"),
        AttributeError("symbol not found: mallopt"),  # macOS
    ):

        def refuse(name: Any, error: Exception = error) -> Any:
            assert name is None
            raise error

        with monkeypatch.context() as context:
            context.setattr(ctypes, "CDLL", refuse)
            assert hardware.keep_freed_memory() is False
            assert run(tmp_path, cache, rows, tokenizer, max_steps=1).state.global_step == 1


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("open", errno.EACCES),
        ("open", errno.EISDIR),
        ("fsync", errno.EINVAL),
        ("fsync", errno.ENOTSUP),
        ("fsync", errno.EBADF),
    ],
)
def test_a_folder_that_cannot_be_synced_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cache: TeacherCache,
    rows: Dataset,
    tokenizer: Any,
    call: str,
    number: int,
) -> None:
    """Windows refuses to open a folder; some network file systems refuse to sync it. Files are still synced."""
    real_open, real_sync, synced = os.open, os.fsync, []

    def open_file(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if call == "open" and os.path.isdir(path):
            raise OSError(number, os.strerror(number), str(path))
        return real_open(path, flags, *more, **options)

    def fsync(handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        if call == "fsync" and folder:
            raise OSError(number, os.strerror(number))
        synced.append(folder)
        real_sync(handle)

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "text", durable=True)
    sync_all(tmp_path)
    assert synced == [False, False] and (tmp_path / "a.txt").read_text() == "text"
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    run(tmp_path / "run", cache, rows, tokenizer, **settings)
    again = tiny.make_trainer(
        tmp_path / "run", cache, rows, tokenizer, student=tiny.make_small(tiny.make_model(4, seed=11)), **settings
    )
    again.train(str(tmp_path / "run" / "checkpoint-1"))
    assert again.state.global_step == 2 and not any(synced)


@pytest.mark.parametrize(("number", "folder"), [(errno.EIO, True), (errno.EIO, False), (errno.EINVAL, False)])
def test_a_disk_that_fails_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, folder: bool
) -> None:
    (tmp_path / "a.txt").write_text("text")

    def fsync(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(tmp_path if folder else tmp_path / "a.txt")


def test_a_file_is_synced_with_a_handle_that_may_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Windows answers EBADF to a sync of what is open for reading."""
    (tmp_path / "a.txt").write_text("text")
    real_open, real_sync, modes = os.open, os.fsync, {}

    def open_file(path: Any, flags: int, *more: Any, **options: Any) -> int:
        handle = real_open(path, flags, *more, **options)
        modes[handle] = flags
        return handle

    def fsync(handle: int) -> None:
        if not modes[handle] & os.O_RDWR:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real_sync(handle)

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "fsync", fsync)
    sync(tmp_path / "a.txt")
    sync_all(tmp_path)


@pytest.mark.parametrize("kind", ["cpu", "cuda", "xpu", "mps"])
def test_the_device_is_chosen_from_the_accelerator_of_torch(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind != "cpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device(kind))
    assert hardware.device() == torch.device(kind)
    assert hardware.can_pin() == (kind in ("cuda", "xpu"))
    if kind == "mps":
        monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 123)
        assert hardware.fast_bf16() is False and hardware.machine()["gpu"] == "mps device"
        hardware.reset_peak_memory()
        assert hardware.peak_memory() == 123
    if kind == "cpu":
        assert hardware.machine()["gpu"] == "none"
