"""A live teacher and its cache give equal answers, and training cannot tell them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from railkd.data.keys import KEY
from railkd.errors import RailkdError
from railkd.models import load_classifier
from railkd.teacher import LiveTeacher, TeacherCache
from tiny import WORDS, batch_of, losses, make_model, make_small, make_tokenizer, make_trainer, save, weights_of


@pytest.fixture(scope="module")
def live(teacher_folder: Path, tokenizer: Any) -> LiveTeacher:
    return LiveTeacher(load_classifier(teacher_folder), tokenizer, poolings=("mean", "cls"))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, teacher_folder: Path, rows: Dataset) -> TeacherCache:
    folder = tmp_path_factory.mktemp("half") / "cache"
    return TeacherCache.build(teacher_folder, rows, folder, pooling=["mean", "cls"], batch_size=64)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference over largest number."""
    return float((a.float() - b.float()).abs().max() / b.abs().max())


@pytest.mark.parametrize(("precision", "bound"), [("cache", 1e-5), ("half", 1e-3)])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("size", [1, 5, 22])
def test_live_and_cached_signals_are_equal_however_rows_are_batched(
    request: pytest.FixtureRequest,
    live: LiveTeacher,
    rows: Dataset,
    tokenizer: Any,
    precision: str,
    bound: float,
    pooling: str,
    size: int,
) -> None:
    stored = request.getfixturevalue(precision)
    order = np.random.default_rng(size).permutation(22)
    for start in range(0, 22, size):
        batch = batch_of(rows, tokenizer, order[start : start + size].tolist())
        ours, theirs = stored(batch, pooling), live(batch, pooling)
        assert apart(ours.states, theirs.states) < bound and apart(ours.logits, theirs.logits) < 1e-5


def test_logits_alone_are_read_without_states(
    live: LiveTeacher, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    batch = batch_of(rows, tokenizer, [4, 2])
    assert live(batch, None).states is None and cache(batch, None).states is None
    torch.testing.assert_close(live(batch, None).logits, cache(batch, None).logits)


def test_who_the_teacher_is_is_said_alike(live: LiveTeacher, cache: TeacherCache) -> None:
    assert live.info == cache.info


def test_a_live_teacher_gives_no_gradient_and_has_no_dropout(live: LiveTeacher, rows: Dataset, tokenizer: Any) -> None:
    batch = batch_of(rows, tokenizer, [0, 1])
    one, two = live(batch, "mean"), live(batch, "mean")
    assert torch.equal(one.states, two.states) and not one.states.requires_grad and not one.logits.requires_grad
    (torch.ones(1, requires_grad=True) * one.states).square().sum().backward()  # may be kept for a backward pass


def test_a_live_teacher_without_its_tokens_or_with_an_unknown_pooling_is_refused(
    live: LiveTeacher, rows: Dataset, tokenizer: Any
) -> None:
    batch = batch_of(rows, tokenizer, [0])
    with pytest.raises(RailkdError, match="reads its own tokens from the columns 'teacher_"):
        live({KEY: batch[KEY]}, "mean")
    only_mean = LiveTeacher(live.model, tokenizer)
    with pytest.raises(RailkdError, match="pools mean, but 'cls' was asked for"):
        only_mean(batch, "cls")


@pytest.mark.parametrize("method", ["kd", "pkd-skip", "rail-kd-l", "rail-kd-c"])
@pytest.mark.parametrize(("precision", "bound"), [("cache", 1e-5), ("half", 1e-3)])
def test_live_and_cached_training_give_the_same_losses(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    teacher_folder: Path,
    rows: Dataset,
    tokenizer: Any,
    method: str,
    precision: str,
    bound: float,
) -> None:
    stored = request.getfixturevalue(precision)
    found = []
    for teacher in (stored, teacher_folder):
        trainer = make_trainer(
            tmp_path, teacher, rows, tokenizer, student=make_small(teacher_folder), method=method, max_steps=5
        )
        trainer.train()
        found.append(losses(trainer))
    assert len(found[0]) == 5
    np.testing.assert_allclose(found[0], found[1], rtol=bound)


def test_a_teacher_that_reads_other_tokens_and_is_wider_teaches_alike_live_and_cached(
    tmp_path: Path, rows: Dataset, tokenizer: Any
) -> None:
    """Teacher and student share the examples, nothing else."""
    folder = save(tmp_path / "teacher", make_model(5, width=24, seed=3), make_tokenizer(WORDS[::-1]))
    stored = TeacherCache.build(folder, rows, tmp_path / "cache", dtype="float32")
    found, trained = [], []
    for teacher in (stored, folder, str(stored.path)):
        trainer = make_trainer(tmp_path / "run", teacher, rows, tokenizer, student=make_model(3, seed=4), max_steps=5)
        trainer.train()
        found.append(losses(trainer))
        trained.append(weights_of(trainer.model.student))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    assert found[0] == found[2] and all(torch.equal(trained[0][name], trained[2][name]) for name in trained[0])
