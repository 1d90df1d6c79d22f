"""Several teachers as one: the mean of their answers, and the states of one of them. A view, which stores nothing.

Of teachers k with weights w_k, which sum to 1, and logits z_k:

- classification: p = sum of w_k softmax(z_k), and the logits of the mean are log p. So probabilities are averaged at
  temperature 1, and a target at temperature T is softmax(log p / T), which is p^(1/T), scaled to a sum of 1.
- several labels a row: p = sum of w_k sigmoid(z_k) for each label, and the logits of the mean are log p - log(1 - p).
- numbers: the mean is the sum of w_k z_k.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from railkd.errors import RailkdError
from railkd.runtime.words import joined
from railkd.signals import Moments
from railkd.tasks import Task, task_of
from railkd.teacher.identity import Identity
from railkd.teacher.protocol import TeacherInfo
from railkd.teacher.stored import KIND, StoredTeacher, no_states


def shares_of(weights: Sequence[float] | None, count: int) -> np.ndarray:
    """Return the weights of teachers, scaled to a sum of 1.

    Args:
        weights: 0 or more, at any scale; None: equal.
        count: of the teachers.

    Returns:
        (K,) float64.

    Raises:
        RailkdError: there are no teachers, or the weights are not one finite number of 0 or more for each, with a sum
            above 0.

    >>> shares_of([3, 1], 2).tolist()
    [0.75, 0.25]
    """
    shares = np.asarray([1.0] * count if weights is None else weights, dtype=np.float64)
    if not count or len(shares) != count or not (np.isfinite(shares) & (shares >= 0)).all() or not shares.any():
        raise RailkdError(
            f"Expected a weight of 0 or more for each of {count} teachers, not all 0, got {shares.tolist()}."
        )
    return np.asarray((shares / shares.max()) / (shares / shares.max()).sum())


def match_labels(infos: Sequence[TeacherInfo], names: Sequence[object]) -> list[list[int]]:
    """Return for each teacher the positions of its outputs in the order of the first teacher's labels.

    Args:
        infos: of K teachers.
        names: of them, for messages.

    Raises:
        RailkdError: the teachers have other labels or another kind of task.
    """
    first = infos[0]
    for info, name in zip(infos, names, strict=True):
        same = sorted(info.labels) == sorted(first.labels) or task_of(first.problem_type).width is not None
        if info.problem_type != first.problem_type or not same:
            ours, theirs = (f"{joined(i.labels) or 'numbers'} ({i.problem_type})" for i in (first, info))
            raise RailkdError(
                f"Expected teachers with the same labels, got {ours} in '{names[0]}' and {theirs} in '{name}'. Fix: "
                "give the files of answers --label-map, or leave one of the teachers out."
            )
    if task_of(first.problem_type).width is not None:
        return [[0] for _ in infos]
    return [[info.labels.index(name) for name in first.labels] for info in infos]


def mean_of_outputs(task: Task, outputs: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the outputs of the mean of several teachers; see the equations of this module.

    Args:
        task: of the teachers.
        outputs: of each of K teachers, (B, C).
        weights: (K, B); those of each row sum to 1. A row of which one teacher has the whole weight keeps its outputs.

    Returns:
        (B, C) float32.
    """
    z = np.stack([np.asarray(one, dtype=np.float64) for one in outputs])  # (K, B, C)
    with np.errstate(divide="ignore"):
        w = np.log(weights)[:, :, None]  # (K, B, 1)
    if task.width is not None:
        found = (weights[:, :, None] * z).sum(axis=0)
    elif task.several:
        yes, no = (np.logaddexp.reduce(w - np.logaddexp(0, -sign * z), axis=0) for sign in (1, -1))
        found = yes - no
    else:
        found = np.logaddexp.reduce(w + z - np.logaddexp.reduce(z, axis=2, keepdims=True), axis=0)
    alone = weights.max(axis=0) == 1
    found[alone] = z[weights.argmax(axis=0), np.arange(z.shape[1])][alone]
    return np.ascontiguousarray(found, dtype=np.float32)


