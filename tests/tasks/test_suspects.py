"""Rows on which an answer and a label disagree, worked out by hand for each kind of task."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from railkd.tasks import TASKS, task_of
from railkd.tasks.suspects import Suspects


def test_one_class_a_row_by_hand() -> None:
    logits = np.log([[0.7, 0.2, 0.1], [0.9, 0.05, 0.05], [0.1, 0.3, 0.6], [0.7, 0.1, 0.2], [0.5, 0.3, 0.2]])
    labels = np.array([0, 1, 0, 1, -100])  # row 0 agrees, row 4 has no label
    found = Suspects.find(task_of("single_label_classification"), logits, labels)
    assert found.rows.tolist() == [1, 3, 2]
    assert found.confidence == pytest.approx([0.9, 0.7, 0.6])
    assert found.margin == pytest.approx([0.85, 0.6, 0.5])


def test_several_classes_a_row_count_by_the_surest_that_differs() -> None:
    logits = np.array([[9.0, 9.0], [2.0, -3.0], [9.0, -1.0], [1.0, 1.0]])
    labels = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [np.nan, np.nan]])
    found = Suspects.find(task_of("multi_label_classification"), logits, labels)
    assert found.rows.tolist() == [1, 2]  # row 2 differs in its second class alone
    assert found.confidence == pytest.approx([expit(3), expit(1)])
    assert found.margin == pytest.approx([2 * expit(3) - 1, 2 * expit(1) - 1])


def test_numbers_are_suspect_when_they_are_far_off() -> None:
    outputs = np.array([[0.0]] * 10 + [[5.0], [-9.0], [0.0]])
    labels = np.array([0.1] * 10 + [0.0, 0.0, np.nan])
    usual = np.sqrt((10 * 0.01 + 25 + 81) / 12)
    assert 2 * usual > 5  # so that the second largest is not far enough
    found = Suspects.find(task_of("regression"), outputs, labels)
    assert found.rows.tolist() == [11] and found.margin == pytest.approx([9.0]) and np.isnan(found.confidence).all()


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_answers_that_are_the_labels_leave_no_suspect(task: object) -> None:
    outputs = np.random.default_rng(0).normal(size=(20, 1 if task.width else 3))  # type: ignore[attr-defined]
    assert not len(Suspects.find(task, outputs, task.decide(outputs)).rows)  # type: ignore[attr-defined,arg-type]
