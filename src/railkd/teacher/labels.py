"""A teacher that is a file: the answers that a large language model, raters or any other model gave to texts.

Training cannot tell it from a cache of outputs. Rows are matched by their texts, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xxhash

from railkd.data.keys import keys_of
from railkd.data.reading import Reading
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.runtime import ranks
from railkd.runtime.words import counted, joined
from railkd.signals import Moments
from railkd.tasks import task_named
from railkd.teacher.identity import Identity
from railkd.teacher.index import search, sort
from railkd.teacher.label_forms import CLOSE, Answers, read_answers
from railkd.teacher.label_grid import RowProblems
from railkd.teacher.protocol import TeacherInfo
from railkd.teacher.stored import KIND, LABELS, StoredTeacher, no_states
from railkd.teacher.writer import ROWS_PER_SHARD, CacheWriter


class TeacherLabels(StoredTeacher):
    """The answers of a file, in memory.

    Args:
        path: of the file.
        info: the labels and the kind of task.
        keys: (N, 2) of the texts, each once.
        outputs: (N, C), as a model gives them.
        form: of the answers, in words.

    Attributes:
        keys: (N, 2).
        outputs: (N, C) float32.
        form: of the answers, in words.
        blank: rows of the file without an answer.
    """

    def __init__(self, path: str | Path, info: TeacherInfo, keys: np.ndarray, outputs: np.ndarray, form: str) -> None:
        self.path, self.info, self.poolings, self.rows = Path(path), info, (), len(keys)
        self.form, self.blank = form, 0
        self.keys, self.outputs = keys, np.ascontiguousarray(outputs, dtype=np.float32)
        self._table = sort(keys)
        digest = xxhash.xxh3_128()
        for part in (self._table[:2], self.outputs[self._table[2]]):  # sorted by key: a shuffled file is the same
            digest.update(np.ascontiguousarray(part).data)
        kept = {KIND: LABELS, "form": form.partition(" ")[0], "labels": list(info.labels)}
        kept["problem_type"] = info.problem_type
        self.identity = Identity(digest.hexdigest(), kept, "none", 0, "float32", "float16")

    @classmethod
    def read(
        cls,
        file: str | Source,
        *,
        reading: Reading | None = None,
        labels: Sequence[str] = (),
        smoothing: float = 0.0,
        problem_type: str | None = None,
        order: Sequence[str] = (),
        beside: bool = False,
    ) -> TeacherLabels:
        """Read a file of answers in one of the forms of `railkd.teacher.label_forms`.

        Everything that is wrong with its rows raises one `RailkdError`.

        Args:
            file: its name, or a source.
            reading: which columns hold texts and labels; None: those of common names.
            labels: names of the labels in the order of the outputs; empty: those of the file.
            smoothing: share of a hard label that is spread over all labels.
            problem_type: as ``--problem-type`` takes it; None: classification, or what the labels of the file are.
            order: names of the student's labels: the order of the outputs, if the file has the same labels.
            beside: the file stands beside others that are read alike. Columns that it lacks are found by common names.

        Returns:
            The teacher.
        """
        source = Source.parse(file) if isinstance(file, str) else file
        task = task_named(problem_type) if problem_type else None
        found = read_answers(source, reading or Reading(), names=labels, smoothing=smoothing, task=task, beside=beside)
        keys, outputs = _each_text_once(found, source)
        names = found.names
        if names != tuple(order) and sorted(names) == sorted(order):
            outputs, names = outputs[:, [names.index(name) for name in order]], tuple(order)
        info = TeacherInfo(0, 0, names, found.task.problem_type, 0)
        teacher = cls(source.base, info, keys, outputs, found.form)
        teacher.blank = int((~found.there).sum())
        return teacher

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key, or -1 for a text without an answer; see `StoredTeacher.find`."""
        return search(self._table, keys)

    def gather(self, keys: np.ndarray, pooling: str | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the logits of examples; see `StoredTeacher.gather`.

        Args:
            keys: (B, 2) of the examples.
            pooling: None, because a file has no states.

        Raises:
            RailkdError: an example has no answer, or states are wanted.
        """
        if pooling is not None:
            self.check_pooling(pooling)
        found = self.find(keys)
        if (found < 0).any():
            raise RailkdError(f"{int((found < 0).sum())} of {len(keys)} examples have no answer in '{self.path}'.")
        return self.outputs[found], None

    def check_pooling(self, pooling: str) -> None:
        """Refuse every pooling, because a file has no states.

        Args:
            pooling: its name.

        Raises:
            RailkdError: always.
        """
        raise RailkdError(no_states(self.path, pooling))

    def moments(self, pooling: str = "mean") -> Moments:
        """Refuse, because a file has no states; see `check_pooling`.

        Args:
            pooling: of the states.

        Raises:
            RailkdError: always.
        """
        raise RailkdError(no_states(self.path, pooling))

    @property
    def described(self) -> str:
        """Rows, file, form and labels in one line."""
        blank = f"; {counted(self.blank, 'row')} without an answer left out" if self.blank else ""
        return f"teacher labels: {self.rows:,} texts of {self.path}, {self.form} ({joined(self.info.labels)}){blank}"

    def store(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the answers as a cache of outputs. Several ranks share the work; each must call this.

        Args:
            path: folder of the cache; created if it does not exist.
            overwrite: replace the cache of another teacher.
        """
        with CacheWriter(path, self.info, self.identity, (), overwrite=overwrite, together=True) as writer:
            todo = writer.missing(self.keys)[ranks.rank() :: ranks.world_size()]
            for start in range(0, len(todo), ROWS_PER_SHARD):
                some = todo[start : start + ROWS_PER_SHARD]
                writer.add(self.keys[some], self.outputs[some], {})


def _each_text_once(found: Answers, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Return keys (N, 2) and outputs (N, C) of the rows with an answer; refuse a text with unlike answers."""
    numbers = np.flatnonzero(found.there)
    if not len(numbers):
        raise RailkdError(f"{source.text}: no row has an answer. Fix: fill in the {found.form}.")
    keys, outputs = keys_of(found.table.rows)[numbers], found.outputs[numbers]
    high, low, order = sort(keys)
    again = np.flatnonzero((high[1:] == high[:-1]) & (low[1:] == low[:-1]))
    first, second = order[again], order[again + 1]
    problems = RowProblems(source.text)
    for one, two in zip(first, second, strict=True):
        if not np.allclose(outputs[one], outputs[two], atol=CLOSE):
            problems.add(int(numbers[two]), f"has the text of row {numbers[one] + 1} and another answer")
    problems.report()
    keep = np.ones(len(keys), dtype=bool)
    keep[second] = False
    return keys[keep], outputs[keep]
