"""Objectives with statistics of the cache, and frozen targets, against a second computation in numpy.

See `test_against_numpy.py`.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from objectives.in_numpy import (
    D_S,
    D_T,
    DRAW,
    ROWS,
    Array,
    M,
    N,
    Numbers,
    S,
    U,
    built,
    close,
    linear,
    rail,
    term_of,
    unit,
)
from railkd.signals import Moments


@pytest.fixture(scope="module")
def seen() -> Array:
    """Teacher states of 60 rows, their components of unlike size and away from 0: (60, N, D_T)."""
    rng = np.random.default_rng(5)
    mixed = rng.normal(size=(60, N, D_T)) * np.linspace(0.3, 3, D_T)
    return np.einsum("rnd,nde->rne", mixed, rng.normal(size=(N, D_T, D_T))) + 4 * rng.normal(size=(N, D_T))


def moments_of(seen: Array) -> Moments:
    covariance = np.stack([np.cov(seen[:, t], rowvar=False) for t in range(seen.shape[1])])
    return Moments(len(seen), torch.from_numpy(seen.mean(axis=0)), torch.from_numpy(covariance))


def target(seen: Array, block: int, state: Array, kind: str) -> Array:
    """The frozen target of a block for a state, up to the signs of its components: by the rows' singular vectors."""
    centred = seen[:, block - 1] - seen[:, block - 1].mean(axis=0)
    _, sizes, vectors = np.linalg.svd(centred, full_matrices=False)
    components = (state - seen[:, block - 1].mean(axis=0)) @ vectors[:U].T
    return components / (sizes[:U] / np.sqrt(len(seen) - 1)) if kind == "whitening" else components


@pytest.mark.parametrize("kind", ["whitening", "centring"])
def test_fitted_targets(kind: str, seen: Array) -> None:
    numbers = Numbers()
    objective, _ = built("rail-kd-l", shared_size=U, teacher_map=kind)
    objective.fit(moments_of(seen))
    w = {name: tensor.numpy() for name, tensor in objective.state_dict().items()}
    for block in range(1, N + 1):
        ours, theirs = (
            linear(w, "teacher", block - 1, numbers.h_t[0, block - 1]),
            target(seen, block, numbers.h_t[0, block - 1], kind),
        )
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-6)

    def signed(i: int, t: int, h: Array) -> Array:  # the sign of a principal component is free: ours is taken
        return np.abs(target(seen, t, h, kind)) * np.sign(linear(w, "teacher", t - 1, h))

    total = rail(numbers, DRAW, lambda i, t, h: linear(w, "student", i * N + t - 1, h), signed, [1 / M] * M)
    assert term_of(objective, numbers, DRAW) == close(total)


def test_frozen_orthogonal_targets() -> None:
    numbers = Numbers()
    objective, w = built("rail-kd-l", shared_size=U, teacher_map="orthogonal")
    assert not w["teacher_maps.bias"].any()
    total = rail(
        numbers,
        DRAW,
        lambda i, t, h: linear(w, "student", i * N + t - 1, h),
        lambda i, t, h: h @ w["teacher_maps.weight"][t - 1],
        [1 / M] * M,
    )
    assert term_of(objective, numbers, DRAW) == close(total)


@pytest.mark.parametrize(("d_s", "taught_by"), [(D_T, (1, 3, 6, 9)), (D_T, (9, 9, 2, 1)), (D_S, (2, 5, 7, 9))])
def test_gram(d_s: int, taught_by: tuple[int, ...], seen: Array) -> None:
    """At equal width both sides are centred on the teacher's means; else the student on the mean of the batch."""
    numbers = Numbers(d_s=d_s)
    objective, _ = built("gram", d_s=d_s, taught_by=taught_by)
    objective.fit(moments_of(seen))
    total = 0.0
    for i, t in enumerate(taught_by):
        mu = seen[:, t - 1].mean(axis=0)
        centre = mu if d_s == D_T else numbers.h_s[:, i].mean(axis=0)
        for one, two in itertools.product(range(ROWS), repeat=2):
            ours = unit(numbers.h_s[one, i] - centre) @ unit(numbers.h_s[two, i] - centre)
            theirs = unit(numbers.h_t[one, t - 1] - mu) @ unit(numbers.h_t[two, t - 1] - mu)
            total += 10 * (ours - theirs) ** 2 / ROWS**2 / S
    assert term_of(objective, numbers) == close(total)


def test_gram_takes_the_nearest_blocks_unless_they_are_named() -> None:
    objective, _ = built("gram")
    assert objective.taught_by == [2, 5, 7, 9]  # 4 blocks of 9: 2.25, 4.5, 6.75, 9, halves up


@pytest.mark.parametrize("d_s", [D_S, D_T])
def test_last_block(d_s: int, seen: Array) -> None:
    numbers = Numbers(d_s=d_s)
    objective, w = built("last-block", d_s=d_s)
    objective.fit(moments_of(seen))
    spread, total = seen[:, -1].std(axis=0, ddof=1).mean(), 0.0
    for row in range(ROWS):
        ours = numbers.h_s[row, -1]
        if d_s != D_T:
            ours = w["student_map.weight"] @ ours + w["student_map.bias"]
        total += (((ours - numbers.h_t[row, -1]) / spread) ** 2).mean() / ROWS
    assert term_of(objective, numbers) == close(total)


@pytest.mark.parametrize("tau", [0.07, 1.0])
def test_rail_nce(tau: float, seen: Array) -> None:
    numbers = Numbers()
    objective, _ = built("rail-nce", shared_size=U, tau=tau)
    objective.fit(moments_of(seen))
    w = {name.removeprefix("rail."): tensor.numpy() for name, tensor in objective.state_dict().items()}

    def b(t: int, h: Array) -> Array:  # the sign of a principal component is free: ours is taken
        signs = np.sign(linear(w, "teacher", t - 1, h))
        return unit(np.abs(target(seen, t, h, "centring")) * signs)

    total = 0.0
    for row, (i, t) in itertools.product(range(ROWS), enumerate(DRAW)):
        a = unit(linear(w, "student", i * N + t - 1, numbers.h_s[row, i]))
        good = a @ b(t, numbers.h_t[row, t - 1]) / tau
        kept = [k for k in range(4) if numbers.keep[row, k]]
        others = [a @ b(t, numbers.others[numbers.group[row], k, t - 1]) / tau for k in kept]
        total += np.log(np.exp(np.array([good, *others]) - good).sum())
    assert term_of(objective, numbers, DRAW) == close(total / ROWS / M)
