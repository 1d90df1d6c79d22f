"""Temperatures and thresholds: by hand, against scikit-learn, and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics

from railkd.statistics.calibration import HIGHEST, LOWEST, best_threshold, count, fit_temperature, log_loss


def test_the_log_loss_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    assert log_loss(z, y) == pytest.approx(metrics.log_loss(y, softmax(z, axis=1), labels=[0, 1, 2]))
    flags = rng.random((40, 3)) < 0.3
    each = [metrics.log_loss(flags[:, i], 1 / (1 + np.exp(-z[:, i])), labels=[False, True]) for i in range(3)]
    assert log_loss(z, flags.astype(float)) == pytest.approx(np.mean(each))


def test_a_temperature_by_hand() -> None:
    # 3 of 4 answers are right, so that the probability must be 3/4 and the logit ln 3. The logits are k ln 3.
    for k in (0.5, 1.0, 4.0):
        z = np.tile([k * np.log(3), 0.0], (4, 1))
        assert fit_temperature(z, [0, 0, 0, 1]) == pytest.approx(k, rel=1e-4)
        # The same of a single class that applies or not.
        assert fit_temperature(z[:, :1], [[1.0], [1.0], [1.0], [0.0]]) == pytest.approx(k, rel=1e-4)


def test_labels_drawn_at_a_temperature_give_it_back_and_answers_stay() -> None:
    rng = np.random.default_rng(1)
    z = 3 * rng.normal(size=(20_000, 3))
    shares = softmax(z / 2.5, axis=1).cumsum(axis=1)
    labels = (rng.random((len(z), 1)) > shares).sum(axis=1)
    assert fit_temperature(z, labels) == pytest.approx(2.5, rel=0.03)


def test_there_is_no_best_temperature_where_the_loss_falls_to_an_end_of_the_range() -> None:
    for scale in (1e-3, 1.0, 30.0):  # all right; with 30 the loss is 0 to the last digit long before the end
        z = scale * np.array([[2.0, 0.0], [0.0, 2.0]])
        assert fit_temperature(z, [0, 1]) is None and fit_temperature(z, np.eye(2)) is None
    assert fit_temperature([[2.0, 0.0], [0.0, 2.0]], [1, 0]) is None  # all wrong
    for k in (LOWEST / 2, HIGHEST * 2):  # the best one lies outside
        assert fit_temperature(np.tile([k * np.log(3), 0.0], (4, 1)), [0, 0, 0, 1]) is None


@pytest.mark.parametrize(
    "goal", [{}, {"precision": 0.6}, {"precision": 1.0}, {"recall": 0.7}, {"recall": 1.0}], ids=str
)
def test_no_threshold_is_better(goal: dict[str, float]) -> None:
    """Every cut between two scores is tried, on 300 small sets with equal scores."""
    rng, found_none = np.random.default_rng(0), 0
    for _ in range(300):
        rows = int(rng.integers(1, 12))
        scores, truth = rng.integers(1, 7, rows) / 7, rng.random(rows) < 0.5
        found = best_threshold(scores, truth, **goal)
        tried = [pair for cut in np.arange(6) / 7 + 1e-3 if (pair := ranked(scores > cut, truth, goal)) is not None]
        if found is None:
            found_none += 1
            assert not tried
        else:
            assert ranked(scores > found, truth, goal) == pytest.approx(max(tried))
    assert (found_none > 0) and found_none < 300


def ranked(given: np.ndarray, truth: np.ndarray, goal: dict[str, float]) -> tuple[float, float] | None:
    """Return the two figures by which answers are ranked; None if they miss the goal or answer nothing."""
    if not given.any() or not truth.any():
        return None
    right = (given & truth).sum()
    precision, recall = right / given.sum(), right / truth.sum()
    if "precision" in goal:
        return (recall, precision) if precision >= goal["precision"] else None
    if "recall" in goal:
        return (precision, recall) if recall >= goal["recall"] else None
    return 2 * right / (given.sum() + truth.sum()), precision


def test_counts_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    gold, answers = rng.random((50, 4)) < 0.3, rng.random((50, 4)) < 0.3
    gold[:, 3] = answers[:, 3] = False  # a class that neither has
    wanted = metrics.precision_recall_fscore_support(gold, answers, zero_division=0.0)
    for number, found in enumerate(count(answers, gold)):
        assert (found.precision, found.recall, found.f1, found.rows) == pytest.approx([w[number] for w in wanted])
