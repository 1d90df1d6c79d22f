"""The controls are RAIL-KD with one option changed; the frozen targets are what their names say, from any cache."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from railkd import mapping
from railkd.data.keys import example_key, key_array
from railkd.errors import RailkdError
from railkd.objectives import METHODS, Objective, build_objective
from railkd.objectives.rail import RailLayerwise
from railkd.signals import Moments, Negatives, Signals
from railkd.teacher import CacheWriter, TeacherCache, TeacherInfo
from railkd.teacher.identity import Identity

SHAPES = ((4, 6), (7, 9))  # 3 matched student blocks, 6 candidates, unlike widths
CANDIDATES = (1, 2, 3, 4, 5, 6)
ONLY_STATES = {"weights": [0, 0, 1], "shared_size": 5}


def objective_of(method: str, **options: Any) -> Objective:
    return build_objective(method, *SHAPES, **(ONLY_STATES | options)).double()


def batch(rows: int = 5) -> tuple[Signals, Signals]:
    maker = torch.Generator().manual_seed(0)
    (s, d_s), (n, d_t) = SHAPES
    h_s, h_t = (torch.randn(rows, *size, generator=maker, dtype=torch.double) for size in ((s, d_s), (n, d_t)))
    zeros = torch.zeros(rows, 2, dtype=torch.double)
    return Signals(zeros, h_s), Signals(zeros, h_t)


def moments(states: Tensor) -> Moments:
    return Moments(len(states), states.mean(0), torch.stack([block.T.cov() for block in states.unbind(1)]))


@pytest.fixture(scope="module")
def seen() -> Tensor:
    """Teacher states of 80 rows, far from zero: (80, 7, 9)."""
    maker = torch.Generator().manual_seed(3)
    turn = torch.randn(7, 9, 9, generator=maker, dtype=torch.double)
    return torch.randn(80, 7, 9, generator=maker, dtype=torch.double).unsqueeze(2).matmul(turn).squeeze(2) + 5


# ---- expectation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ["mean", [0.5, 2.0, 1.0]])
@pytest.mark.parametrize("teacher_map", ["trained", "orthogonal", "whitening"])
def test_expected_is_the_exact_mean_over_all_draws_and_all_the_mean_over_all_pairs(
    seen: Tensor, teacher_map: str, alpha: Any
) -> None:
    options: dict[str, Any] = {"teacher_map": teacher_map, "alpha": alpha}
    by_block = {"maps_by": "teacher-block"} if teacher_map == "trained" else {}  # fixed maps are by block anyway
    drawn = objective_of("rail-kd-l", **by_block, **options)
    drawn.fit(moments(seen))
    expected, everything = objective_of("rail-expected", **options), objective_of("rail-all", **options)
    for objective in (expected, everything):
        objective.load_state_dict(drawn.state_dict())
    signals = batch()
    draws = list(itertools.combinations(CANDIDATES, 3))
    assert len(draws) == 20
    mean = np.mean([drawn(*signals, draw=draw)[0].item() for draw in draws])
    assert expected(*signals, draw=CANDIDATES)[0].item() == pytest.approx(mean, rel=1e-6)
    pairs = np.mean([drawn(*signals, draw=(t, t, t))[0].item() for t in CANDIDATES])
    assert everything(*signals, draw=CANDIDATES)[0].item() == pytest.approx(pairs, rel=1e-6)
    assert abs(mean - pairs) > 1e-6  # they are not the same control


def test_the_mean_gradient_over_all_draws_is_that_of_the_expectation() -> None:
    drawn, expected = objective_of("rail-kd-l", maps_by="teacher-block"), objective_of("rail-expected")
    expected.load_state_dict(drawn.state_dict())
    student, teacher = batch()
    gradients = []
    for objective, draws in ((drawn, list(itertools.combinations(CANDIDATES, 3))), (expected, [CANDIDATES])):
        states = student.states.clone().requires_grad_()
        for draw in draws:
            (objective(Signals(student.logits, states), teacher, draw=draw)[0] / len(draws)).backward()
        gradients.append((states.grad, objective.teacher_maps.weight.grad))
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


# ---- one mechanism ---------------------------------------------------------------------------------

PRESETS: dict[str, dict[str, Any]] = {
    "rail-fixed": {"strategy": "even", "redraw": "never"},
    "rail-fixed-random": {"redraw": "never"},
    "rail-unsorted": {"ordered": False},
    "rail-step": {"redraw": "step"},
    "rail-stratified": {"strategy": "stratified"},
    "rail-cyclic": {"strategy": "cyclic"},
    "rail-kd-w": {"teacher_map": "whitening"},
}


def test_every_control_is_a_preset_of_the_one_class() -> None:
    controls = {name for name, spec in METHODS.items() if spec.paper.startswith("control of RAIL-KD")}
    assert controls == {*PRESETS, "rail-all", "rail-expected"} - {"rail-kd-w"}
    assert all(METHODS[name].objective is RailLayerwise for name in controls)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_rail_kd_l_with_its_options(name: str, seen: Tensor) -> None:
    torch.manual_seed(0)
    preset = objective_of(name)
    torch.manual_seed(0)
    spelt_out = objective_of("rail-kd-l", **PRESETS[name])
    for objective in (preset, spelt_out):
        objective.fit(moments(seen))
    signals = batch()
    for epoch in range(8):
        draw = preset.draw(4, epoch=epoch, step=3 * epoch)
        assert draw == spelt_out.draw(4, epoch=epoch, step=3 * epoch)
        assert torch.equal(preset(*signals, draw=draw)[0], spelt_out(*signals, draw=draw)[0])


def drawn_by(name: str, moments: list[tuple[int, int]], **options: Any) -> list[tuple[int, ...]]:
    objective = objective_of(name, **options)
    return [objective.draw(0, epoch=epoch, step=step) for epoch, step in moments]


def test_the_controls_draw_as_they_are_called() -> None:
    epochs = [(e, 10 * e) for e in range(24)]
    steps = [(0, s) for s in range(24)]
    assert set(drawn_by("rail-fixed", epochs)) == {(1, 3, 5)}
    assert len(set(drawn_by("rail-fixed-random", epochs))) == 1
    assert any(list(draw) != sorted(draw) for draw in drawn_by("rail-unsorted", epochs))
    assert len(set(drawn_by("rail-step", steps))) > 5 and len(set(drawn_by("rail-kd-l", steps))) == 1
    assert all(a in (1, 2) and b in (3, 4) and c in (5, 6) for a, b, c in drawn_by("rail-stratified", epochs))
    cyclic = drawn_by("rail-cyclic", epochs)
    assert all({*one, *two} == set(CANDIDATES) for one, two in zip(cyclic[::2], cyclic[1::2], strict=True))
    for name in ("rail-all", "rail-expected"):
        assert set(drawn_by(name, epochs)) == {CANDIDATES}


def test_an_objective_draws_what_the_mapping_draws() -> None:
    for name, options in PRESETS.items():
        kept = {key: value for key, value in options.items() if key in ("strategy", "ordered")}
        redraw = options.get("redraw", "epoch")
        for epoch, step in ((0, 0), (2, 9), (3, 31)):
            index = mapping.draw_index(redraw, epoch=epoch, step=step)
            wanted = mapping.draw(3, 6, seed=8, epoch=index, **kept)
            assert objective_of(name).draw(8, epoch=epoch, step=step) == wanted


def test_an_unknown_choice_of_pkd_blocks_is_refused() -> None:
    with pytest.raises(RailkdError, match="unknown blocks 'skipp'; known: skip, last. Did you mean 'skip'"):
        build_objective("pkd-skip", (3, 8), (6, 8), blocks="skipp")


# ---- frozen targets --------------------------------------------------------------------------------


def cache_of(folder: Path, states: np.ndarray, shards: list[int], *, dtype: str = "float32") -> TeacherCache:
    """A cache of these states (R, n, d), cut into shards of these sizes."""
    rows, n, d = states.shape
    assert sum(shards) == rows
    keys = key_array(example_key(i) for i in range(rows))
    info = TeacherInfo(n, d, ("a", "b"), "single_label_classification", 128)
    with CacheWriter(folder, info, Identity("made up", {}, "none", 128, "float32", dtype)) as writer:
        for start, size in zip(np.cumsum([0, *shards]), shards, strict=False):
            part = slice(int(start), int(start) + size)
            writer.add(keys[part], np.zeros((size, 2), dtype=np.float32), {"mean": states[part].astype(np.float32)})
            writer.flush()
    return TeacherCache.open(folder)


def test_streamed_moments_are_those_of_all_rows_wherever_the_shards_end(tmp_path: Path, seen: Tensor) -> None:
    states = seen.numpy().astype(np.float32)
    wanted = states.astype(np.float64)
    found = []
    for number, shards in enumerate(([80], [1, 79], [33, 7, 40])):
        cache = cache_of(tmp_path / str(number), states, shards)
        held = cache.moments("mean")
        assert held.count == 80
        np.testing.assert_allclose(held.mean, wanted.mean(axis=0), rtol=1e-10)
        for t in range(7):
            np.testing.assert_allclose(held.covariance[t], np.cov(wanted[:, t], rowvar=False), rtol=1e-8, atol=1e-10)
        again = TeacherCache.open(cache.path).moments("mean")
        assert torch.equal(again.mean, held.mean) and torch.equal(again.covariance, held.covariance)
        objective = objective_of("rail-kd-w")
        objective.fit(held)
        found.append(objective.teacher_maps)
    for other in found[1:]:
        torch.testing.assert_close(other.weight, found[0].weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(other.bias, found[0].bias, rtol=1e-5, atol=1e-5)


def test_two_builds_of_a_cache_give_the_same_targets_to_the_last_bit(tmp_path: Path, seen: Tensor) -> None:
    maps = []
    for name in ("one", "two"):
        objective = build_objective("rail-kd-w", *SHAPES, **ONLY_STATES)
        objective.fit(cache_of(tmp_path / name, seen.numpy(), [50, 30], dtype="float16").moments("mean"))
        maps.append(objective.teacher_maps)
    assert torch.equal(maps[0].weight, maps[1].weight) and torch.equal(maps[0].bias, maps[1].bias)


def targets(kind: str, states: Tensor, fitted_on: Moments) -> tuple[Any, Tensor]:
    objective: Any = objective_of("rail-kd-l", teacher_map=kind)
    objective.fit(fitted_on)
    return objective, objective.teacher_maps(states, torch.arange(states.shape[1])).detach()  # (R, n, u)


def test_whitened_targets_have_mean_zero_and_unit_variance_and_no_correlation(tmp_path: Path, seen: Tensor) -> None:
    cache = cache_of(tmp_path, seen.numpy(), [60, 20])
    stored = seen.float().double()
    objective, b = targets("whitening", stored, cache.moments("mean"))
    for t in range(7):
        torch.testing.assert_close(b[:, t].mean(0), torch.zeros(5, dtype=torch.double), atol=1e-6, rtol=0)
        torch.testing.assert_close(b[:, t].T.cov(), torch.eye(5, dtype=torch.double), atol=1e-6, rtol=0)
        w = objective.teacher_maps.weight[t]
        gram = w.T @ w
        torch.testing.assert_close(gram, gram.diag().diag(), atol=1e-9, rtol=0)  # orthogonal directions
    assert not any(parameter.requires_grad for parameter in objective.teacher_maps.parameters())


def test_centred_targets_have_mean_zero_and_the_variances_of_the_principal_components(seen: Tensor) -> None:
    objective, b = targets("centring", seen, moments(seen))
    for t in range(7):
        w = objective.teacher_maps.weight[t]
        torch.testing.assert_close(w.T @ w, torch.eye(5, dtype=torch.double), atol=1e-9, rtol=0)
        largest = torch.linalg.eigvalsh(seen[:, t].T.cov()).flip(0)[:5]
        torch.testing.assert_close(b[:, t].T.cov(), largest.diag(), atol=1e-8, rtol=0)
        torch.testing.assert_close(b[:, t].mean(0), torch.zeros(5, dtype=torch.double), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", ["orthogonal", "whitening", "centring"])
def test_students_maps_of_frozen_targets_are_one_for_each_pair_of_blocks(kind: str, seen: Tensor) -> None:
    objective: Any = objective_of("rail-kd-l", teacher_map=kind)
    objective.fit(moments(seen))
    assert len(objective.student_maps.weight) == 3 * 7 and len(objective.teacher_maps.weight) == 7
    objective(*batch(), draw=(1, 4, 6))[0].backward()
    trained = objective.student_maps.bias.grad.any(dim=1).nonzero().flatten().tolist()
    assert trained == [0 * 7 + 0, 1 * 7 + 3, 2 * 7 + 5]


def test_targets_that_were_not_fitted_or_cannot_be_are_refused(seen: Tensor) -> None:
    with pytest.raises(RailkdError, match="is not fitted on the teacher's states yet"):
        objective_of("rail-kd-w")(*batch(), draw=(1, 2, 3))
    with pytest.raises(RailkdError, match="got 5 rows to fit 5 components"):
        objective_of("rail-kd-w").fit(moments(seen[:5]))
    with pytest.raises(RailkdError, match="at most 9, got shared_size 10"):
        objective_of("rail-kd-w", shared_size=10)


def test_fitted_targets_are_saved_and_loaded(seen: Tensor) -> None:
    one, two = objective_of("rail-kd-w"), objective_of("rail-kd-w")
    one.fit(moments(seen))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(*batch(), draw=(1, 2, 3))[0], two(*batch(), draw=(1, 2, 3))[0])


def test_negatives_learn_nothing() -> None:
    others = torch.randn(2, 3, 7, 9, dtype=torch.double, requires_grad=True)
    student, teacher = batch()
    held = Signals(teacher.logits, teacher.states, Negatives(others, torch.tensor([0, 1, 1, 0, 1])))
    objective = objective_of("codir")
    objective(Signals(student.logits, student.states.requires_grad_()), held)[0].backward()
    assert others.grad is None and student.states.grad is not None and objective.teacher_map.weight.grad.any()


# ---- precision -------------------------------------------------------------------------------------


CONTRASTS = ("codir", "rail-nce")  # they need rows of a cache


@pytest.mark.parametrize("method", [name for name, spec in METHODS.items() if spec.pooling and name not in CONTRASTS])
def test_autocast_does_not_touch_the_objective(method: str, seen: Tensor) -> None:
    torch.manual_seed(0)
    objective = build_objective(method, *SHAPES, **({"shared_size": 5} if method.startswith("rail") else {}))
    objective.fit(moments(seen))
    student, teacher = (Signals(x.logits.float(), x.states.float()) for x in batch())
    draw = objective.draw(0, epoch=0, step=0) or None
    plain = objective(student, teacher, None, draw)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(objective(student, teacher, None, draw)[0], plain)
