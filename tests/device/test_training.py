"""A cache and a training on the device: equal to a live teacher, to the CPU, and to a run that was interrupted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

import tiny
from railkd import DistillationTrainer, TeacherCache

METHODS = ("kd", "pkd-skip", "rail-kd-l")


@pytest.fixture(scope="module")
def teacher(device: torch.device) -> Any:
    return tiny.make_model(4).to(device)


@pytest.fixture(scope="module")
def device_cache(tmp_path_factory: pytest.TempPathFactory, teacher: Any, rows: Dataset, tokenizer: Any) -> TeacherCache:
    """Built on the device: both poolings, single precision."""
    folder = tmp_path_factory.mktemp("device") / "cache"
    options: dict[str, Any] = {"pooling": ["mean", "cls"], "dtype": "float32", "batch_size": 7}
    return TeacherCache.build(teacher, rows, folder, tokenizer=tokenizer, **options)


@pytest.fixture
def full_determinism() -> Iterator[None]:
    """Undo what Trainer sets for the whole process."""
    before = dict(os.environ)
    backend = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = backend
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def trained(
    folder: Path, teacher: Any, rows: Dataset, tokenizer: Any, where: torch.device, **settings: Any
) -> DistillationTrainer:
    """A training on the device, without dropout unless asked."""
    resume = settings.pop("resume", None)
    student = tiny.make_small(tiny.make_model(4, seed=11), 3, dropout=settings.pop("dropout", 0.0))
    settings = {"use_cpu": where.type == "cpu", "max_steps": 6, **settings}
    trainer = tiny.make_trainer(folder, teacher, rows, tokenizer, student=student, **settings)
    trainer.train(resume_from_checkpoint=resume)
    assert next(trainer.model.parameters()).device.type == where.type
    return trainer


def test_a_cache_built_on_the_device_holds_what_the_cpu_gives(
    cache: TeacherCache, device_cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    batch = tiny.batch_of(rows, tokenizer, list(range(len(rows))))
    for pooling in ("mean", "cls"):
        ours, reference = device_cache(batch, pooling), cache(batch, pooling)
        assert ours.states is not None and reference.states is not None and reference.states.abs().max() > 0.1
        torch.testing.assert_close(ours.logits, reference.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.states, reference.states, rtol=1e-4, atol=1e-5)


def test_a_gather_gives_the_stored_bits_on_the_device_of_the_keys(
    device_cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device
) -> None:
    batch = tiny.batch_of(rows, tokenizer, [5, 3, 21, 3])
    there = device_cache({name: value.to(device) for name, value in batch.items()}, "mean")
    here = device_cache(batch, "mean")
    assert there.logits.device.type == device.type and there.states is not None and here.states is not None
    assert torch.equal(there.logits.cpu(), here.logits) and torch.equal(there.states.cpu(), here.states)


@pytest.mark.parametrize("method", METHODS)
def test_cached_and_live_teachers_train_alike(
    tmp_path: Path,
    device_cache: TeacherCache,
    teacher: Any,
    rows: Dataset,
    tokenizer: Any,
    device: torch.device,
    method: str,
) -> None:
    told = [
        tiny.losses(trained(tmp_path, source, rows, tokenizer, device, method=method))
        for source in (device_cache, teacher)
    ]
    assert len(told[0]) == 6
    np.testing.assert_allclose(told[0], told[1], rtol=1e-4)


def test_states_that_stay_on_the_device_train_as_those_that_are_read_ahead(
    tmp_path: Path, device_cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device
) -> None:
    told, said = [], list[str]()
    for keep in ("no", "yes"):
        student = tiny.make_small(tiny.make_model(4, seed=11), 3, dropout=0.0)
        settings = {"use_cpu": device.type == "cpu", "max_steps": 6, "states_on_device": keep}
        trainer = tiny.make_trainer(tmp_path, device_cache, rows, tokenizer, student=student, **settings)
        trainer.say = said.append
        trainer.train()
        told.append(tiny.losses(trainer))
    assert len(said) == 1 and f"stay on {device.type}" in said[0]
    np.testing.assert_allclose(told[0], told[1], rtol=0 if device.type == "cpu" else 1e-5)


@pytest.mark.parametrize("method", ["finetune", *METHODS])
def test_a_training_on_the_device_follows_one_on_the_cpu(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device, method: str
) -> None:
    """The same rows, draws and losses; rounding grows with the steps."""
    teacher = None if method == "finetune" else cache
    ours, reference = (
        trained(tmp_path, teacher, rows, tokenizer, where, method=method) for where in (device, torch.device("cpu"))
    )
    assert len(tiny.losses(ours)) == 6
    np.testing.assert_allclose(tiny.losses(ours)[:1], tiny.losses(reference)[:1], rtol=1e-5)
    np.testing.assert_allclose(tiny.losses(ours), tiny.losses(reference), rtol=1e-3)


def test_gauges_read_on_the_device_what_they_read_on_the_cpu(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device
) -> None:
    readings = []
    for where in (device, torch.device("cpu")):
        trainer = trained(tmp_path, cache, rows, tokenizer, where, gauges=True, max_steps=1)
        told = [entry for entry in trainer.state.log_history if "gauge_rank" in entry]
        names = ("gauge_rank", "gauge_target_rank", "gauge_variance", "gauge_term")
        readings.append([told[0][name] for name in names])
    assert all(value > 0 for value in readings[0])
    np.testing.assert_allclose(readings[0], readings[1], rtol=1e-4)


def test_predictions_are_those_of_the_cpu(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any, device: torch.device
) -> None:
    held = []
    for where in (device, torch.device("cpu")):
        trainer = tiny.make_trainer(
            tmp_path, cache, rows, tokenizer, student=tiny.make_small(tiny.make_model(4)), use_cpu=where.type == "cpu"
        )
        found = trainer.predict(rows)
        held.append((found.predictions, found.metrics["test_loss"]))
    assert held[0][0].shape == (len(rows), 2)
    np.testing.assert_allclose(held[0][0], held[1][0], rtol=1e-4, atol=1e-5)
    assert held[0][1] == pytest.approx(held[1][1], rel=1e-5)


@pytest.mark.parametrize("method", ["finetune", "rail-kd-l"])
def test_resumed_with_full_determinism_is_bit_equal(
    tmp_path: Path,
    device_cache: TeacherCache,
    rows: Dataset,
    tokenizer: Any,
    device: torch.device,
    full_determinism: None,
    method: str,
) -> None:
    settings = {"method": method, "full_determinism": True, "dropout": 0.1, "max_steps": 9}
    settings |= {"save_strategy": "steps", "save_steps": 4}
    source = None if method == "finetune" else device_cache
    whole = trained(tmp_path / "whole", source, rows, tokenizer, device, **settings)
    torch.manual_seed(1)  # the state of the world must not matter
    checkpoint = str(tmp_path / "whole" / "checkpoint-4")
    resumed = trained(tmp_path / "resumed", source, rows, tokenizer, device, **settings, resume=checkpoint)
    assert resumed.state.global_step == whole.state.global_step == 9
    ours, theirs = tiny.weights_of(resumed.model), tiny.weights_of(whole.model)
    assert [name for name in theirs if not torch.equal(theirs[name], ours[name])] == []
