"""The laws that every method of railkd keeps, as a class of tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
import torch

from railkd.functional import UNLABELLED
from railkd.objectives import TERMS
from railkd.signals import Signals
from railkd.tasks import TASKS
from railkd.testing.cases import SHAPES, SMALL, Case, Method, find_method, make_case, of_rows, with_states

every_shape = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)


class ObjectiveLaws:
    """Tests of one method. A subclass whose name starts with ``Test`` names it.

    Attributes:
        method: a class, a row, a name or an address.
        options: options of the objective that every test gives it.
    """

    method: ClassVar[Method]
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def case(self, shapes: Any = SMALL, **changes: Any) -> Case:
        """Return an objective of this method and a batch for it; see `make_case`."""
        return make_case(self.method, shapes, **(dict(self.options) | changes))

    def check_taught(self, taught: Sequence[bool]) -> None:
        """Check which blocks of a student of three the intermediate term teaches; override it to say more."""
        assert any(taught), "The intermediate term reaches no block of the student, so it teaches nothing."

    # ---- the loss is a loss ------------------------------------------------------------------------

    @every_shape
    def test_the_loss_is_finite_and_the_weighted_sum_of_its_terms(self, shapes: Any) -> None:
        case = self.case(shapes, weights=[1, 2, 3])
        loss, terms = case.objective(case.student, case.teacher, case.labels, case.draw)
        for name, term in terms.items():
            assert term.shape == (), f"The term {name} is no scalar: the loss would add up rows. Take the mean."
            assert term.isfinite(), f"The term {name} is not finite, which ends a training at its first step."
            assert term > 0, f"The term {name} of random states is not above 0, so it would not pull at them."
        assert tuple(terms) == tuple(t for t in TERMS if t in case.objective.terms), "Each term of `terms` is computed."
        weighted = sum(case.objective.weights[name] * term for name, term in terms.items())
        torch.testing.assert_close(loss, weighted, msg="The loss must be the weighted sum of its terms.")

    @every_shape
    def test_the_gradient_reaches_the_student_and_every_projection(self, shapes: Any) -> None:
        case, spec = self.case(shapes), find_method(self.method)
        case.loss().backward()
        assert case.student.logits.grad is not None and case.labels is not None
        taught = case.student.logits.grad.any(dim=1)
        assert torch.equal(taught, torch.ones(6).bool() if spec.needs_teacher else case.labels != UNLABELLED), (
            "Some rows do not teach the student: no gradient reaches their logits."
        )
        if spec.pooling:
            assert case.student.states is not None and case.student.states.grad is not None, (
                "No gradient reaches the student's states: is the term detached?"
            )
            self.check_taught((case.student.states.grad.abs().sum(dim=(0, 2)) > 0).tolist())
        for name, parameter in case.objective.named_parameters():
            assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.any()), (
                f"No gradient reaches {name}, so it would stay as it was drawn."
            )

    def test_the_gradient_never_reaches_the_teacher(self) -> None:
        case = self.case()
        assert case.teacher.states is not None
        case.teacher.logits.requires_grad_()
        case.teacher.states.requires_grad_()
        case.loss().backward()
        assert case.teacher.logits.grad is None and case.teacher.states.grad is None, (
            "A gradient reaches the teacher's signals, so a live teacher would be changed and a cache cannot be read."
        )

    def test_training_on_one_batch_brings_the_loss_down_and_moves_every_projection(self) -> None:
        case = self.case()
        assert case.student.states is not None
        before = {name: parameter.clone() for name, parameter in case.objective.named_parameters()}
        start = case.loss()
        optimizer = torch.optim.Adam([case.student.logits, case.student.states, *case.objective.parameters()], 0.01)
        for _ in range(20):
            optimizer.zero_grad()
            case.loss().backward()
            optimizer.step()
        assert case.loss() < start, "Twenty steps on one batch do not lower the loss, so training would not either."
        for name, parameter in case.objective.named_parameters():
            assert not parameter.requires_grad or not torch.equal(parameter, before[name]), f"{name} is not trained."

    # ---- rows --------------------------------------------------------------------------------------

    def test_the_order_of_rows_does_not_matter(self) -> None:
        case = self.case()
        assert case.labels is not None
        other = torch.tensor([3, 0, 5, 1, 4, 2])
        shuffled = case.loss(
            student=of_rows(case.student, other), teacher=of_rows(case.teacher, other), labels=case.labels[other]
        )
        torch.testing.assert_close(shuffled, case.loss(), msg="The loss depends on the order of the rows of a batch.")

    def test_states_of_the_blocks_that_are_read_are_enough_and_no_other_has_a_part(self) -> None:
        case = self.case(((4, 8), (6, 8)))
        m, states = case.objective.m, case.student.states
        assert states is not None
        loss = case.loss()
        gradient = torch.autograd.grad(loss, states, allow_unused=True)[0]
        assert gradient is None or not gradient[:, m:].any(), f"Blocks above m={m} are read, but training pools 1..m."
        assert torch.equal(loss, case.loss(student=Signals(case.student.logits, states[:, :m]))), (
            f"With the states of blocks 1..m alone (m={m}) the loss differs. Fix: read self.student_states(student)."
        )

    def test_splitting_a_batch_changes_nothing(self) -> None:
        """Methods that compare rows with each other (``over_pairs``) are held to this for their other terms."""
        case = self.case()
        if case.objective.over_pairs:
            pairs = self.case(weights=[0, 0, 1])
            rows = [(of_rows(pairs.student, [i]), of_rows(pairs.teacher, [i])) for i in range(6)]
            alone = sum(pairs.loss(student=ours, teacher=theirs, labels=None) for ours, theirs in rows) / 6
            assert not torch.isclose(torch.as_tensor(alone), pairs.loss(), rtol=0.1), (
                "Rows alone give the loss of the batch, so the term compares no rows. Fix: leave over_pairs out."
            )
            case = self.case(weights=[1, 1, 0])
        assert case.labels is not None
        split = torch.zeros(())
        for part in (slice(0, 1), slice(1, 2), slice(2, 6)):  # the second has no label at all
            share = (part.stop - part.start) / 6
            ours, theirs = of_rows(case.student, part), of_rows(case.teacher, part)
            split = split + share * case.loss(student=ours, teacher=theirs, labels=case.labels[part])
        torch.testing.assert_close(
            split,
            case.loss(),
            msg="The mean over the parts of a batch is not the loss of the batch, so gradient accumulation and more "
            "ranks would train otherwise. Fix: take the mean over rows, or set over_pairs = True.",
        )

    def test_a_teachers_row_teaches_its_own_student_row(self) -> None:
        case = self.case()
        if find_method(self.method).needs_teacher:
            other = case.loss(teacher=of_rows(case.teacher, [1, 2, 3, 4, 5, 0]))
            assert not torch.isclose(other, case.loss()), "Each row may as well be taught by another teacher's row."
        else:
            assert torch.equal(case.loss(teacher=None), case.loss())

    # ---- precision ---------------------------------------------------------------------------------

    @every_shape
    def test_half_precision_stays_finite(self, shapes: Any) -> None:
        case = self.case(shapes)
        assert case.student.states is not None and case.teacher.states is not None
        for dtype in (torch.float16, torch.bfloat16):
            for size in (1.0, 3e4):
                logits = case.student.logits.detach().to(dtype).requires_grad_()
                states = (size * case.student.states.detach().tanh()).to(dtype).requires_grad_()
                teacher = with_states(case.teacher, (size * case.teacher.states.tanh()).to(dtype))
                loss = case.loss(student=Signals(logits, states), teacher=teacher)
                loss.backward()
                finite = [loss, *(t.grad for t in (logits, states) if t.grad is not None)]
                assert all(bool(t.isfinite().all()) for t in finite), (
                    f"Loss or gradient is not finite for {dtype} states of size {size:g}: a run in half precision "
                    "would stop. Fix: compute in the precision of states_of(...), and clamp what is divided by."
                )

    def test_half_precision_teacher_states_give_nearly_the_same_loss(self) -> None:
        case = self.case()
        assert case.teacher.states is not None
        stored = with_states(case.teacher, case.teacher.states.half())
        said = "A cache stores float16 states, which change this loss by more than 0.1 %."
        torch.testing.assert_close(case.loss(teacher=stored), case.loss(), rtol=1e-3, atol=1e-5, msg=said)

    @every_shape
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_maps_of_half_precision_compute_in_the_precision_of_the_states(self, shapes: Any, dtype: Any) -> None:
        case = self.case(shapes)
        case.objective.to(dtype)
        rounded = case.loss()
        rounded.backward()
        assert all(p.grad is not None and p.grad.dtype == dtype for p in case.objective.parameters() if p.requires_grad)
        case.objective.float()  # the same weights, still rounded
        said = "Maps in half precision compute otherwise. Fix: use railkd.objectives.Linear for nn.Linear."
        torch.testing.assert_close(rounded, case.loss(), rtol=0, atol=0, msg=said)

    @every_shape
    def test_states_of_double_precision_are_computed_so_whatever_the_maps(self, shapes: Any) -> None:
        case = self.case(shapes)
        assert case.student.states is not None and case.teacher.states is not None
        doubled = {
            "student": Signals(case.student.logits.double(), case.student.states.double()),
            "teacher": with_states(case.teacher, case.teacher.states.double()),
        }
        single_maps = case.loss(**doubled)
        case.objective.double()
        said = "States in double precision are not computed in it. Fix: use railkd.objectives.Linear for nn.Linear."
        torch.testing.assert_close(single_maps, case.loss(**doubled), rtol=1e-6, atol=1e-7, msg=said)

    # ---- ranks, resuming, labels -------------------------------------------------------------------

    def test_an_objective_is_the_same_for_the_same_seed_and_in_one_run_twice(self) -> None:
        one, two = self.case(seed=5), self.case(seed=5)
        said = "The same seed gives another objective or loss, so ranks would differ and a resumed run too."
        assert torch.equal(one.loss(), two.loss()) and torch.equal(one.loss(), one.loss()), said
        moments = [(epoch, step) for epoch in range(4) for step in (0, 7)]
        draws = [one.objective.draw(5, epoch=e, step=s) for e, s in moments]
        assert draws == [two.objective.draw(5, epoch=e, step=s) for e, s in reversed(moments)][::-1], (
            "A draw depends on the draws before it, so ranks would differ and a resumed run too."
        )

    @pytest.mark.parametrize("kind", [name for name, task in TASKS.items() if task.real_labels])
    def test_other_kinds_of_labels_train_too(self, kind: str) -> None:
        task = TASKS[kind]
        case = self.case(classes=task.width or 3, problem_type=task.problem_type)
        labels = (torch.rand(6, case.student.logits.shape[1]) > 0.5).float()
        labels[1] = math.nan
        case.loss(labels=labels).backward()
        assert case.student.logits.grad is not None
        assert case.loss(labels=labels).isfinite() and case.student.logits.grad.isfinite().all(), (
            f"Loss or gradient of a {kind} is not finite."
        )
        terms = case.objective(Signals(case.teacher.logits, case.student.states), case.teacher, labels, case.draw)[1]
        assert "kd" not in terms or terms["kd"].abs() < 1e-6

    def test_no_labels_at_all_are_unlabelled_rows(self) -> None:
        case = self.case()
        marked = torch.full((6,), UNLABELLED)
        assert torch.equal(case.loss(labels=None), case.loss(labels=marked)), "Rows without labels change the loss."
        loss, terms = case.objective(case.student, case.teacher, None, case.draw)
        assert loss.isfinite() and terms["ce"] == 0

    def test_weights_survive_saving_and_loading(self) -> None:
        one, two = self.case(seed=1), self.case(seed=2)
        two.objective.load_state_dict(one.objective.state_dict())
        assert torch.equal(two.objective(one.student, one.teacher, one.labels, one.draw)[0], one.loss()), (
            "Saved and loaded, the objective computes another loss, so a resumed run would go on otherwise. Fix: keep "
            "what it has learned or fitted in parameters and buffers."
        )

    # ---- weights of the terms ----------------------------------------------------------------------

    def test_weights_are_dropped_to_the_terms_a_method_has_and_sum_to_one(self) -> None:
        assert sum(self.case().objective.weights.values()) == pytest.approx(1)
        for weights in ([1, 1, 1], [0.2, 0.3, 0.5], [10, 0, 1]):
            objective = self.case(weights=weights).objective
            kept = {name: w for name, w in zip(TERMS, weights, strict=True) if name in objective.terms}
            assert objective.weights == pytest.approx({name: w / sum(kept.values()) for name, w in kept.items()})

    def test_a_term_of_no_weight_is_not_computed(self) -> None:
        case = self.case(weights=[1, 0, 0])
        loss, terms = case.objective(Signals(case.student.logits), None, case.labels, case.draw)
        assert list(terms) == ["ce"] and loss == terms["ce"], "A term without weight is computed, and costs its time."
