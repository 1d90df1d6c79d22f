"""Metrics, each once by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from railkd.data.glue import GLUE, GlueTask
from railkd.data.labels import Fold, LabelSpace
from railkd.errors import RailkdError
from railkd.tasks import Task, task_of
from railkd.tasks.metrics import METRICS, check_choice, compute, describe_gaps, find_metric, greater_is_better
from railkd.tasks.scored import scored_rows

CLASSES, NUMBERS = task_of("single_label_classification"), task_of("regression")


def logits(predicted: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[predicted]


def test_two_classes_by_hand() -> None:
    # class 1: 1 hit, 1 false alarm, 1 miss: f1 = 2 / 4; class 0: 2 hits of 3 each way: f1 = 4 / 6
    labels, answers = np.array([0, 0, 0, 1, 1]), logits([0, 0, 1, 1, 0], 2)
    got = CLASSES.score(answers, labels, metrics=["f1", "accuracy", "matthews"])
    assert list(got) == ["f1", "accuracy", "matthews"]
    assert got == pytest.approx({"f1": 0.5, "accuracy": 0.6, "matthews": (1 * 2 - 1 * 1) / 6})
    assert CLASSES.score(answers, labels, LabelSpace(("no", "yes")), positive="No")["f1"] == pytest.approx(2 / 3)


def test_f1_of_more_classes_is_the_mean_over_classes() -> None:
    got = CLASSES.score(logits([0, 1, 1, 2], 3), np.array([0, 1, 2, 2]))
    assert got == pytest.approx({"accuracy": 0.75, "f1": (1 + 2 / 3 + 2 / 3) / 3})


def test_regression_by_hand() -> None:
    got = NUMBERS.score(np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 2.0, 3.0]))
    assert got == pytest.approx({"pearson": 3 / np.sqrt(2 * 14 / 3), "spearman": 1.0, "mse": 1 / 3})


@pytest.mark.parametrize("constant", ["outputs", "labels", "one row"])
def test_a_correlation_with_a_constant_is_zero(constant: str) -> None:
    one, two = np.ones(3), np.array([1.0, 2.0, 3.0])
    pair = {"outputs": (one, two), "labels": (two, one), "one row": (two[:1], two[:1])}[constant]
    got = NUMBERS.score(pair[0], pair[1])
    assert got["pearson"] == 0.0 and got["spearman"] == 0.0 and np.isfinite(got["mse"])


@pytest.mark.parametrize("metrics", [["accuracy"], ["f1"], ["matthews"]])
def test_rows_without_a_label_do_not_count(metrics: list[str]) -> None:
    labels, answers = np.array([0, 1, 1, 0]), logits([0, 1, 0, 1], 2)
    more = np.concatenate([answers, logits([1, 1], 2)])
    got = CLASSES.score(more, np.concatenate([labels, [-100, -100]]), metrics=metrics)
    assert got == CLASSES.score(answers, labels, metrics=metrics)


def test_regression_rows_without_a_label_do_not_count() -> None:
    got = NUMBERS.score(np.array([1.0, 2.0, 9.0]), np.array([2.0, 4.0, np.nan]))
    assert got == pytest.approx({"pearson": 1.0, "spearman": 1.0, "mse": 2.5})


@pytest.mark.parametrize(
    ("answers", "labels", "task", "options", "message"),
    [
        (np.zeros((2, 2)), np.zeros(2), CLASSES, {"metrics": ["acc"]}, "no metric 'acc'.*Did you mean"),
        (np.zeros((2, 2)), np.zeros(2), CLASSES, {"metrics": ["mse"]}, "for classification"),
        (np.zeros((2, 1)), np.zeros(2), NUMBERS, {"metrics": ["f1"]}, "for regression"),
        (np.zeros((2, 2)), np.zeros(3), CLASSES, {}, "shape"),
        (np.zeros((2, 2)), np.zeros(2), NUMBERS, {}, "shape"),
        (np.zeros(2), np.zeros(2), CLASSES, {}, "shape"),
        (np.zeros((2, 2)), np.full(2, -100), CLASSES, {}, "no row has a label"),
        (np.zeros((0, 2)), np.zeros(0), CLASSES, {}, "no row has a label"),
        (np.array([[0, np.nan], [0, 1]]), np.zeros(2), CLASSES, {}, "not finite in 1 of 2 rows"),
    ],
)
def test_what_cannot_be_scored(answers: Any, labels: Any, task: Task, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RailkdError, match=message):
        task.score(answers, labels, **options)


def test_the_first_metric_selects() -> None:
    assert NUMBERS.primary_metric() == "pearson" and NUMBERS.primary_metric(["mse"]) == "mse"
    assert not greater_is_better("mse") and greater_is_better("accuracy")


@pytest.mark.parametrize("task", GLUE, ids=lambda task: task.name)
def test_every_task_names_metrics_there_are(task: GlueTask) -> None:
    kind = task_of(task.problem_type)
    assert all(kind.name in METRICS[name].tasks for name in task.metrics)
    assert kind.primary_metric(task.metrics) == task.metrics[0]


# ---- metrics by name ------------------------------------------------------------------------------------------------

SEVERAL = task_of("multi_label_classification")
#: Example of scikit-learn's guide to ROC curves and to average precision: labels and the score of the second class.
PUBLISHED = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])


def as_logits(shares: np.ndarray) -> np.ndarray:
    """Return logits of two classes in which the second has these probabilities."""
    return np.stack([np.log1p(-shares), np.log(shares)], axis=1)


def test_metrics_of_two_classes_are_the_published_ones() -> None:
    """The areas are those of scikit-learn's documentation, 0.75 and 0.83; the rest is computed by hand."""
    labels, shares = PUBLISHED
    names = ["auroc", "auprc", "log-loss", "brier", "recall@fpr=0.5", "recall@fpr=0.49"]
    got = CLASSES.score(as_logits(shares), labels, metrics=names)
    log_loss = -np.mean(np.log([0.9, 0.6, 0.35, 0.8]))
    brier = np.mean([0.1**2, 0.4**2, 0.65**2, 0.2**2])
    # Above 0.4 stands the row of 0.8 alone: half of the positive rows at no false one. Both need the row of 0.4 too.
    by_hand = {"auroc": 0.75, "auprc": 5 / 6, "log_loss": log_loss, "brier": brier}
    assert got == pytest.approx(by_hand | {"recall@fpr=0.5": 1.0, "recall@fpr=0.49": 0.5})


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4, 0.5, 0.9])
def test_recall_at_a_rate_is_that_of_the_best_threshold_also_where_scores_tie(rate: float) -> None:
    shares = np.array([0.9, 0.9, 0.8, 0.8, 0.7, 0.7, 0.6, 0.6, 0.5, 0.5])
    labels = np.array([1, 0] * 5)
    reached = [(shares >= cut, labels) for cut in [2, *np.unique(shares)]]
    best = max(given[has == 1].mean() for given, has in reached if given[has == 0].mean() <= rate)
    got = CLASSES.score(as_logits(shares), labels, metrics=[f"recall@fpr={rate}"])
    assert got == pytest.approx({f"recall@fpr={rate:g}": best})


