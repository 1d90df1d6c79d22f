"""Random batches in numpy and as signals, and the parts of the equations that several methods share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from railkd.objectives import Objective, build_objective
from railkd.signals import Negatives, Signals

ROWS, S, N, U = 5, 4, 9, 5
D_S, D_T = 6, 7
M = S - 1
DRAW = (2, 3, 8)
Array = np.ndarray


def unit(x: Array) -> Array:
    return x / np.sqrt((x**2).sum())


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class Numbers:
    """One random batch, in numpy and as signals."""

    def __init__(self, *, d_s: int = D_S, d_t: int = D_T, classes: int = 3, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.z_s, self.z_t = rng.normal(size=(2, ROWS, classes))
        self.h_s, self.h_t = rng.normal(size=(ROWS, S, d_s)), rng.normal(size=(ROWS, N, d_t))
        self.others = rng.normal(size=(2, 4, N, d_t))  # (G, K, n, d_t)
        self.group = np.array([0, 1, 1, 0, 1])
        self.keep = rng.random((ROWS, 4)) < 0.7
        self.keep[:, 0] = True

    @property
    def student(self) -> Signals:
        return Signals(torch.from_numpy(self.z_s), torch.from_numpy(self.h_s))

    @property
    def teacher(self) -> Signals:
        held = Negatives(*(torch.from_numpy(x) for x in (self.others, self.group, self.keep)))
        return Signals(torch.from_numpy(self.z_t), torch.from_numpy(self.h_t), held)


def built(method: str, *, d_s: int = D_S, d_t: int = D_T, **options: Any) -> tuple[Objective, dict[str, Array]]:
    """An objective of double precision whose weights are random normal numbers, and those numbers by name."""
    torch.manual_seed(1)
    objective = build_objective(method, (S, d_s), (N, d_t), **options).double()
    with torch.no_grad():
        for parameter in objective.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return objective, {name: tensor.numpy() for name, tensor in objective.state_dict().items()}


def term_of(objective: Objective, numbers: Numbers, draw: Sequence[int] | None = None) -> float:
    drawn = None if draw is None else torch.tensor(draw)
    return objective(numbers.student, numbers.teacher, None, drawn)[1]["intermediate"].item()


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-6, abs=1e-12)


def rail(numbers: Numbers, draw: Sequence[int], student_map: Any, teacher_map: Any, alpha: Sequence[float]) -> float:
    """The layer-wise term; maps are functions of (match, block, state)."""
    total = 0.0
    for row, (i, block) in itertools.product(range(ROWS), enumerate(draw)):
        a = unit(student_map(i, block, numbers.h_s[row, i]))
        b = unit(teacher_map(i, block, numbers.h_t[row, block - 1]))
        total += alpha[i] * ((a - b) ** 2).sum() / ROWS
    return total


def linear(w: dict[str, Array], bank: str, index: int, x: Array) -> Array:
    return x @ w[f"{bank}_maps.weight"][index] + w[f"{bank}_maps.bias"][index]