class TeacherMean(StoredTeacher):
    """The weighted mean of the probabilities of several teachers; of regression teachers that of their numbers.

    Caches and files of answers may be mixed. A cache must hold every example. A file may lack some: the other teachers
    then have its weight, in proportion to theirs. An example that no teacher answers has no answer.

    Args:
        teachers: with the same labels, in any order; the outputs are in the order of the first.
        weights: one for each teacher, 0 or more, at any scale; None: equal.
        states_from: number of the teacher, from 0, whose states layer methods read; None: the first that has states.

    Raises:
        RailkdError: there are no teachers, or labels, kinds of task or weights do not fit each other.
    """

    def __init__(
        self,
        teachers: Sequence[StoredTeacher],
        weights: Sequence[float] | None = None,
        *,
        states_from: int | None = None,
    ) -> None:
        self._shares = shares_of(weights, len(teachers))
        if states_from is None:
            states_from = next((number for number, teacher in enumerate(teachers) if teacher.poolings), 0)
        if not 0 <= states_from < len(teachers):
            raise RailkdError(f"Expected a teacher from 0 to {len(teachers) - 1} as states_from, got {states_from}.")
        self._order = match_labels([teacher.info for teacher in teachers], [teacher.path for teacher in teachers])
        self._teachers, self._states, first = list(teachers), teachers[states_from], teachers[0].info
        shape, self.poolings, self.path = self._states.info.shape, self._states.poolings, self._states.path
        self.info = TeacherInfo(*shape, first.labels, first.problem_type, self._states.info.max_length)
        self.rows = max(teacher.rows for teacher in teachers)
        parts = [
            [teacher.identity.digest(teacher.poolings) for teacher in teachers],
            self._shares.tolist(),
            states_from,
        ]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
        length = self._states.identity.max_length
        stored = self._states.identity
        self.identity = Identity(digest, {KIND: "mean"}, "none", length, "float32", stored.states_dtype)
        self.identity = replace(self.identity, states_dim=stored.states_dim)

    @property
    def parts(self) -> Sequence[StoredTeacher]:
        """The teachers that this one is the mean of."""
        return self._teachers

    @property
    def gaps(self) -> bool:
        """True if an example may have no answer: all teachers with a weight are files of answers."""
        return all(teacher.gaps for teacher, share in zip(self._teachers, self._shares, strict=True) if share)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key in the teacher of the states, or -1 where a cache lacks it or no teacher answers.

        Args:
            keys: (N, 2).

        Returns:
            (N,). Of files alone, 0 stands for a row that one of the others holds.
        """
        found = np.stack([teacher.find(keys) for teacher in self._teachers])  # (K, N)
        held = np.asarray([teacher.gaps for teacher in self._teachers])[:, None] | (found >= 0)
        answered = self._shares @ (found >= 0) > 0
        return np.asarray(np.where(answered & held.all(axis=0), self._states.find(keys).clip(0), -1))

    def missing(self, keys: np.ndarray, *, states: bool = False) -> np.ndarray:
        """Return the positions of the keys without an answer; see `StoredTeacher.missing`.

        Args:
            keys: (N, 2).
            states: a row of outputs alone is missing too, of the teacher that gives the states.
        """
        found = super().missing(keys)
        return np.union1d(found, self._states.missing(keys, states=True)) if states else found

    def gather(self, keys: np.ndarray, pooling: str | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the logits of the mean, and the states of one teacher; see `StoredTeacher.gather`.

        Raises:
            RailkdError: an example has no answer.
        """
        if pooling is not None:
            self.check_pooling(pooling)
        parts = [
            teacher.answers(keys, pooling if teacher is self._states else None) for teacher in self._teachers
        ]  # each (B, C), (B, n, d) or None, (B,) or None
        there = np.stack([np.ones(len(keys), dtype=bool) if part[2] is None else part[2] for part in parts])
        weights = self._shares[:, None] * there
        if not weights.any(axis=0).all():
            lacking = int((~weights.any(axis=0)).sum())
            raise RailkdError(f"{lacking} of {len(keys)} examples have no answer of any teacher.")
        logits = [part[0][:, order] for part, order in zip(parts, self._order, strict=True)]
        mean = mean_of_outputs(task_of(self.info.problem_type), logits, weights / weights.sum(axis=0))
        return mean, parts[self._teachers.index(self._states)][1]

    def check_pooling(self, pooling: str) -> None:
        """Refuse a pooling that the teacher with the states does not store, and any beside files of answers alone.

        Args:
            pooling: its name.

        Raises:
            RailkdError: all teachers with a weight are files of answers.
        """
        if self.gaps:
            raise RailkdError(no_states(next(teacher.path for teacher in self._teachers if teacher.gaps), pooling))
        self._states.check_pooling(pooling)

    def moments(self, pooling: str = "mean") -> Moments:
        """Return the moments of the teacher with the states; see `StoredTeacher.moments`."""
        return self._states.moments(pooling)

    @property
    def described(self) -> str:
        """The teachers and their weights in one line."""
        parts = (f"{share:.3g} of {teacher.path}" for share, teacher in zip(self._shares, self._teachers, strict=True))
        states = f"; states of {self._states.path}" if self.poolings else ""
        return f"teachers: {', '.join(parts)}{states}"
