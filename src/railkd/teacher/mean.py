"""Several teachers as one: the mean of their answers, and the states of one of them. A view, which stores nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from railkd.errors import RailkdError
from railkd.runtime.words import joined
from railkd.signals import Moments
from railkd.tasks import task_of
from railkd.teacher.identity import Identity
from railkd.teacher.protocol import TeacherInfo
from railkd.teacher.stored import KIND, StoredTeacher, no_states

#: The smallest probability, so that its logarithm is finite.
_FLOOR = 1e-12


class TeacherMean(StoredTeacher):
    """The weighted mean of the probabilities of several teachers; of regression teachers that of their numbers.

    Caches and files of answers may be mixed. An example has an answer if all teachers have one.

    Args:
        teachers: with the same labels, in any order; the outputs are in the order of the first.
        weights: one for each teacher, above 0, at any scale; None: equal.
        states_from: number of the teacher, from 0, whose states layer methods read.

    Raises:
        RailkdError: there are no teachers, or labels, kinds of task or weights do not fit each other.
    """

    def __init__(
        self, teachers: Sequence[StoredTeacher], weights: Sequence[float] | None = None, *, states_from: int = 0
    ) -> None:
        shares = np.asarray([1.0] * len(teachers) if weights is None else weights, dtype=np.float64)
        if not len(teachers) or len(shares) != len(teachers) or not (np.isfinite(shares) & (shares > 0)).all():
            raise RailkdError(
                f"Expected a weight above 0 for each of {len(teachers)} teachers, one or more, got {shares.tolist()}."
            )
        if not 0 <= states_from < len(teachers):
            raise RailkdError(f"Expected a teacher from 0 to {len(teachers) - 1} as states_from, got {states_from}.")
        first = teachers[0].info
        for teacher in teachers:
            theirs = teacher.info
            if sorted(theirs.labels) != sorted(first.labels) or theirs.problem_type != first.problem_type:
                raise RailkdError(
                    f"Expected teachers with the same labels, got {joined(first.labels)} ({first.problem_type}) in "
                    f"'{teachers[0].path}' and {joined(theirs.labels)} ({theirs.problem_type}) in '{teacher.path}'."
                )
        self._teachers, self._shares, self._states = list(teachers), shares / shares.sum(), teachers[states_from]
        self._order = [[teacher.info.labels.index(name) for name in first.labels] for teacher in teachers]
        shape, self.poolings, self.path = self._states.info.shape, self._states.poolings, self._states.path
        self.info = TeacherInfo(*shape, first.labels, first.problem_type, self._states.info.max_length)
        self.rows = min(teacher.rows for teacher in teachers)
        parts = [
            [teacher.identity.digest(teacher.poolings) for teacher in teachers],
            self._shares.tolist(),
            states_from,
        ]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
        length = self._states.identity.max_length
        self.identity = Identity(digest, {KIND: "mean"}, "none", length, "float32", self._states.identity.states_dtype)

    @property
    def gaps(self) -> bool:
        """True if one of the teachers may lack answers."""
        return any(teacher.gaps for teacher in self._teachers)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key in the first teacher, or -1 where one lacks it; see `StoredTeacher.find`."""
        found = [teacher.find(keys) for teacher in self._teachers]
        return np.asarray(np.where(np.min(found, axis=0) < 0, -1, found[0]))

    def missing(self, keys: np.ndarray, *, states: bool = False) -> np.ndarray:
        """Return the positions of the keys that a teacher lacks; see `StoredTeacher.missing`.

        Args:
            keys: (N, 2).
            states: a row of outputs alone is missing too, of the teacher that gives the states.
        """
        return np.union1d(super().missing(keys), self._states.missing(keys, states=states))

    def gather(self, keys: np.ndarray, pooling: str | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the logits of the mean, and the states of one teacher; see `StoredTeacher.gather`."""
        logits = [
            np.asarray(teacher.gather(keys, None)[0], dtype=np.float64)[:, order]
            for teacher, order in zip(self._teachers, self._order, strict=True)
        ]
        task, mean = task_of(self.info.problem_type), np.average
        if task.width is not None:
            found = mean(logits, axis=0, weights=self._shares)
        elif task.several:
            p = np.clip(mean([1 / (1 + np.exp(-z)) for z in logits], axis=0, weights=self._shares), _FLOOR, 1 - _FLOOR)
            found = np.log(p) - np.log1p(-p)
        else:
            raised = [np.exp(z - z.max(axis=1, keepdims=True)) for z in logits]
            p = mean([e / e.sum(axis=1, keepdims=True) for e in raised], axis=0, weights=self._shares)
            found = np.log(np.maximum(p, _FLOOR))
        states = self._states.gather(keys, pooling)[1] if pooling is not None else None
        return np.ascontiguousarray(found, dtype=np.float32), states

    def check_pooling(self, pooling: str) -> None:
        """Refuse a pooling that the teacher with the states does not store, and any beside a file of answers.

        Args:
            pooling: its name.

        Raises:
            RailkdError: one of the teachers is a file of answers.
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
        return f"teachers: {', '.join(parts)}; states of {self._states.path}"
