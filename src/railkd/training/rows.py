"""Rows on their way into training: tokens, keys, labels in the model's order, and the checks that must come first."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from railkd.distiller import problem_type_of
from railkd.errors import RailkdError
from railkd.examples import KEY, TEACHER_PREFIX, check_length, keyed_tokens, warn_of_padding
from railkd.functional import UNLABELLED
from railkd.tasks.columns import find_columns
from railkd.tasks.labels import LabelSpace, is_missing, label_name, match_label_space
from railkd.teacher import TeacherCache, TeacherInfo
from railkd.teacher.identity import tokenizer_digest
from railkd.teacher.protocol import label_names
from railkd.training.arguments import DistillationTrainingArguments


class Preparer:
    """Turns datasets as users have them into rows of tokens.

    Args:
        config: of the student. tokenizer: the student's. args: columns, lengths. teacher_tokenizer: of a live teacher.
        teacher_config: of a live teacher, for the longest input it takes.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        args: DistillationTrainingArguments,
        teacher_tokenizer: Any = None,
        teacher_config: Any = None,
    ) -> None:
        self.config, self.tokenizer, self.args = config, tokenizer, args
        self.teacher_tokenizer, self.teacher_config = teacher_tokenizer, teacher_config
        warn_of_padding(config, tokenizer, "the student")
        self.regression = problem_type_of(config) == "regression"
        self.multi = problem_type_of(config) == "multi_label_classification"
        # Our own rows are known by their description, which selecting and shuffling keep; a user's may have any column.
        self._mark = f"railkd: prepared rows {uuid.uuid4().hex}"

    def train(self, dataset: Any) -> tuple[Any, np.ndarray | None]:
        """Token rows with keys, and those keys (N, 2); of a stream, rows that are tokenised as they come, and None."""
        if _is_stream(dataset):
            if self.args.max_steps < 1:
                raise RailkdError("got a stream of rows, whose end is not known; wanted max_steps in the arguments")
            return self._streamed(dataset, training=True), None
        if dataset is None or not hasattr(dataset, "column_names"):
            return dataset, None
        return self._prepared(dataset, training=True)

    def labelled(self, dataset: Any) -> Any:
        """Token rows for evaluation and prediction, of one data set or a dict of several; they need no key. Rows
        prepared here are left as they are.
        """
        if isinstance(dataset, dict):
            return {name: self.labelled(rows) for name, rows in dataset.items()}
        info = getattr(dataset, "info", None)
        if info is not None and info.description == self._mark:
            return dataset
        if _is_stream(dataset):
            return self._streamed(dataset, training=False)
        if dataset is None or not hasattr(dataset, "column_names"):
            return dataset
        return self._prepared(dataset, training=False)[0]

    def _prepared(self, dataset: Any, *, training: bool, first: int = 0) -> tuple[Any, np.ndarray]:
        from datasets import Dataset, DatasetInfo

        if self.tokenizer is None:
            raise RailkdError("got no tokenizer; pass processing_class=, the student's tokenizer")
        text, max_length = self.args.text_columns, self.args.max_length
        ready = "input_ids" in dataset.column_names and text is None
        tokens = keyed_tokens(
            dataset,
            self.tokenizer,
            text=text,
            max_length=max_length,
            key_column=self.args.key_column,
            need_keys=training,
        )
        check_length(self.config, tokens.lengths, max_length, "the student")
        columns: dict[str, Any] = dict(tokens.inputs)
        columns["length"] = tokens.lengths.tolist()
        columns[KEY] = tokens.keys.tolist()
        if training and self.teacher_tokenizer is not None:
            theirs = tokens
            if not ready:
                theirs = keyed_tokens(dataset, self.teacher_tokenizer, text=text, max_length=max_length)
            elif not self._one_tokenizer:
                raise RailkdError(
                    "got rows tokenised beforehand, and a live teacher whose tokenizer is not the student's; wanted "
                    "tokens that both read; give the raw text columns (text_columns=), or a cache of the teacher"
                )
            if self.teacher_config is not None:
                check_length(self.teacher_config, theirs.lengths, max_length, "the teacher")
            columns |= {TEACHER_PREFIX + name: values for name, values in theirs.inputs.items()}
        label = find_columns(
            dataset.column_names, text=("input_ids",) if ready else text, label=self.args.label_column
        ).label
        if label is not None:
            columns["labels"] = self._labels(dataset, label, first)
        return Dataset.from_dict(columns, info=DatasetInfo(description=self._mark)), tokens.keys

    @cached_property
    def _one_tokenizer(self) -> bool:
        """Whether student and live teacher cut a text into the same tokens."""
        ours, theirs = self.tokenizer, self.teacher_tokenizer
        return ours is theirs or tokenizer_digest(ours) == tokenizer_digest(theirs)

    def _streamed(self, dataset: Any, *, training: bool) -> Any:
        """A stream of token rows: the same steps, a thousand rows at a time."""
        from datasets import Dataset

        names = dataset.column_names or list(next(iter(dataset)))  # a stream need not know its columns

        def prepared(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
            some = Dataset.from_dict({name: list(batch[name]) for name in names}, features=dataset.features)
            return dict(self._prepared(some, training=training, first=numbers[0])[0].to_dict())

        stream = dataset.map(prepared, batched=True, with_indices=True, remove_columns=names)
        stream.info.description = self._mark
        return stream

    def _labels(self, dataset: Any, column: str, first: int) -> list[Any]:
        """Labels as the loss reads them; ``first`` is the number of the first row in a stream."""
        feature = dataset.features.get(column)
        reader = _Classes(self.config, getattr(getattr(feature, "feature", feature), "names", None))
        read = self._number if self.regression else reader.vector if self.multi else reader.index
        labels = []
        for row, value in enumerate(dataset[column][:], first + 1):
            try:
                labels.append(read(value.tolist() if hasattr(value, "tolist") else value))
            except ValueError as error:
                raise RailkdError(f"column '{column}', row {row}: {error}") from None
        return labels

    @staticmethod
    def _number(value: Any) -> float:
        if is_missing(value):
            return float("nan")
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"got the label {value!r}, wanted a number for a student of one output; correct it, name another "
                "label_column, or set the student's num_labels"
            ) from None


