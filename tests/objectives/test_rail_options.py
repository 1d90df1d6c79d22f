"""The options of RAIL-KD: candidates, redraws, maps and alphas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from objectives.cases import build, make, rail_methods, with_states


@rail_methods
def test_what_was_not_drawn_has_no_part(method: str) -> None:
    case = make(method)
    base = case.loss(draw=(2, 4))
    for block in range(1, 7):
        states = case.teacher.states.clone()
        states[:, block - 1] += 1
        changed = case.loss(teacher=with_states(case.teacher, states), draw=(2, 4))
        assert torch.equal(changed, base) == (block not in (2, 4))
    assert torch.equal(case.loss(draw=torch.tensor([2, 4])), base)


@rail_methods
def test_candidates_redraw_and_matched_blocks_follow_the_options(method: str) -> None:
    epochs = range(60)
    default = build(method)
    assert {b for e in epochs for b in default.draw(0, epoch=e, step=0)} == set(range(1, 6)) and default.m == 2
    everything = build(method, candidates="all")
    assert {b for e in epochs for b in everything.draw(0, epoch=e, step=0)} == set(range(1, 7)) and everything.m == 3
    for redraw, by_epoch, by_step in (("epoch", True, False), ("step", False, True), ("never", False, False)):
        objective = build(method, redraw=redraw)
        assert (len({objective.draw(0, epoch=e, step=3) for e in epochs}) > 1) == by_epoch
        assert (len({objective.draw(0, epoch=1, step=e) for e in epochs}) > 1) == by_step


@pytest.mark.parametrize(
    ("options", "student_maps", "teacher_maps"),
    [
        ({}, {0, 1}, {0, 1}),
        ({"maps_by": "block"}, {1, 4}, {1, 4}),  # by teacher block: 2 and 5
        ({"maps_by": "teacher-block"}, {0, 1}, {1, 4}),
        ({"teacher_map": "orthogonal"}, {0 * 6 + 1, 1 * 6 + 4}, set()),  # by (match, block); the teacher's are frozen
    ],
)
def test_exactly_the_maps_of_the_draw_are_trained(options: Any, student_maps: set[int], teacher_maps: set[int]) -> None:
    case = make("rail-kd-l", **options)
    case.loss(draw=(2, 5)).backward()

    def trained(bank: Any) -> set[int]:
        if bank.weight.grad is None:
            return set()
        assert torch.equal(bank.weight.grad.any(dim=2).any(dim=1), bank.bias.grad.any(dim=1))
        return set(bank.bias.grad.any(dim=1).nonzero().flatten().tolist())

    assert trained(case.objective.student_maps) == student_maps
    assert trained(case.objective.teacher_maps) == teacher_maps


@pytest.mark.parametrize("width", [4, 8, 12])
def test_orthogonal_teacher_maps_are_orthogonal_frozen_and_drawn_by_their_own_seed(width: int) -> None:
    shapes: Any = ((3, 8), (6, width))
    one, two, other = (
        build("rail-kd-l", shapes, teacher_map="orthogonal", map_seed=seed).teacher_maps for seed in (0, 0, 1)
    )
    assert torch.equal(one.weight, two.weight) and not torch.equal(one.weight, other.weight)
    assert not any(parameter.requires_grad for parameter in one.parameters())
    for w in one.weight:  # (d_t, u)
        gram = w @ w.T if width <= 8 else w.T @ w
        torch.testing.assert_close(gram, torch.eye(min(width, 8)), atol=1e-5, rtol=0)
    assert len({tuple(w.flatten().tolist()) for w in one.weight}) == 6


def test_alpha_sum_is_m_times_alpha_mean() -> None:
    mean, total = make("rail-kd-l", weights=[0, 0, 1]), make("rail-kd-l", weights=[0, 0, 1], alpha="sum")
    torch.testing.assert_close(total.loss(), 2 * mean.loss())
    first, second = (make("rail-kd-l", weights=[0, 0, 1], alpha=a).loss() for a in ([1.0, 0.0], [0.0, 1.0]))
    torch.testing.assert_close(first + second, total.loss())
