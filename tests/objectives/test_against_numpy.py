"""Every objective against a second computation: numpy, double precision, one row and one block at a time.

Written from the equations of the methods (docs/methods.md), not from the code. Widths are unlike (6 and 7) unless a
test says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from railkd.objectives import Objective, build_objective
from railkd.signals import Moments, Negatives, Signals

ROWS, S, N, U = 5, 4, 9, 5
D_S, D_T = 6, 7
M = S - 1
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


# ---- logits ----------------------------------------------------------------------------------------


def test_the_total_is_the_weighted_sum_of_task_and_logit_terms() -> None:
    numbers, labels, temperature = Numbers(), [0, 2, -100, 1, 1], 3.0
    objective, _ = built("kd", weights=[1, 3, 0], temperature=temperature)
    ce = sum(-np.log(softmax(numbers.z_s[row])[y]) for row, y in enumerate(labels) if y >= 0) / ROWS
    p, q = (np.array([softmax(z / temperature) for z in z_of]) for z_of in (numbers.z_t, numbers.z_s))
    kd = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    loss, terms = objective(numbers.student, numbers.teacher, torch.tensor(labels))
    assert terms["ce"].item() == close(ce) and terms["kd"].item() == close(kd)
    assert loss.item() == close(0.25 * ce + 0.75 * kd)


def test_multi_label_takes_the_two_class_form_of_each_label() -> None:
    numbers, temperature = Numbers(), 2.0
    labels = np.array([[1, 0, 1], [0, 0, 1], [np.nan] * 3, [1, 1, 1], [0, 0, 0]], dtype=float)
    objective, _ = built("kd", temperature=temperature, problem_type="multi_label_classification")
    known = [0, 1, 3, 4]
    p = sigmoid(numbers.z_s[known])
    y = labels[known]
    ce = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=1).sum() / ROWS
    kd = 0.0
    for row, label in np.ndindex(ROWS, 3):
        t, s = (sigmoid(z[row, label] / temperature) for z in (numbers.z_t, numbers.z_s))
        kd += temperature**2 * (t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))) / 3 / ROWS
    loss, terms = objective(numbers.student, numbers.teacher, torch.from_numpy(labels))
    assert terms["ce"].item() == close(ce) and terms["kd"].item() == close(kd) and loss.item() == close((ce + kd) / 2)


def test_regression_takes_squared_differences_and_no_temperature() -> None:
    numbers = Numbers(classes=1)
    labels = np.array([0.5, np.nan, -1.0, 2.0, 0.0])
    objective, _ = built("kd", temperature=7.0)
    known = ~np.isnan(labels)
    ce = ((numbers.z_s[known, 0] - labels[known]) ** 2).sum() / ROWS
    kd = ((numbers.z_s - numbers.z_t) ** 2).mean()
    loss, terms = objective(numbers.student, numbers.teacher, torch.from_numpy(labels))
    assert terms["ce"].item() == close(ce) and terms["kd"].item() == close(kd) and loss.item() == close((ce + kd) / 2)


# ---- the compared methods --------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "taught_by"), [("pkd-skip", (2, 4, 6)), ("pkd-last", (6, 7, 8))])
@pytest.mark.parametrize("d_t", [D_S, D_T])
def test_pkd(method: str, taught_by: tuple[int, ...], d_t: int) -> None:
    numbers = Numbers(d_t=d_t)
    objective, w = built(method, d_t=d_t)
    total = 0.0
    for row, (i, block) in itertools.product(range(ROWS), enumerate(taught_by)):
        h = numbers.h_s[row, i]
        if d_t != D_S:
            h = w["student_map.weight"] @ h + w["student_map.bias"]
        total += ((unit(h) - unit(numbers.h_t[row, block - 1])) ** 2).mean()
    assert ("student_map.weight" in w) == (d_t != D_S)
    assert term_of(objective, numbers) == close(total / ROWS / M)


@pytest.mark.parametrize("d_t", [D_S, D_T])
def test_alp_kd(d_t: int) -> None:
    numbers = Numbers(d_t=d_t)
    objective, w = built("alp-kd", d_t=d_t)
    total = 0.0
    for row, j in itertools.product(range(ROWS), range(M)):
        h = numbers.h_s[row, j]
        if d_t != D_S:
            h = w["student_map.weight"] @ h + w["student_map.bias"]
        attention = softmax(np.array([h @ numbers.h_t[row, k] for k in range(N)]))  # over all teacher blocks
        combined = sum(attention[k] * numbers.h_t[row, k] for k in range(N))
        total += ((h - combined) ** 2).mean()
    assert term_of(objective, numbers) == close(total / ROWS / M)


BUCKETS = {  # 9 teacher blocks, 1..8 of them intermediate, for 3 student blocks
    "regular": [(1, 2), (3, 4, 5), (6, 7, 8)],
    "overlapping": [(1, 2, 3), (3, 4, 5, 6), (6, 7, 8)],
    "skipping": [(2,), (4, 5), (7, 8)],
    "cross": [(1, 4, 7), (2, 5, 8), (3, 6)],
}


@pytest.mark.parametrize("bucketing", BUCKETS)
@pytest.mark.parametrize("d_t", [D_S, D_T])
def test_ckd(bucketing: str, d_t: int) -> None:
    numbers = Numbers(d_t=d_t)
    objective, w = built("ckd", d_t=d_t, bucketing=bucketing)
    total = 0.0
    for row, (j, bucket) in itertools.product(range(ROWS), enumerate(BUCKETS[bucketing])):
        combined = np.concatenate([numbers.h_t[row, k - 1] for k in bucket])
        target = w[f"teacher_maps.{j}.weight"] @ combined + w[f"teacher_maps.{j}.bias"]
        total += ((numbers.h_s[row, j] - target) ** 2).mean()
    assert term_of(objective, numbers) == close(total / ROWS / M)


@pytest.mark.parametrize("tau", [0.07, 1.0])
def test_codir(tau: float) -> None:
    numbers = Numbers()
    objective, w = built("codir", shared_size=U, tau=tau)

    def z(side: str, states: Array) -> Array:  # all blocks of one row: (n, d)
        return unit(w[f"{side}_map.weight"] @ np.concatenate(list(states)) + w[f"{side}_map.bias"])

    total = 0.0
    for row in range(ROWS):
        ours = z("student", numbers.h_s[row])
        good = ours @ z("teacher", numbers.h_t[row]) / tau
        others = [
            ours @ z("teacher", numbers.others[numbers.group[row], k]) / tau for k in range(4) if numbers.keep[row, k]
        ]
        total += np.log(np.exp(np.array([good, *others]) - good).sum())  # -log of the share, scaled by e^good
    assert term_of(objective, numbers) == close(total / ROWS)


# ---- RAIL-KD ---------------------------------------------------------------------------------------

DRAW = (2, 3, 8)


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


@pytest.mark.parametrize("alpha", ["mean", "sum", [0.5, 0.0, 2.0]])
@pytest.mark.parametrize("maps_by", ["match", "block", "teacher-block"])
def test_rail_kd_layerwise(alpha: Any, maps_by: str) -> None:
    numbers = Numbers()
    objective, w = built("rail-kd-l", shared_size=U, alpha=alpha, maps_by=maps_by)
    alphas = {"mean": [1 / M] * M, "sum": [1.0] * M}.get(alpha, alpha) if isinstance(alpha, str) else alpha
    total = rail(
        numbers,
        DRAW,
        lambda i, t, h: linear(w, "student", t - 1 if maps_by == "block" else i, h),
        lambda i, t, h: linear(w, "teacher", i if maps_by == "match" else t - 1, h),
        alphas,
    )
    assert term_of(objective, numbers, DRAW) == close(total)


def test_rail_kd_layerwise_that_matches_every_block_to_all() -> None:
    numbers, draw = Numbers(), (2, 3, 8, 9)
    objective, w = built("rail-kd-l", shared_size=U, candidates="all")
    total = rail(
        numbers,
        draw,
        lambda i, t, h: linear(w, "student", i, h),
        lambda i, t, h: linear(w, "teacher", i, h),
        [1 / S] * S,
    )
    assert term_of(objective, numbers, draw) == close(total)


def test_rail_kd_concatenated() -> None:
    numbers = Numbers()
    objective, w = built("rail-kd-c", shared_size=U)
    total = 0.0
    for row in range(ROWS):
        ours = np.concatenate([numbers.h_s[row, i] for i in range(M)])
        theirs = np.concatenate([numbers.h_t[row, t - 1] for t in DRAW])
        a = unit(w["student_map.weight"] @ ours + w["student_map.bias"])
        b = unit(w["teacher_map.weight"] @ theirs + w["teacher_map.bias"])
        total += ((a - b) ** 2).sum() / ROWS
    assert term_of(objective, numbers, DRAW) == close(total)


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


# ---- terms with statistics of the cache ------------------------------------------------------------


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


def test_the_weight_of_the_intermediate_term_is_the_third_and_a_schedule_scales_it_alone() -> None:
    numbers = Numbers()
    objective, _ = built("rail-kd-l", shared_size=U, weights=[1, 2, 5])
    labels = torch.tensor([0, 1, 2, 0, 1])
    for scale in (1.0, 0.25, 0.0):
        loss, terms = objective(numbers.student, numbers.teacher, labels, DRAW, intermediate_scale=scale)
        parts = (terms[name].item() for name in ("ce", "kd", "intermediate"))
        wanted = sum(weight * part for weight, part in zip((1 / 8, 2 / 8, 5 / 8 * scale), parts, strict=True))
        assert loss.item() == close(wanted)