class _Classes:
    """Labels to indices of a student's outputs. Text is a name, a whole number an index: so do datasets keep them.

    Args:
        config: the student's. names: of a ClassLabel column, whose numbers mean these names and not the student's.
    """

    def __init__(self, config: Any, names: Sequence[str] | None = None) -> None:
        self.config, self.names = config, label_names(config)
        self.known: dict[str, int | None] = {}
        self.of_class = names is not None
        self.by_name = list(names) if names is not None else None
        # A student that kept LABEL_0, LABEL_1, ... has no names to go by: the order is all there is.
        in_order = names is not None and _unnamed(self.names) and len(names) == len(self.names)
        if in_order and any(self._named(name) is None for name in names or ()):
            self.by_name = None

    def index(self, value: Any) -> int:
        """Of one label; missing ones (None, NaN, an empty text, -100) are marked as such.

        Raises:
            ValueError: a label that the student does not know.
        """
        if is_missing(value) or value == UNLABELLED or (isinstance(value, float) and math.isnan(value)):
            return UNLABELLED
        given = value
        if not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        ):
            value = int(value)
            if value < 0 and self.of_class:  # datasets' own mark of a missing ClassLabel
                return UNLABELLED
            if self.by_name is not None:
                given = value = self.by_name[value]
            elif 0 <= value < len(self.names):
                return value
        found = self._named(label_name(value)) if isinstance(value, str | bool) else None
        if found is None and isinstance(value, bool) and int(value) < len(self.names):
            return int(value)
        if found is None:
            raise ValueError(
                f"got the label {given!r}, the student knows {', '.join(self.names)}; wanted one of these or a number "
                f"below {len(self.names)}; set id2label and label2id of its config to the names of the data, or, if "
                "the labels are in another column, name it (label_column=, rename_column)"
            )
        return found

    def vector(self, value: Any) -> list[float]:
        """A list of C floats stands as it is; a list of names or indices says which classes apply."""
        count = len(self.names)
        if value is None:
            return [float("nan")] * count
        if not isinstance(value, list):
            raise ValueError(f"got the label {value!r}, wanted a list for a student of several labels a row")
        if len(value) == count and all(isinstance(number, float) for number in value):
            return value
        chosen = {self.index(name) for name in value}
        return [float(index in chosen) for index in range(count)]

    def _named(self, name: str) -> int | None:
        """The output of a name: as the command line matches them, or as label2id has it where id2label was not set."""
        if name not in self.known:
            try:
                self.known[name] = int(match_label_space(self.names, LabelSpace((name,))).spellings[name])
            except RailkdError:
                self.known[name] = {str(key): int(index) for key, index in self.config.label2id.items()}.get(name)
        return self.known[name]


def _is_stream(dataset: Any) -> bool:
    from datasets import IterableDataset

    return isinstance(dataset, IterableDataset)


def check_rows(cache: TeacherCache, keys: np.ndarray, pooling: str | None) -> None:
    """Refuse a cache that lacks rows or the pooling, before training starts."""
    if pooling is not None:
        cache.check_pooling(pooling)
    missing = cache.missing(keys)
    if len(missing):
        raise RailkdError(
            f"{len(missing)} of {len(keys)} training rows are not in the cache '{cache.path}' (first: row "
            f"{int(missing[0]) + 1}); "
            "build it again with these rows"
        )


def check_labels(student: Any, teacher: TeacherInfo) -> None:
    """Refuse a pair whose outputs do not mean the same: other count, problem type, names, or another order of them.

    A student that does not say its problem type takes the teacher's.
    """
    ours = label_names(student)
    if len(ours) != len(teacher.labels):
        raise RailkdError(
            f"the student has {len(ours)} outputs, the teacher {len(teacher.labels)} ({', '.join(teacher.labels)}); "
            "make them equal"
        )
    if student.problem_type is None and problem_type_of(student) != teacher.problem_type:
        # A config that says nothing is no contradiction: with as many outputs the student is what its teacher is.
        student.problem_type = teacher.problem_type
    if problem_type_of(student) != teacher.problem_type:
        raise RailkdError(
            f"got a student whose problem_type is {problem_type_of(student)} and a teacher whose is "
            f"{teacher.problem_type}; wanted the same; set the student's config.problem_type to the teacher's, or "
            "take another teacher"
        )
    if _unnamed(ours) or _unnamed(teacher.labels) or ours == teacher.labels:
        return
    what = "in another order" if sorted(ours) == sorted(teacher.labels) else "with other names"
    raise RailkdError(
        f"student and teacher have their labels {what}: student {', '.join(ours)}; teacher "
        f"{', '.join(teacher.labels)}; "
        "set the student's id2label and label2id to the teacher's"
    )


def _unnamed(names: Sequence[str]) -> bool:
    return all(name == f"LABEL_{i}" for i, name in enumerate(names))
