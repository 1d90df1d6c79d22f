"""Gauges: what they read on clouds whose answer is known, and when they warn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from railkd.objectives import collapse


def cloud(rows: int, size: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_effective_rank_is_the_number_of_directions_that_are_used() -> None:
    for used in (1, 2, 5):
        vectors = torch.cat([torch.eye(used, 8), -3 * torch.eye(used, 8)])
        assert collapse.effective_rank(vectors) == pytest.approx(used)
    # Shares 3/4 and 1/4: exp(H) = 4 / 3^(3/4).
    assert collapse.effective_rank(torch.tensor([[1.0, 0], [2, 0], [-1, 0], [0, 5]])) == pytest.approx(4 / 3**0.75)


def test_effective_rank_knows_neither_lengths_nor_turns_nor_the_order_of_rows() -> None:
    x = cloud(40, 6)
    turn = torch.linalg.qr(cloud(6, 6, seed=1)).Q
    lengths = cloud(40, 1, seed=2).exp()
    assert collapse.effective_rank(lengths * x.flip(0) @ turn) == pytest.approx(collapse.effective_rank(x))
    assert 1 <= collapse.effective_rank(x) <= 6
    assert collapse.effective_rank(cloud(4000, 6)) == pytest.approx(6, rel=0.01)


def test_a_cloud_that_shrank_to_a_point_reads_one_and_not_the_rank_of_its_noise() -> None:
    x = torch.ones(50, 6) + 1e-3 * cloud(50, 6)
    assert collapse.effective_rank(x) == pytest.approx(1, abs=1e-3)
    assert 0 < collapse.component_variance(x) < 1e-5


def test_component_variance_goes_from_no_spread_to_all() -> None:
    assert collapse.component_variance(torch.ones(3, 4)) == 0
    assert collapse.component_variance(torch.cat([torch.eye(4), -torch.eye(4)])) == pytest.approx(1)
    x = cloud(30, 5).numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert collapse.component_variance(torch.from_numpy(x)) == pytest.approx(x.var(axis=0).sum())


def test_linear_cka_is_the_textbooks() -> None:
    x, y = cloud(30, 5), cloud(30, 7, seed=1)
    a, b = (z.numpy() - z.numpy().mean(axis=0) for z in (x, y))
    norm = np.linalg.norm
    wanted = norm(b.T @ a) ** 2 / (norm(a.T @ a) * norm(b.T @ b))  # the feature form; the code takes the Gram form
    assert collapse.linear_cka(x, y) == pytest.approx(wanted, rel=1e-9)
    turn = torch.linalg.qr(cloud(5, 5, seed=2)).Q
    assert collapse.linear_cka(x, 4 * x @ turn + 7) == pytest.approx(1)
    assert collapse.linear_cka(x, y) == pytest.approx(collapse.linear_cka(y, x))
    assert collapse.linear_cka(x, torch.zeros(30, 3)) == 0


def test_similarity_is_a_matrix_of_student_blocks_by_teacher_blocks() -> None:
    student, teacher = cloud(20, 3 * 4).reshape(20, 3, 4), cloud(20, 5 * 6, seed=1).reshape(20, 5, 6)
    teacher[:, 1, :4], teacher[:, 1, 4:] = student[:, 2], 0
    matrix = collapse.similarity(student, teacher)
    assert np.shape(matrix) == (3, 5)
    assert (
        matrix[2][1] == 1
        and max(value for i, row in enumerate(matrix) for t, value in enumerate(row) if (i, t) != (2, 1)) < 1
    )
    assert matrix[0][3] == pytest.approx(collapse.linear_cka(student[:, 0], teacher[:, 3]), abs=1e-4)


@pytest.mark.parametrize(
    ("rank", "term", "start", "first_rank", "said"),
    [
        (5.0, 0.5, 2.0, 6.0, None),
        (2.0, 0.04, 2.0, 6.0, None),  # at the floors, not under them
        (1.99, 0.5, 2.0, 6.0, "effective rank of 1.99 (under 2)"),
        (5.0, 0.039, 2.0, 6.0, "the term is 1.9 % of its start (under 2 %)"),
        (1.0, 0.001, 2.0, 6.0, "(under 2) and the term is 0.1 % of its start"),
        (1.35, 1.9, 2.0, 1.4, None),  # a narrow cone from the start
        (1.19, 1.9, 2.0, 1.4, "(under 1.2)"),
        (5.0, 0.0, 0.0, 6.0, None),  # there was nothing to learn
    ],
)
def test_the_warning_says_what_was_read_and_what_to_do(
    rank: float, term: float, start: float, first_rank: float, said: str | None
) -> None:
    words = collapse.collapse_warning(rank, term, start, first_rank=first_rank)
    assert (words is None) == (said is None)
    if words is not None and said is not None:
        assert said in words and "--method rail-kd-w" in words and "\n" not in words


def test_a_start_that_is_not_told_counts_as_wide() -> None:
    assert collapse.collapse_warning(1.5, 1.0, 1.0) is not None
    assert collapse.collapse_warning(2.5, 1.0, 1.0) is None and math.isfinite(collapse.RANK_FLOOR)
