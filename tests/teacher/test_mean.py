"""The mean of several teachers: of equal ones it is the teacher, of unlike ones the mean of their probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from railkd.data.keys import KEY, keys_of
from railkd.errors import RailkdError
from railkd.teacher import TeacherCache, TeacherInfo, TeacherLabels, TeacherMean
from tiny import losses, make_model, make_trainer

NAMES, SINGLE = ("neg", "pos"), "single_label_classification"


def labels_of(keys: np.ndarray, outputs: Any, names: tuple[str, ...] = NAMES, kind: str = SINGLE) -> TeacherLabels:
    return TeacherLabels("answers", TeacherInfo(0, 0, names, kind, 0), keys, np.asarray(outputs, dtype=float), "logits")


def test_the_mean_of_two_equal_teachers_trains_the_student_of_the_teacher(
    tmp_path: Path, cache: TeacherCache, rows: Dataset, tokenizer: Any
) -> None:
    twice = TeacherMean([cache, cache], [1, 3])
    batch = {KEY: torch.from_numpy(keys_of(rows))}
    one, two = cache(batch, "mean"), twice(batch, "mean")
    torch.testing.assert_close(two.logits.softmax(-1), one.logits.softmax(-1), atol=1e-6, rtol=0)
    assert one.states is not None and two.states is not None and torch.equal(one.states, two.states)
    found = []
    for teacher in (cache, twice):
        student = make_model(2, dropout=0.0)
        trainer = make_trainer(tmp_path, teacher, rows, tokenizer, student=student, num_train_epochs=1, seed=1)
        trainer.train()
        found.append(losses(trainer))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_probabilities_are_averaged_by_weight_and_labels_matched_by_name(cache: TeacherCache, rows: Dataset) -> None:
    keys = keys_of(rows)
    ours = cache.gather(keys, None)[0].astype(float)
    others = labels_of(keys[:5], np.log([[0.9, 0.1]] * 5), NAMES[::-1])  # 0.9 of "pos"
    mean = TeacherMean([cache, others], [1, 3])
    p = np.exp(ours[:5]) / np.exp(ours[:5]).sum(axis=1, keepdims=True)
    found = np.exp(mean.gather(keys[:5], None)[0])
    np.testing.assert_allclose(found, 0.25 * p + 0.75 * np.array([0.1, 0.9]), atol=1e-6)
    # Where the file has no answer, the other teachers have its weight, and a cache gives the states of all rows.
    assert not mean.gaps and not len(mean.missing(keys, states=True)) and mean.info.labels == NAMES
    logits, states = mean.gather(keys, "mean")
    np.testing.assert_array_equal(logits[5:], cache.gather(keys[5:], None)[0])
    assert states is not None and (states == cache.gather(keys, "mean")[1]).all()


def test_files_alone_leave_the_rows_without_any_answer_to_their_labels(cache: TeacherCache, rows: Dataset) -> None:
    keys = keys_of(rows)
    one, two = labels_of(keys[:5], [[0, 2]] * 5), labels_of(keys[3:9], [[1, 0]] * 6)
    mean = TeacherMean([one, two])
    assert mean.gaps and mean.missing(keys).tolist() == list(range(9, 22))
    logits, _, answered = mean.answers(keys, None)
    assert answered is not None and answered.tolist() == [True] * 9 + [False] * 13
    assert (logits[:3] == [0, 2]).all() and (logits[5:9] == [1, 0]).all()
    both = (np.array([1, np.e**2]) / (1 + np.e**2) + np.array([np.e, 1]) / (1 + np.e)) / 2
    np.testing.assert_allclose(np.exp(logits[3:5]), [both, both], atol=1e-6)
    with pytest.raises(RailkdError, match="13 of 22 examples have no answer"):
        mean.gather(keys, None)
    for silent in (mean, TeacherMean([cache, one], [0, 1])):
        with pytest.raises(RailkdError, match="'answers' holds the answers of a teacher"):
            silent.check_pooling("mean")


def test_a_teacher_of_the_whole_weight_keeps_its_outputs_and_another_may_give_the_states(
    cache: TeacherCache, rows: Dataset
) -> None:
    keys = keys_of(rows)
    others = labels_of(keys, [[40.0, -40.0]] * 22)
    first = TeacherMean([cache, others], [7, 0])
    np.testing.assert_array_equal(first.gather(keys, None)[0], cache.gather(keys, None)[0])
    behind = TeacherMean([others, cache], [1, 1])  # the first that has states gives them
    assert behind.info.shape == cache.info.shape and behind.poolings == cache.poolings
    # Logits far apart stay finite: the mean is taken of logarithms.
    far = TeacherMean([others, labels_of(keys, [[900.0, 0.0]] * 22)]).gather(keys, None)[0]
    np.testing.assert_allclose(far[:, 1], -80 + np.log(0.5), atol=1e-4)


def test_numbers_and_single_probabilities_are_averaged_too(rows: Dataset) -> None:
    keys = keys_of(rows)[:2]
    numbers = [labels_of(keys, [[a], [a]], ("LABEL_0",), "regression") for a in (1.0, 4.0)]
    np.testing.assert_allclose(TeacherMean(numbers, [2, 1]).gather(keys, None)[0], [[2.0], [2.0]], atol=1e-6)
    kind = "multi_label_classification"
    chances = [labels_of(keys, [[np.log(p / (1 - p))] * 2] * 2, NAMES, kind) for p in (0.2, 0.6)]
    np.testing.assert_allclose(
        TeacherMean(chances).gather(keys, None)[0], np.full((2, 2), np.log(0.4 / 0.6)), atol=1e-6
    )


def test_teachers_that_do_not_fit_each_other_are_refused(cache: TeacherCache, rows: Dataset) -> None:
    keys = keys_of(rows)[:1]
    with pytest.raises(RailkdError, match="the same labels, got neg, pos .* and neg, other"):
        TeacherMean([cache, labels_of(keys, [[0, 1]], ("neg", "other"))])
    numbers = labels_of(keys, [[0.5]], (), "regression")
    with pytest.raises(RailkdError, match=r"got numbers \(regression\) in 'answers'.* and neg, pos"):
        TeacherMean([numbers, cache])
    for weights in ([1], [0, 0], [2, -1], [1, float("nan")], [1, float("inf")]):
        with pytest.raises(RailkdError, match="Expected a weight of 0 or more for each of 2 teachers, not all 0"):
            TeacherMean([cache, cache], weights)
    one, two = TeacherMean([cache, cache]), TeacherMean([cache, cache], [2, 1])
    assert (
        one.identity.digest() != two.identity.digest() and one.identity == TeacherMean([cache, cache], [3, 3]).identity
    )
