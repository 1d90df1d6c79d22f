"""A teacher whose signals are stored by the keys of examples: a cache, or a file of outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from railkd.data.keys import KEY
from railkd.objectives import METHODS
from railkd.signals import Moments, Signals
from railkd.teacher.identity import Identity
from railkd.teacher.protocol import TeacherInfo

#: Entry of the config of an identity that says what kind of teacher the numbers come from, and its value for a file.
KIND, LABELS = "kind", "labels"


class StoredTeacher(ABC):
    """A `railkd.teacher.Teacher` that answers by example key, without a model.

    Attributes:
        path: where the signals lie.
        info: the properties of the teacher that a student needs.
        identity: everything that the stored numbers depend on.
        poolings: of the stored states; empty: outputs alone.
        rows: how many.
    """

    path: Path
    info: TeacherInfo
    identity: Identity
    poolings: tuple[str, ...]
    rows: int

    @property
    def gaps(self) -> bool:
        """True if training rows may lack an answer: the numbers come from a file of labels."""
        return self.identity.config.get(KIND) == LABELS

    @property
    def parts(self) -> Sequence[StoredTeacher]:
        """The teachers that this one is the mean of; itself if it is one."""
        return (self,)

    @abstractmethod
    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the row (N,) of each key, or -1 where there is none. Texts with unlike states have unlike rows.

        Args:
            keys: (N, 2).
        """

    @abstractmethod
    def gather(self, keys: np.ndarray, pooling: str | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the logits (B, C) and the states (B, n, d), or None, of examples. All must be stored.

        Args:
            keys: (B, 2) of the examples.
            pooling: which states; None: logits only.
        """

    @abstractmethod
    def check_pooling(self, pooling: str) -> None:
        """Refuse a pooling that is not stored.

        Args:
            pooling: its name.
        """

    @abstractmethod
    def moments(self, pooling: str = "mean") -> Moments:
        """Return the mean and covariance of every block over all rows with states.

        Args:
            pooling: of the states.
        """

    @property
    @abstractmethod
    def described(self) -> str:
        """One line for the user: what is stored, and where."""

    def missing(self, keys: np.ndarray, *, states: bool = False) -> np.ndarray:
        """Return the positions of the keys that are not stored.

        Args:
            keys: (N, 2).
            states: a row of outputs alone is missing too.
        """
        return np.flatnonzero(self.find(keys) < 0)

    def answers(self, keys: np.ndarray, pooling: str | None) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Return the signals of examples, of which some may have no answer.

        Args:
            keys: (B, 2) of the examples.
            pooling: which states; None: logits only.

        Returns:
            Logits (B, C), 0 in rows without an answer; states (B, n, d) or None; and (B,) bool: which rows have an
            answer. None stands for all.
        """
        if not self.gaps:
            return (*self.gather(keys, pooling), None)
        there = self.find(keys) >= 0
        logits = np.zeros((len(keys), len(self.info.labels)), dtype=np.float32)
        if there.any():
            logits[there] = self.gather(keys[there], pooling)[0]
        return logits, None, there

    def __call__(self, batch: Mapping[str, Tensor], pooling: str | None) -> Signals:
        """Return the signals of a batch, gathered by ``example_key`` (B, 2); see `railkd.teacher.Teacher`."""
        device = batch[KEY].device
        logits, states, answered = self.answers(batch[KEY].cpu().numpy(), pooling)
        parts = [None if part is None else torch.from_numpy(part).to(device) for part in (states, answered)]
        return Signals(torch.from_numpy(logits).to(device), parts[0], answered=parts[1])


def no_states(path: object, pooling: str) -> str:
    """Return the message for a method that wants states of a file of labels.

    Args:
        path: of the file, or of the cache that was made from it.
        pooling: that is wanted.
    """
    fitting = [name for name, spec in METHODS.items() if spec.needs_teacher and spec.pooling is None]
    return (
        f"Expected a method that reads outputs alone, got one that reads {pooling} states: '{path}' holds the answers "
        f"of a teacher, and a file of answers has no states of blocks. Fix: --method {' or '.join(fitting)}, or give "
        "the teacher's checkpoint with --teacher."
    )
