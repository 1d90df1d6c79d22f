"""Laws of the tensor functions: padding never counts, splitting changes nothing, equal outputs have no distance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from railkd.functional import UNLABELLED, kd_loss, masked_mean, normalized_distance, task_loss, token_at_edge, unit

KINDS = ("single_label_classification", "multi_label_classification", "regression")
HALVES = (torch.float16, torch.bfloat16)
POOLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": masked_mean,
    "first": token_at_edge,
    "last": lambda h, mask: token_at_edge(h, mask, last=True),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_labels(kind: str, rows: int) -> Tensor:
    """Labels of which every third row has none."""
    if kind == "single_label_classification":
        return torch.tensor([UNLABELLED if i % 3 == 1 else i % 2 for i in range(rows)])
    values = (normal(rows, 1 if kind == "regression" else 3, seed=9) > 0).float()
    values[1::3] = float("nan")
    return values


# ---- pooling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_more_padding_changes_nothing_whatever_stands_there(pool: str, side: str) -> None:
    h, real = normal(2, 5, 3), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    if side == "left":
        real = real.flip(1)
    rubbish = torch.full((2, 4, 3), float("nan"))
    wide = [rubbish, h] if side == "left" else [h, rubbish]
    mask = (
        [torch.zeros(2, 4, dtype=torch.long), real] if side == "left" else [real, torch.zeros(2, 4, dtype=torch.long)]
    )
    assert torch.equal(POOLS[pool](torch.cat(wide, 1), torch.cat(mask, 1)), POOLS[pool](h, real))


@pytest.mark.parametrize("pool", POOLS)
def test_a_padded_text_pools_like_itself_alone(pool: str) -> None:
    h, mask = normal(1, 6, 3), torch.tensor([[0, 1, 1, 1, 0, 0]])
    alone = POOLS[pool](h[:, 1:4], torch.ones(1, 3))
    torch.testing.assert_close(POOLS[pool](h, mask), alone)
    assert torch.equal(POOLS[pool](h, mask.bool()), POOLS[pool](h, mask))


def test_padding_gets_no_gradient() -> None:
    h = normal(1, 4, 3)
    h[:, 3] = float("nan")
    h.requires_grad_()
    masked_mean(h, torch.tensor([[1, 1, 1, 0]])).sum().backward()
    torch.testing.assert_close(h.grad, torch.tensor([[1.0, 1, 1, 0]]).unsqueeze(-1).expand(1, 4, 3) / 3)


@pytest.mark.parametrize("dtype", HALVES)
def test_the_mean_of_half_precision_states_is_finite_and_as_exact_as_its_type(dtype: torch.dtype) -> None:
    h = (1000 + normal(2, 256, 4)).to(dtype)  # their sum is beyond float16
    mask = torch.ones(2, 256)
    torch.testing.assert_close(masked_mean(h, mask).float(), h.float().mean(1), rtol=1e-2, atol=0)


def test_the_mean_is_exact_under_autocast_and_as_exact_as_double_states() -> None:
    h, mask = normal(3, 9, 4), (torch.arange(9) < torch.tensor([[9], [4], [1]])).long()
    wanted = torch.stack([row[real.bool()].mean(0) for row, real in zip(h.double(), mask, strict=True)])
    torch.testing.assert_close(masked_mean(h.double(), mask), wanted, rtol=1e-12, atol=1e-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(masked_mean(h, mask), wanted.float(), rtol=1e-6, atol=1e-6)


# ---- distances -------------------------------------------------------------------------------------


def test_the_distance_is_of_directions_alone() -> None:
    a, b = normal(4, 5), normal(4, 5, seed=1)
    torch.testing.assert_close(normalized_distance(7 * a, 0.01 * b), normalized_distance(a, b))
    torch.testing.assert_close(normalized_distance(a, b), 2 - 2 * torch.cosine_similarity(a, b))
    torch.testing.assert_close(normalized_distance(a, a), torch.zeros(4))
    torch.testing.assert_close(normalized_distance(a, -a), torch.full((4,), 4.0))


@pytest.mark.parametrize("dtype", HALVES)
def test_distances_of_half_precision_states_are_finite_at_any_size(dtype: torch.dtype) -> None:
    for size in (6e4, 1.0, 1e-7, 0.0):
        a = (size * unit(normal(3, 64))).to(dtype).requires_grad_()
        distance = normalized_distance(a, normal(3, 64, seed=1).to(dtype))
        assert distance.isfinite().all() and (distance >= 0).all() and (distance <= 4.001).all()
        if size >= 1:  # the gradient grows as 1 / size
            distance.sum().backward()
            assert a.grad.isfinite().all() and a.grad.any()


def test_the_zero_vector_has_a_finite_distance_and_gradient() -> None:
    a = torch.zeros(1, 4, requires_grad=True)
    distance = normalized_distance(a, normal(1, 4))
    distance.sum().backward()
    torch.testing.assert_close(distance, torch.ones(1))
    assert a.grad.isfinite().all()


# ---- the logit term --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
def test_equal_logits_have_no_kd_loss_and_no_gradient(kind: Any, temperature: float) -> None:
    z = (5 * normal(4, 3)).requires_grad_()
    loss = kd_loss(z, z.detach(), temperature, kind)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(z.grad, torch.zeros(4, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_down_the_kd_gradient_brings_the_student_nearer_to_the_teacher(kind: Any) -> None:
    z_s, z_t = normal(4, 3).requires_grad_(), normal(4, 3, seed=1)
    before = kd_loss(z_s, z_t, 2.0, kind)
    (gradient,) = torch.autograd.grad(before, z_s)
    assert 0 < kd_loss(z_s - 0.1 * gradient, z_t, 2.0, kind) < before


def test_the_kd_gradient_raises_the_classes_the_teacher_holds_more_likely() -> None:
    z_s, z_t = normal(4, 3).requires_grad_(), normal(4, 3, seed=1)
    kd_loss(z_s, z_t).backward()
    assert torch.equal(z_s.grad.sign(), (z_s.softmax(-1) - z_t.softmax(-1)).sign())


def test_at_high_temperature_kd_pulls_centred_logits_together() -> None:
    """Hinton et al. 2015, section 2.1: dL/dz -> (z_s - z_t) / C; the T^2 keeps it from vanishing."""
    z_s, z_t = normal(1, 4).requires_grad_(), normal(1, 4, seed=1)
    kd_loss(z_s, z_t, 1e3).backward()
    difference = (z_s - z_s.mean() - z_t + z_t.mean()).detach()
    torch.testing.assert_close(z_s.grad, difference / 4, rtol=1e-2, atol=1e-3)


def test_kd_does_not_see_a_shift_of_all_logits_and_never_reaches_the_teacher() -> None:
    z_s, z_t = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    loss = kd_loss(z_s, z_t)
    torch.testing.assert_close(kd_loss(z_s + 3, z_t - 2), loss)
    loss.backward()
    assert z_t.grad is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALVES)
def test_logit_terms_of_half_precision_stay_finite(kind: Any, dtype: torch.dtype) -> None:
    scale = 100 if kind == "regression" else 3e4
    z_s = (scale * normal(4, 3)).clamp(-6e4, 6e4).to(dtype).requires_grad_()
    z_t = (scale * normal(4, 3, seed=1)).clamp(-6e4, 6e4).to(dtype)
    labels = torch.zeros(4, 3) if kind != "single_label_classification" else torch.zeros(4, dtype=torch.long)
    loss = kd_loss(z_s, z_t, 1.0, kind) + task_loss(z_s, labels, kind)
    loss.backward()
    assert loss.isfinite() and z_s.grad.isfinite().all()


# ---- the task loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [(4, 4), (1,) * 8, (5, 3), (1, 7)])
def test_splitting_a_batch_changes_nothing_unlabelled_rows_included(kind: Any, cuts: tuple[int, ...]) -> None:
    width = 1 if kind == "regression" else 3
    z, y = normal(8, width).double(), some_labels(kind, 8)
    parts = zip(z.split(cuts), y.split(cuts), cuts, strict=True)
    split = sum(task_loss(a, b, kind) * size / 8 for a, b, size in parts)
    whole = task_loss(z, y, kind)
    torch.testing.assert_close(split, whole)
    labelled = y[:, 0].isfinite() if y.ndim == 2 else y != UNLABELLED
    torch.testing.assert_close(whole, task_loss(z[labelled], y[labelled], kind) * labelled.sum() / 8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_labels_has_no_task_loss_and_a_gradient_of_zeros(kind: Any) -> None:
    width = 1 if kind == "regression" else 3
    nothing = torch.full((2,), UNLABELLED) if kind == KINDS[0] else torch.full((2, width), float("nan"))
    for labels in (None, nothing):
        z = normal(2, width).requires_grad_()
        loss = task_loss(z, labels, kind)
        loss.backward()
        assert loss == 0 and torch.equal(z.grad, torch.zeros(2, width))


def test_regression_labels_may_be_flat_or_a_column() -> None:
    z, y = normal(5, 1), normal(5, seed=2)
    assert task_loss(z, y, "regression") == task_loss(z, y.unsqueeze(1), "regression") == (z[:, 0] - y).square().mean()
