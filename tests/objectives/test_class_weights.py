"""Class weights: 1 changes nothing, splits change nothing, and the numbers are those of torch and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from objectives.cases import make, of_rows
from railkd.errors import RailkdError
from railkd.functional import UNLABELLED, kl_of_classes
from railkd.objectives import build_objective
from railkd.objectives.class_weights import balanced, normalised
from railkd.signals import Signals

WEIGHTS = [0.25, 1.5, 4.0]
both = pytest.mark.parametrize("on_logits", [False, True])


@pytest.mark.parametrize("method", ["kd", "rail-kd-l", "gram"])
@both
def test_weights_of_one_change_no_bit(method: str, on_logits: bool) -> None:
    plain = make(method)
    case = make(method, class_weights=[1, 1, 1], class_weights_on_logits=on_logits)
    ours, theirs = case.loss(), plain.loss()
    ours.backward()
    theirs.backward()
    assert torch.equal(ours, theirs) and torch.equal(case.student.logits.grad, plain.student.logits.grad)  # type: ignore[arg-type]


@both
def test_splitting_a_batch_changes_nothing(on_logits: bool) -> None:
    """The second part has no label at all."""
    case = make("kd", class_weights=WEIGHTS, class_weights_on_logits=on_logits)
    assert case.labels is not None and not torch.isclose(case.loss(), make("kd").loss(), rtol=1e-3)
    split = sum(
        case.loss(student=of_rows(case.student, p), teacher=of_rows(case.teacher, p), labels=case.labels[p])
        * (p.stop - p.start)
        / 6
        for p in (slice(0, 1), slice(1, 2), slice(2, 6))
    )
    torch.testing.assert_close(split, case.loss())


def test_over_all_rows_normalised_weights_give_the_weighted_mean_of_torch() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 2])
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    objective = build_objective("finetune", (3, 8), (3, 8), class_weights=normalised(WEIGHTS, labels.numpy()))
    loss, _ = objective(Signals(logits, None), None, labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, torch.tensor(WEIGHTS)))


def test_the_logit_term_of_a_row_has_the_weight_of_its_class_and_one_without_a_label() -> None:
    case = make("kd", weights=[0, 1, 0], temperature=2.0, class_weights=WEIGHTS, class_weights_on_logits=True)
    assert case.labels is not None
    rows = [kl_of_classes(case.student.logits[[i]], case.teacher.logits[[i]], 2.0) for i in range(6)]
    by_hand = sum(
        row * (1 if label == UNLABELLED else WEIGHTS[label]) for row, label in zip(rows, case.labels, strict=True)
    )
    torch.testing.assert_close(case.loss(), by_hand / 6)
    assert torch.equal(case.loss(labels=None), make("kd", weights=[0, 1, 0], temperature=2.0).loss(labels=None))


def test_with_several_labels_a_row_the_weight_is_that_of_a_label_that_applies() -> None:
    several = {"problem_type": "multi_label_classification", "class_weights": WEIGHTS}
    objective = build_objective("finetune", (3, 8), (3, 8), **several)
    logits, labels = torch.randn(4, 3), torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 0], [float("nan")] * 3])
    wanted = F.binary_cross_entropy_with_logits(logits[:3], labels[:3], pos_weight=torch.tensor(WEIGHTS))
    torch.testing.assert_close(objective(Signals(logits, None), None, labels)[0], wanted * 3 / 4)


def test_weights_move_with_the_objective_and_stay_out_of_its_checkpoint() -> None:
    objective = build_objective("kd", (3, 8), (6, 8), class_weights=WEIGHTS)
    assert objective.state_dict() == {} and objective.double().class_weights.dtype is torch.double  # type: ignore[union-attr]


def test_balanced_weights_are_those_of_scikit_learn_and_of_hand() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [3])
    theirs = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    assert balanced(labels, 4) == pytest.approx([theirs[0], theirs[1], 1.0, theirs[2]])
    assert np.asarray(balanced(labels, 4))[labels].mean() == pytest.approx(1.0)
    assert balanced(np.array([0, 1, 1, 0]), 2) == [1.0, 1.0]
    several = np.array([[1.0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]])
    assert balanced(several, 3) == [3.0, 1.0, 1.0]  # 3 rows without to 1 with; one side alone is not weighed
    assert normalised([7.0, 7.0], np.array([0, 1, 1])) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": [1.0, 0.0]}, "Expected a finite number above 0 for each class"),
        ({"class_weights": ["balanced"]}, "the command line alone computes .balanced."),
        ({"class_weights": [1.0, -1.0]}, "Expected a finite number above 0"),
        ({"class_weights": [1.0, float("nan")]}, "Expected a finite number above 0"),
        ({"class_weights": [1.0, float("inf")]}, "Expected a finite number above 0"),
        ({"class_weights": []}, "Expected a finite number above 0"),
        ({"class_weights": [1.0, 2.0], "problem_type": "regression"}, "need classes, and regression has none"),
        ({"class_weights": [1.0, 2.0], "weights": [0, 1, 0]}, "the task term has no weight"),
        ({"class_weights": [1.0, 2.0], "weights": [1, 0, 0], "class_weights_on_logits": True}, "the logit term has no"),
        ({"class_weights_on_logits": True}, "no effect without class_weights"),
        (
            {
                "class_weights": [1.0, 2.0],
                "class_weights_on_logits": True,
                "problem_type": "multi_label_classification",
            },
            "needs one class a row, and multi-label has any number",
        ),
    ],
)
def test_weights_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RailkdError, match=message):
        build_objective("kd", (3, 8), (6, 8), **options)
