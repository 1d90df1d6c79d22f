"""Laws that every method in the table keeps. A new row of `METHODS` inherits them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from objectives.cases import build, every_method, every_shape, make, of_rows, with_states
from railkd.functional import UNLABELLED
from railkd.objectives import METHODS, TERMS, Objective, build_objective, method_spec
from railkd.signals import Signals

# ---- the loss is a loss ----------------------------------------------------------------------------


@every_method
@every_shape
def test_the_loss_is_finite_and_the_weighted_sum_of_its_terms(method: str, shapes: Any) -> None:
    case = make(method, shapes, weights=[1, 2, 3])
    loss, terms = case.objective(case.student, case.teacher, case.labels, case.draw)
    assert loss.shape == () and loss.isfinite() and all(term.isfinite() and term > 0 for term in terms.values())
    assert tuple(terms) == tuple(t for t in TERMS if t in case.objective.terms)
    torch.testing.assert_close(loss, sum(case.objective.weights[name] * term for name, term in terms.items()))


@every_method
@every_shape
def test_the_gradient_reaches_the_student_and_every_projection(method: str, shapes: Any) -> None:
    case = make(method, shapes)
    case.loss().backward()
    taught = case.student.logits.grad.any(dim=1)
    assert torch.equal(taught, torch.ones(6).bool() if METHODS[method].needs_teacher else case.labels != UNLABELLED)
    if METHODS[method].pooling:
        matched = case.student.states.grad.abs().sum(dim=(0, 2)) > 0
        # Every intermediate block, but for the method that teaches the last one alone.
        assert matched[:-1].all() if method != "last-block" else matched.tolist() == [False, False, True]
    for name, parameter in case.objective.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.any()), name


@every_method
def test_the_gradient_never_reaches_the_teacher(method: str) -> None:
    case = make(method)
    case.teacher.logits.requires_grad_()
    case.teacher.states.requires_grad_()
    case.loss().backward()
    assert case.teacher.logits.grad is None and case.teacher.states.grad is None


@every_method
def test_training_on_one_batch_brings_the_loss_down_and_moves_every_projection(method: str) -> None:
    case = make(method)
    before = {name: parameter.clone() for name, parameter in case.objective.named_parameters()}
    start = case.loss()
    optimizer = torch.optim.Adam([case.student.logits, case.student.states, *case.objective.parameters()], 0.01)
    for _ in range(20):
        optimizer.zero_grad()
        case.loss().backward()
        optimizer.step()
    assert case.loss() < start
    for name, parameter in case.objective.named_parameters():
        assert not parameter.requires_grad or not torch.equal(parameter, before[name]), name


@every_method
def test_the_order_of_rows_does_not_matter(method: str) -> None:
    case = make(method)
    other = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = case.loss(
        student=of_rows(case.student, other), teacher=of_rows(case.teacher, other), labels=case.labels[other]
    )
    torch.testing.assert_close(shuffled, case.loss())


@every_method
def test_states_of_the_blocks_that_are_read_are_enough_and_no_other_has_a_part(method: str) -> None:
    case = make(method, ((4, 8), (6, 8)))
    m, states = case.objective.m, case.student.states
    assert states is not None
    loss = case.loss()
    gradient = torch.autograd.grad(loss, states, allow_unused=True)[0]
    assert gradient is None or not gradient[:, m:].any()
    assert torch.equal(loss, case.loss(student=Signals(case.student.logits, states[:, :m])))


@every_method
def test_splitting_a_batch_changes_nothing(method: str) -> None:
    """Methods that compare rows with each other are held to this for their other terms."""
    case = make(method)
    if case.objective.over_pairs:
        pairs = make(method, weights=[0, 0, 1])
        rows = [(of_rows(pairs.student, [i]), of_rows(pairs.teacher, [i])) for i in range(6)]
        alone = sum(pairs.loss(student=ours, teacher=theirs, labels=None) for ours, theirs in rows) / 6
        assert not torch.isclose(alone, pairs.loss(), rtol=0.1)
        case = make(method, weights=[1, 1, 0])
    parts = [slice(0, 1), slice(1, 2), slice(2, 6)]  # the second has no label at all
    split = sum(
        case.loss(student=of_rows(case.student, p), teacher=of_rows(case.teacher, p), labels=case.labels[p])
        * (p.stop - p.start)
        / 6
        for p in parts
    )
    torch.testing.assert_close(split, case.loss())


@every_method
def test_a_teachers_row_teaches_its_own_student_row(method: str) -> None:
    case = make(method)
    if method_spec(method).needs_teacher:
        assert not torch.isclose(case.loss(teacher=of_rows(case.teacher, [1, 2, 3, 4, 5, 0])), case.loss())
    else:
        assert torch.equal(case.loss(teacher=None), case.loss())


@every_method
@every_shape
def test_half_precision_stays_finite(method: str, shapes: Any) -> None:
    case = make(method, shapes)
    for dtype in (torch.float16, torch.bfloat16):
        for size in (1.0, 3e4):
            logits = case.student.logits.detach().to(dtype).requires_grad_()
            states = (size * case.student.states.detach().tanh()).to(dtype).requires_grad_()
            teacher = with_states(case.teacher, (size * case.teacher.states.tanh()).to(dtype))
            loss = case.loss(student=Signals(logits, states), teacher=teacher)
            loss.backward()
            assert loss.isfinite() and logits.grad.isfinite().all()
            assert states.grad is None or states.grad.isfinite().all()


@every_method
def test_half_precision_teacher_states_give_nearly_the_same_loss(method: str) -> None:
    case = make(method)
    stored = with_states(case.teacher, case.teacher.states.half())
    torch.testing.assert_close(case.loss(teacher=stored), case.loss(), rtol=1e-3, atol=1e-5)


@every_method
@every_shape
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_of_half_precision_compute_in_the_precision_of_the_states(method: str, shapes: Any, dtype: Any) -> None:
    case = make(method, shapes)
    case.objective.to(dtype)
    rounded = case.loss()
    rounded.backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in case.objective.parameters() if p.requires_grad)
    case.objective.float()  # the same weights, still rounded
    torch.testing.assert_close(rounded, case.loss(), rtol=0, atol=0)


@every_method
@every_shape
def test_states_of_double_precision_are_computed_so_whatever_the_maps(method: str, shapes: Any) -> None:
    case = make(method, shapes)
    doubled = {
        "student": Signals(case.student.logits.double(), case.student.states.double()),
        "teacher": with_states(case.teacher, case.teacher.states.double()),
    }
    single_maps = case.loss(**doubled)
    case.objective.double()
    torch.testing.assert_close(single_maps, case.loss(**doubled), rtol=1e-6, atol=1e-7)


@every_method
def test_an_objective_is_the_same_for_the_same_seed_and_in_one_run_twice(method: str) -> None:
    one, two = make(method, seed=5), make(method, seed=5)
    assert torch.equal(one.loss(), two.loss()) and torch.equal(one.loss(), one.loss())
    moments = [(epoch, step) for epoch in range(4) for step in (0, 7)]
    draws = [one.objective.draw(5, epoch=e, step=s) for e, s in moments]
    assert draws == [two.objective.draw(5, epoch=e, step=s) for e, s in reversed(moments)][::-1]


@every_method
@pytest.mark.parametrize("kind", ["regression", "multi_label_classification"])
def test_other_kinds_of_labels_train_too(method: str, kind: Any) -> None:
    case = make(method, classes=1 if kind == "regression" else 3, problem_type=kind)
    labels = (torch.rand(6, case.student.logits.shape[1]) > 0.5).float()
    labels[1] = math.nan
    case.loss(labels=labels).backward()
    assert case.loss(labels=labels).isfinite() and case.student.logits.grad.isfinite().all()
    terms = case.objective(Signals(case.teacher.logits, case.student.states), case.teacher, labels, case.draw)[1]
    assert "kd" not in terms or terms["kd"].abs() < 1e-6


@every_method
def test_no_labels_at_all_are_unlabelled_rows(method: str) -> None:
    case = make(method)
    marked = torch.full((6,), UNLABELLED)
    assert torch.equal(case.loss(labels=None), case.loss(labels=marked))
    loss, terms = case.objective(case.student, case.teacher, None, case.draw)
    assert loss.isfinite() and terms["ce"] == 0


@every_method
def test_weights_survive_saving_and_loading(method: str) -> None:
    one, two = make(method, seed=1), make(method, seed=2)
    two.objective.load_state_dict(one.objective.state_dict())
    assert torch.equal(two.objective(one.student, one.teacher, one.labels, one.draw)[0], one.loss())


# ---- weights ---------------------------------------------------------------------------------------


@every_method
def test_weights_are_dropped_to_the_terms_a_method_has_and_sum_to_one(method: str) -> None:
    assert sum(build(method).weights.values()) == pytest.approx(1)
    for weights in ([1, 1, 1], [0.2, 0.3, 0.5], [10, 0, 1]):
        objective = build(method, weights=weights)
        kept = {name: w for name, w in zip(TERMS, weights, strict=True) if name in objective.terms}
        assert objective.weights == pytest.approx({name: w / sum(kept.values()) for name, w in kept.items()})


def test_the_defaults_are_equal_weights() -> None:
    assert build_objective("kd", (3, 8), (6, 8)).weights == {"ce": 0.5, "kd": 0.5}
    assert build_objective("rail-kd-l", (3, 8), (6, 8)).weights == pytest.approx(dict.fromkeys(TERMS, 1 / 3))


@every_method
def test_a_term_of_no_weight_is_not_computed(method: str) -> None:
    case = make(method, weights=[1, 0, 0])
    student = Signals(case.student.logits)
    loss, terms = case.objective(student, None, case.labels, case.draw)
    assert list(terms) == ["ce"] and loss == terms["ce"]


@every_method
def test_a_method_is_the_base_or_final(method: str) -> None:
    cls = METHODS[method].objective
    assert cls.__bases__ == (Objective,) and cls.__subclasses__() == []
