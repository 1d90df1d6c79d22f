"""Every method refuses wrong shapes, draws, labels and empty batches in words instead of computing another number."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tiny
from objectives.cases import Case, build, every_method, make, of_rows
from railkd import Distiller
from railkd.errors import RailkdError
from railkd.functional import kd_loss, task_loss
from railkd.objectives import METHODS
from railkd.signals import Signals
from railkd.teacher import LiveTeacher

drawing = pytest.mark.parametrize("method", [name for name in METHODS if make(name).draw is not None])


@drawing
@pytest.mark.parametrize("wrong", [0, -1, 7, 99, 1.5])
def test_a_draw_of_blocks_that_the_teacher_lacks_is_refused_in_every_form(method: str, wrong: float) -> None:
    case = make(method)
    rest = list(case.draw[1:])
    for draw in ((wrong, *rest), [wrong, *rest], torch.tensor([wrong, *rest])):
        with pytest.raises(RailkdError, match="Expected teacher blocks from 1 to 6, got the draw"):
            case.loss(draw=draw)
    assert torch.equal(case.loss(draw=list(case.draw)), case.loss(draw=torch.tensor(case.draw)))


@every_method
def test_rows_that_would_broadcast_are_refused(method: str) -> None:
    case = make(method)
    logits, states = case.teacher.logits, case.teacher.states
    changes: list[dict[str, Any]] = [{"labels": case.labels[:1]}, {"labels": case.labels[:5]}]
    if METHODS[method].needs_teacher:
        changes += [{"teacher": Signals(x, states, case.teacher.negatives)} for x in (logits[:1], logits[:, :1])]
    if METHODS[method].pooling:
        changes += [{"teacher": Signals(logits, states[:1], case.teacher.negatives)}]
        changes += [{"student": Signals(case.student.logits, case.student.states[:1])}]
    for change in changes:
        with pytest.raises(RailkdError, match="Expected "):
            case.loss(**change)


@every_method
def test_an_empty_batch_is_refused_in_words(method: str) -> None:
    case: Case = make(method)
    empty = slice(0, 0)
    for labels in (case.labels[:0], None):
        with pytest.raises(RailkdError, match="at least one row"):
            case.loss(student=of_rows(case.student, empty), teacher=of_rows(case.teacher, empty), labels=labels)


@every_method
def test_class_labels_that_are_no_integers_are_refused(method: str) -> None:
    case = make(method)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        with pytest.raises(RailkdError, match="Expected one class index for each of 6 rows"):
            case.loss(labels=case.labels.to(dtype))
    assert torch.equal(case.loss(labels=case.labels.int()), case.loss())


def test_outputs_of_a_regression_are_equal_as_a_row_and_as_a_column() -> None:
    student, teacher, labels = torch.randn(3, 5, 1, generator=torch.Generator().manual_seed(0))
    wanted = (student - teacher).square().mean()
    for one, two in ((student, teacher), (student, teacher[:, 0]), (student[:, 0], teacher)):
        torch.testing.assert_close(kd_loss(one, two, problem_type="regression"), wanted)
    assert torch.equal(task_loss(student, labels, "regression"), task_loss(student, labels[:, 0], "regression"))


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification", "regression"])
def test_losses_on_logits_refuse_other_shapes_and_empty_batches(kind: Any) -> None:
    z = torch.zeros(4, 1 if kind == "regression" else 3)
    for teacher in (z[:1], z[:2], z.T, torch.zeros(4, 2), torch.zeros(())):
        with pytest.raises(RailkdError, match="Expected teacher "):
            kd_loss(z, teacher, 1.0, kind)
    with pytest.raises(RailkdError, match="at least one row"):
        kd_loss(z[:0], z[:0], 1.0, kind)
    labels = torch.zeros(12) if kind != "regression" else torch.zeros(2, 2)
    with pytest.raises(RailkdError, match="Expected "):
        task_loss(z, labels, kind)
    with pytest.raises(RailkdError, match="at least one row"):
        task_loss(z[:0], None, kind)


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_class_that_the_teacher_excludes_adds_nothing(kind: Any, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    z_s, z_t = torch.randn(5, 4, generator=generator).requires_grad_(), torch.randn(5, 4, generator=generator)
    z_t[:, 2] = -torch.inf
    nearly = z_t.masked_fill(z_t == -torch.inf, -1e4)
    loss = kd_loss(z_s, z_t, temperature, kind)
    torch.testing.assert_close(loss, kd_loss(z_s, nearly, temperature, kind))
    loss.backward()
    assert z_s.grad.isfinite().all() and z_s.grad.any()
    both = z_s.detach().clone()
    both[:, 2] = -torch.inf  # masked in both models
    both.requires_grad_()
    equal = kd_loss(both, z_t, temperature, kind)
    equal.backward()
    assert equal.isfinite() and both.grad.isfinite().all()
    assert kd_loss(z_t, z_t, temperature, kind) == 0


IDLE: list[dict[str, Any]] = [
    {"ordered": False},
    {"strategy": "stratified"},
    {"strategy": "cyclic"},
    {"redraw": "step"},
    {"maps_by": "block"},
]


@every_method
def test_an_option_of_draws_has_an_effect_or_is_refused(method: str) -> None:
    options = METHODS[method].options
    takes_all = options.get("match", "drawn") != "drawn"
    draws_nothing = takes_all or make(method).draw is None
    fixed_maps = options.get("teacher_map", "trained") != "trained"
    for option in IDLE:
        name = next(iter(option))
        idle = draws_nothing or (fixed_maps and name == "maps_by")
        assert not (idle and name in options)
        if idle:
            with pytest.raises(RailkdError, match=f"has no option '{name}'"):
                build(method, **option)
    if not draws_nothing and "match" in options:
        with pytest.raises(RailkdError, match="ordered=False .*have no effect"):
            build(method, match="expected", ordered=False)


@pytest.mark.parametrize("teacher_map", ["orthogonal", "whitening", "centring"])
@pytest.mark.parametrize("maps_by", ["block", "teacher-block"])
def test_fixed_maps_are_not_indexed_by_choice(teacher_map: str, maps_by: str) -> None:
    with pytest.raises(RailkdError, match=f"so maps_by='{maps_by}' would have no effect"):
        build("rail-kd-l", teacher_map=teacher_map, maps_by=maps_by)


def test_no_mask_is_a_mask_of_ones() -> None:
    student, ids = tiny.make_model(3, dropout=0.0), torch.randint(4, 20, (5, 7))
    distiller = Distiller.from_method("rail-kd-l", student, (4, 16), shared_size=8).train()
    teacher = LiveTeacher(tiny.make_model(4), tiny.make_tokenizer(), poolings=("mean", "cls"))
    found = []
    for mask in ({}, {"attention_mask": None}, {"attention_mask": torch.ones_like(ids)}):
        signals = teacher({f"teacher_{name}": value for name, value in ({"input_ids": ids} | mask).items()}, "mean")
        batch = {"teacher_logits": signals.logits, "teacher_states": signals.states, "draw": torch.tensor([1, 3])}
        found.append(distiller(input_ids=ids, labels=torch.zeros(5).long(), **mask, **batch)[0])
    torch.testing.assert_close(found[0], found[2])
    assert torch.equal(found[0], found[1])