def test_the_positive_class_is_the_one_whose_curves_are_meant() -> None:
    labels, shares = np.array([0, 0, 1]), np.array([0.2, 0.9, 0.6])
    space = LabelSpace(("bad", "good"))
    usual, other = (
        CLASSES.score(as_logits(shares), labels, space, metrics=["auprc", "auroc"], positive=name)
        for name in (None, "bad")
    )
    # good: its row is second of three, precision 1/2; bad, by falling share of good: first and third, (1 + 2/3) / 2
    assert usual == pytest.approx({"auprc": 1 / 2, "auroc": 1 / 2})
    assert other == pytest.approx({"auprc": 5 / 6, "auroc": 1 / 2})


def test_averages_over_three_classes_by_hand() -> None:
    # class 0: 2 rows, found both, nothing else; class 1: 1 row, missed, 1 false; class 2: 3 rows, 2 found, 1 false
    labels, answers = np.array([0, 0, 1, 2, 2, 2]), logits([0, 0, 2, 2, 2, 1], 3)
    got = CLASSES.score(answers, labels, metrics=["macro-f1", "weighted_f1", "balanced-accuracy"])
    third = 2 * 2 / (2 * 2 + 1 + 1)
    by_hand = {"macro_f1": (1 + 0 + third) / 3, "weighted_f1": (2 * 1 + 0 + 3 * third) / 6}
    assert got == pytest.approx(by_hand | {"balanced_accuracy": (1 + 0 + 2 / 3) / 3})


def test_errors_of_probabilities_by_hand() -> None:
    """The calibration error is that of the answers: sure by 0.9 and 0.6, right in one and in none."""
    shares = np.array([[0.9, 0.05, 0.05], [0.3, 0.6, 0.1]])
    got = CLASSES.score(np.log(shares), np.array([0, 2]), metrics=["ece", "brier", "log_loss"])
    brier = (0.1**2 + 2 * 0.05**2 + 0.3**2 + 0.6**2 + 0.9**2) / 2
    assert got == pytest.approx({"ece": (0.1 + 0.6) / 2, "brier": brier, "log_loss": -np.log(0.9 * 0.1) / 2})


