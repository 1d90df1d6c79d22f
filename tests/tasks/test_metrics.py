"""Metrics, each once by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from railkd.data.glue import GLUE, GlueTask
from railkd.data.labels import LabelSpace
from railkd.errors import RailkdError
from railkd.tasks import Task, task_of
from railkd.tasks.metrics import METRICS, greater_is_better

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
    assert all(METRICS[name].task == kind.name for name in task.metrics)
    assert kind.primary_metric(task.metrics) == task.metrics[0]
