"""What every method in the table promises. A method added to `METHODS` is held to all of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from railkd.errors import RailkdError
from railkd.functional import UNLABELLED
from railkd.mapping import Draws
from railkd.objectives import METHODS, TERMS, Objective, build_objective, method_spec
from railkd.signals import Moments, Negatives, Signals

SHAPES = {
    "3 of 6, equal widths": ((3, 8), (6, 8)),
    "3 of 6, unlike widths": ((3, 8), (6, 12)),
    "3 of 12, equal widths": ((3, 8), (12, 8)),
    "3 of 12, unlike widths": ((3, 12), (12, 8)),
}
every_method = pytest.mark.parametrize("method", METHODS)
every_shape = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)


@dataclass
class Case:
    """An objective and one batch for it."""

    objective: Objective
    student: Signals
    teacher: Signals
    labels: Tensor | None
    draw: Any

    def loss(self, **changed: Any) -> Tensor:
        parts = {"student": self.student, "teacher": self.teacher, "labels": self.labels, "draw": self.draw} | changed
        return self.objective(**parts)[0]


def build(method: str, shapes: Any = ((3, 8), (6, 8)), **options: Any) -> Objective:
    """An objective for small states, fitted where it wants to be."""
    if "shared_size" in METHODS[method].options:
        options.setdefault("shared_size", 8)
    objective = build_objective(method, *shapes, **options)
    if objective.needs_fit:
        n, d = shapes[1]
        seen = torch.randn(100, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.double)
        objective.fit(Moments(100, seen.mean(0), torch.stack([block.T.cov() for block in seen.unbind(1)])))
    return objective


def make(
    method: str, shapes: Any = ((3, 8), (6, 8)), *, rows: int = 6, classes: int = 3, seed: int = 0, **options: Any
) -> Case:
    torch.manual_seed(seed)
    objective = build(method, shapes, **options)
    (s, d_s), (n, d_t) = shapes
    student = Signals(torch.randn(rows, classes, requires_grad=True), torch.randn(rows, s, d_s, requires_grad=True))
    negatives = Negatives(torch.randn(2, 5, n, d_t), torch.arange(rows) % 2) if objective.negatives else None
    teacher = Signals(torch.randn(rows, classes), torch.randn(rows, n, d_t), negatives)
    labels = torch.arange(rows) % classes
    labels[1] = UNLABELLED
    return Case(objective, student, teacher, labels, objective.draw(seed, epoch=0, step=0) or None)


def of_rows(signals: Signals, rows: Any) -> Signals:
    held = signals.negatives
    others = None if held is None else Negatives(held.states, held.group[rows])
    return Signals(signals.logits[rows], signals.states[rows], others)


def with_states(signals: Signals, states: Tensor) -> Signals:
    """A teacher's signals with other states of the batch; those of the negatives in the same precision."""
    held = signals.negatives
    others = None if held is None else Negatives(held.states.to(states.dtype), held.group)
    return Signals(signals.logits.detach(), states, others)


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
        assert matched[:-1].all()  # every intermediate block
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
    case = make(method)
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


# ---- bad input -------------------------------------------------------------------------------------


NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"weights": [1, -1, 1]}, "got weights"),
    ({"weights": [1, math.nan, 1]}, "got weights"),
    ({"weights": [math.inf, 1, 1]}, "got weights"),
    ({"weights": [0, 0, 0]}, "got weights"),
    ({"weights": [1, 1]}, "Expected 3 numbers"),
    ({"temperature": 0}, "got temperature"),
    ({"temperature": -1.0}, "got temperature"),
    ({"temperature": math.nan}, "got temperature"),
    ({"temperature": math.inf}, "got temperature"),
    ({"temprature": 2.0}, "Did you mean 'temperature'"),
    ({"problem_type": "ranking"}, "unknown problem_type"),
]


@every_method
def test_options_that_make_no_sense_are_refused(method: str) -> None:
    for options, said in NONSENSE:
        with pytest.raises(RailkdError, match=said):
            build(method, **options)