def test_of_several_labels_each_is_a_pair_of_classes() -> None:
    labels = np.array([[0, 1], [0, 1], [1, 0], [1, 0]], dtype=float)
    shares = np.stack([PUBLISHED[1], np.array([0.6, 0.9, 0.2, 0.3])], axis=1)
    outputs = np.log(shares / (1 - shares))
    got = SEVERAL.score(outputs, labels, metrics=["auroc", "log_loss", "brier", "weighted_f1", "ece"])
    right = np.where(labels == 1, shares, 1 - shares)
    assert got["auroc"] == pytest.approx((0.75 + 1) / 2)
    assert got["log_loss"] == pytest.approx(-np.log(right).mean())
    assert got["brier"] == pytest.approx(((1 - right) ** 2).mean())
    assert got["weighted_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert 0 < got["ece"] < 1


def test_probabilities_of_a_coarser_class_are_the_sum_of_its_classes() -> None:
    """The answer is that of the finest classes, as in the tables of out-of-domain sets."""
    shares = np.array([[0.4, 0.3, 0.3], [0.1, 0.8, 0.1]])
    space = LabelSpace(("yes", "maybe", "no"), fold=Fold(("yes", "not"), (0, 1, 1)))
    got = CLASSES.score(np.log(shares), np.array([1, 2]), space, metrics=["log_loss", "accuracy"])
    assert got == pytest.approx({"log_loss": -np.log(0.6 * 0.9) / 2, "accuracy": 0.5})


def test_what_labels_do_not_define_is_left_out_and_said() -> None:
    """One class alone has no curve. Of three classes, one without rows is left out of the mean."""
    named = find_metric("auroc"), find_metric("recall@fpr=0.1"), find_metric("balanced_accuracy"), find_metric("ece")
    names, outputs = [row.name for row in named], np.log([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2]])
    alone = scored_rows(CLASSES, outputs, np.zeros(3, dtype=int), LabelSpace(("a", "b", "c")))
    assert list(CLASSES.score(outputs, np.zeros(3, dtype=int), metrics=names)) == ["balanced_accuracy", "ece"]
    said = describe_gaps(named, alone)
    assert said["auroc"] == "there are not both rows with and rows without 'a', 'b' and 'c': it is not defined"
    assert said["balanced_accuracy"] == "no row has 'b' and 'c': it is the mean over the other 1 of 3 classes"
    two = scored_rows(CLASSES, outputs, np.array([0, 1, 0]))
    assert compute(named, two)["auroc"] == 1.0 and "rows without '2': it is the mean over the other 2" in str(
        describe_gaps(named, two)
    )
    assert describe_gaps(named, scored_rows(CLASSES, outputs, np.array([0, 1, 2]))) == {}


def test_the_answer_without_a_model_has_the_shares_of_the_classes_as_probabilities() -> None:
    labels = np.array([0, 0, 0, 1])
    got = CLASSES.baseline(labels, LabelSpace(("a", "b")), ["accuracy", "log_loss", "brier", "auroc", "ece"])
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    by_hand = {"accuracy": 0.75, "log_loss": entropy, "brier": 0.75 * 0.25, "auroc": 0.5, "ece": 0.0}
    assert got == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("auroc", "regression", "no metric 'auroc' for regression. Expected one of pearson, spearman, mse.$"),
        ("aurok", None, "no metric 'aurok'. Expected one of .*recall@fpr=RATE. Did you mean 'auroc'"),
        ("recall@fpr=1", "classification", "rate between 0 and 1, such as recall@fpr=0.01, got 'recall@fpr=1'"),
        ("recall@fpr=low", None, "Expected a false-positive rate"),
        ("recall@fpr=nan", None, "Expected a false-positive rate"),
    ],
)
def test_a_name_that_is_no_metric_of_the_task_is_refused(name: str, task: str | None, message: str) -> None:
    with pytest.raises(RailkdError, match=message):
        find_metric(name, task)


def test_errors_are_better_when_lower_and_names_are_read_in_any_spelling() -> None:
    lower = {row.name for row in METRICS.values() if not row.greater_is_better}
    assert lower == {"mse", "log_loss", "brier", "ece"} and not greater_is_better("log-loss")
    assert greater_is_better("recall@fpr=0.05") and greater_is_better("a metric of a later release")
    assert check_choice("eval_log-loss", "classification") == "log_loss"
    assert check_choice("recall@fpr=0.0100") == "recall@fpr=0.01"
