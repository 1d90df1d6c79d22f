"""Every objective against a second computation: numpy, double precision, one row and one block at a time.

Written from the equations of the methods (docs/methods.md), not from the code. Widths are unlike (6 and 7) unless a
test says so.
"""

from __future__ import annotations

import itertools
from typing import Any

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
    sigmoid,
    softmax,
    term_of,
    unit,
)

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


def test_the_weight_of_the_intermediate_term_is_the_third_and_a_schedule_scales_it_alone() -> None:
    numbers = Numbers()
    objective, _ = built("rail-kd-l", shared_size=U, weights=[1, 2, 5])
    labels = torch.tensor([0, 1, 2, 0, 1])
    for scale in (1.0, 0.25, 0.0):
        loss, terms = objective(numbers.student, numbers.teacher, labels, DRAW, intermediate_scale=scale)
        parts = (terms[name].item() for name in ("ce", "kd", "intermediate"))
        wanted = sum(weight * part for weight, part in zip((1 / 8, 2 / 8, 5 / 8 * scale), parts, strict=True))
        assert loss.item() == close(wanted)