def test_an_unknown_method_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RailkdError, match="unknown method 'rail-kd'; known: .*Did you mean 'rail-kd-"):
        method_spec("rail-kd")


def test_finetune_with_weight_on_the_teacher_alone_is_refused() -> None:
    with pytest.raises(RailkdError, match="nothing is left for the terms ce"):
        build_objective("finetune", (3, 8), (6, 8), weights=[0, 1, 1])


@every_method
def test_signals_of_another_pair_of_models_are_refused(method: str) -> None:
    spec, case = method_spec(method), make(method)
    if spec.needs_teacher:
        with pytest.raises(RailkdError, match="needs the teacher's signals"):
            case.loss(teacher=None)
    if spec.pooling:
        with pytest.raises(RailkdError, match="teacher states of \\(4, 8\\)"):
            case.loss(teacher=with_states(case.teacher, torch.randn(6, 4, 8)))
        with pytest.raises(RailkdError, match="student states of \\(5, 8\\)"):
            case.loss(student=Signals(case.student.logits, torch.randn(6, 5, 8)))
        with pytest.raises(RailkdError, match="student's signals hold logits only"):
            case.loss(student=Signals(case.student.logits))


rail_methods = pytest.mark.parametrize("method", [name for name in METHODS if name.startswith("rail-kd")])


@rail_methods
def test_more_matched_blocks_than_candidates_are_refused(method: str) -> None:
    with pytest.raises(RailkdError, match="6 matched student blocks but only 5 candidate"):
        build(method, ((7, 8), (6, 8)))


@rail_methods
def test_a_student_of_one_block_is_told_of_the_other_candidates(method: str) -> None:
    with pytest.raises(RailkdError, match="candidates='all'"):
        build(method, ((1, 8), (6, 8)))
    assert build(method, ((1, 8), (6, 8)), candidates="all").m == 1


@rail_methods
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"candidates": "al"}, "Did you mean 'all'"),
        ({"redraw": "steps"}, "Did you mean 'step'"),
        ({"strategy": "cycle"}, "Did you mean 'cyclic'"),
        ({"shared_size": 0}, "got shared_size 0"),
    ],
)
def test_rail_options_that_make_no_sense_are_refused(method: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RailkdError, match=said):
        build(method, **options)


@rail_methods
@pytest.mark.parametrize("draw", [None, (1,), (1, 2, 3)])
def test_a_draw_of_another_size_is_refused(method: str, draw: Any) -> None:
    with pytest.raises(RailkdError, match="Expected 2 teacher blocks"):
        make(method).loss(draw=draw)


@pytest.mark.parametrize("alpha", [[1.0], [1.0, -1.0], [1.0, math.nan], "average"])
def test_alphas_that_make_no_sense_are_refused(alpha: Any) -> None:
    with pytest.raises(RailkdError, match="alpha"):
        build_objective("rail-kd-l", (3, 8), (6, 8), alpha=alpha)


# A dict, not a set: every worker of a parallel run must meet the tests in one order.
@pytest.mark.parametrize("cls", dict.fromkeys(METHODS[name].objective for name in METHODS if name.startswith("rail-")))
def test_draws_of_blocks_that_a_model_lacks_are_refused(cls: Any) -> None:
    with pytest.raises(RailkdError, match="at most 3 out of 1 to 6"):
        cls((3, 8), (6, 8), draws=Draws(2, (1, 7)))
    with pytest.raises(RailkdError, match="at most 3 out of 1 to 6"):
        cls((3, 8), (6, 8), draws=Draws(4, (1, 2, 3, 4)))
    assert cls((3, 8), (6, 8), draws=Draws(2, (4, 6))).draw(0, epoch=0, step=0) == (4, 6)


@every_method
def test_a_method_is_the_base_or_final(method: str) -> None:
    cls = METHODS[method].objective
    assert cls.__bases__ == (Objective,) and cls.__subclasses__() == []


# ---- RAIL-KD's own options -------------------------------------------------------------------------


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
