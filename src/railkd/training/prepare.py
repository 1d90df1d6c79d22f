"""Prepare data sets for training: check them, tokenise texts, add keys, and map labels to the model's order."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from railkd.data.collator import PaddingCollator
from railkd.data.columns import find_columns
from railkd.data.given import as_dataset
from railkd.data.keys import KEY
from railkd.data.tokens import TEACHER_PREFIX, Ragged, keyed_tokens
from railkd.errors import RailkdError
from railkd.models.heads import label_names, task_of_config
from railkd.models.limits import check_tokens, warn_of_padding
from railkd.teacher.identity import tokenizer_digest
from railkd.training.arguments import DistillationTrainingArguments

#: Rows whose labels are Python objects at the same time.
_ROWS_AT_ONCE = 4096


class Preparer:
    """Turn the data sets of a user into rows of tokens.

    Args:
        config: config of the student.
        tokenizer: tokenizer of the student.
        args: settings of the run, for the names of columns and the maximum length.
        teacher_tokenizer: tokenizer of a live teacher. None for a cache.
        teacher_config: config of a live teacher, which limits the length of inputs. None for a cache.
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
        self.task = task_of_config(config)
        # Marks prepared data sets in `info.description`, which survives select() and shuffle().
        self._mark = f"railkd: prepared rows {uuid.uuid4().hex}"

    def collator(self) -> PaddingCollator:
        """Return a collator of the rows that are prepared here."""
        return PaddingCollator(self.tokenizer, self.teacher_tokenizer, real_labels=self.task.real_labels)

    def train(self, dataset: Any) -> tuple[Any, np.ndarray | None]:
        """Return training rows with tokens and keys.

        Args:
            dataset: N rows with text columns or tokens, or a stream of rows, which is tokenised as it is read.

        Returns:
            The rows and their keys, (N, 2). The keys of a stream are None.

        Raises:
            RailkdError: ``dataset`` is a stream, and ``max_steps`` is not set, the sampling is balanced, or sources
                have shares.
        """
        if _is_stream(dataset):
            if self.args.max_steps < 1:
                raise RailkdError("got a stream of rows, whose end is not known; wanted max_steps in the arguments")
            if self.args.sampling == "balanced" or self.args.source_shares is not None:
                what = "Shares of sources need" if self.args.source_shares else "Balanced sampling needs"
                raise RailkdError(f"{what} all rows at once, got a stream. Fix: load it into memory.")
            return self._streamed(dataset, training=True), None
        dataset = _readable(dataset)
        if dataset is None or not hasattr(dataset, "column_names"):
            return dataset, None
        return self._prepared(dataset, training=True)

    def labelled(self, dataset: Any) -> Any:
        """Return rows with tokens for evaluation and prediction. They need no keys.

        Args:
            dataset: a data set or a dict of data sets. Data sets prepared here are not tokenised again.

        Returns:
            The rows, or a dict of them.
        """
        if isinstance(dataset, dict):
            return {name: self.labelled(rows) for name, rows in dataset.items()}
        dataset = _readable(dataset)
        info = getattr(dataset, "info", None)
        if info is not None and info.description == self._mark:
            return dataset
        if _is_stream(dataset):
            return self._streamed(dataset, training=False)
        if dataset is None or not hasattr(dataset, "column_names"):
            return dataset
        return self._prepared(dataset, training=False)[0]

    def _prepared(self, dataset: Any, *, training: bool, first: int = 0) -> tuple[Any, np.ndarray]:
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
        check_tokens(self.config, self.tokenizer, tokens, max_length, "the student")
        columns: dict[str, Any] = {name: lists.arrow() for name, lists in tokens.inputs.items()}
        columns["length"] = tokens.lengths
        columns[KEY] = Ragged(tokens.keys.reshape(-1), np.full(len(tokens.keys), 2)).arrow()
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
                check_tokens(self.teacher_config, self.teacher_tokenizer, theirs, max_length, "the teacher")
            columns |= {TEACHER_PREFIX + name: lists.arrow() for name, lists in theirs.inputs.items()}
        label = find_columns(
            dataset.column_names, text=("input_ids",) if ready else text, label=self.args.label_column
        ).label
        if label is not None:
            columns["labels"] = self._labels(dataset, label, first)
        return self._marked(columns), tokens.keys

    def _marked(self, columns: Mapping[str, Any]) -> Any:
        """Return columns as a data set of rows that are prepared."""
        import pyarrow as pa
        from datasets import Dataset, DatasetInfo
        from datasets.table import InMemoryTable

        # With a fingerprint of its own: for one of the content, the whole table would be written to memory.
        table, info = InMemoryTable(pa.table(dict(columns))), DatasetInfo(description=self._mark)
        return Dataset(table, info=info, fingerprint=uuid.uuid4().hex[:16])

    @cached_property
    def _one_tokenizer(self) -> bool:
        """Return True if student and live teacher split a text into the same tokens."""
        ours, theirs = self.tokenizer, self.teacher_tokenizer
        return ours is theirs or tokenizer_digest(ours) == tokenizer_digest(theirs)

    def _streamed(self, dataset: Any, *, training: bool) -> Any:
        """Return a stream of rows with tokens, prepared in batches of a thousand rows."""
        from datasets import Dataset

        names = dataset.column_names or list(next(iter(dataset)))  # a stream may lack the names of its columns

        def prepared(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
            some = Dataset.from_dict({name: list(batch[name]) for name in names}, features=dataset.features)
            return dict(self._prepared(some, training=training, first=numbers[0])[0].to_dict())

        stream = dataset.map(prepared, batched=True, with_indices=True, remove_columns=names)
        stream.info.description = self._mark
        return stream

    def _labels(self, dataset: Any, column: str, first: int) -> list[Any]:
        """Return labels as the loss reads them. ``first`` is the number of the first row in a stream."""
        feature = dataset.features.get(column)
        given = getattr(getattr(feature, "feature", feature), "names", None)
        read = self.task.reader(label_names(self.config), self.config.label2id, given)
        labels = []
        for start in range(0, len(dataset), _ROWS_AT_ONCE):
            for row, value in enumerate(dataset[column][start : start + _ROWS_AT_ONCE], first + start + 1):
                try:
                    labels.append(read(value.tolist() if hasattr(value, "tolist") else value))
                except ValueError as error:
                    raise RailkdError(f"column '{column}', row {row}: {error}") from None
        return labels


def _readable(dataset: Any) -> Any:
    """Return a list or a data frame as a `Dataset`, and None and data sets of torch unchanged. Refuse other objects."""
    from torch.utils.data import IterableDataset

    if dataset is None or isinstance(dataset, IterableDataset):
        return dataset
    table = hasattr(dataset, "column_names") or (hasattr(dataset, "__getitem__") and not hasattr(dataset, "iloc"))
    return dataset if table and not isinstance(dataset, str | list | tuple | dict) else as_dataset(dataset)


def _is_stream(dataset: Any) -> bool:
    from datasets import IterableDataset

    return isinstance(dataset, IterableDataset)
