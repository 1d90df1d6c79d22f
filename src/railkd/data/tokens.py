"""Turns rows of text into rows of tokens with keys."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from railkd.data.columns import find_columns
from railkd.data.keys import KEY, example_key, key_array
from railkd.errors import RailkdError
from railkd.runtime.words import named, shortened

logger = logging.getLogger(__name__)
#: A live teacher's own tokens travel beside the student's under this prefix.
TEACHER_PREFIX = "teacher_"
#: Rows that are tokenised at once. Meanwhile they are Python objects, which take ten times the memory of arrays.
_ROWS_AT_ONCE = 1024
#: Types of the array module, from small to large: 8, 16 and 32 bits.
_CODES = "bhi"


def model_inputs(tokenizer: Any, texts: Sequence[Sequence[str]], max_length: int) -> dict[str, list[Any]]:
    """Tokenise rows in one call, without padding.

    Args:
        tokenizer: of the model that will read them.
        texts: N rows of one or two texts.
        max_length: in tokens; longer rows are truncated.

    Returns:
        Input name -> N lists.
    """
    columns = list(zip(*texts, strict=True))
    encoded = tokenizer(*[list(column) for column in columns], truncation=True, max_length=max_length)
    return {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}


def _give_each_row_a_token(inputs: dict[str, list[Any]], tokenizer: Any, first: int = 0) -> dict[str, list[Any]]:
    """Put one attended token into rows without tokens, because a model cannot read a batch of empty rows.

    Only tokenizers that add no tokens of their own, as those of many decoders, make such rows: of empty texts.

    Args:
        inputs: input name -> N unpadded lists.
        tokenizer: its first token of those below is taken.
        first: number of the first row, for the message.

    Returns:
        The inputs.

    Raises:
        RailkdError: there is a row without tokens, and the tokenizer names no token to put in.
    """
    empty = [row for row, ids in enumerate(inputs["input_ids"]) if not len(ids)]
    if not empty:
        return inputs
    names = ("bos", "cls", "eos", "sep", "unk", "pad")
    found = (getattr(tokenizer, f"{name}_token_id", None) for name in names)
    token = next((number for number in found if number is not None), None)
    if token is None:
        raise RailkdError(
            f"row {first + empty[0] + 1} has no tokens, because its text is empty, and the tokenizer names no token to "
            "stand for it. Fix: drop rows with an empty text, or name a bos_token."
        )
    fill = {"input_ids": token, "attention_mask": 1}
    filled = {name: list(values) for name, values in inputs.items()}
    for name, values in filled.items():
        for row in empty:
            values[row] = [fill.get(name, 0)]
    return filled


def student_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch without the keys and the columns that only the teacher reads.

    Args:
        batch: column -> tensor.
    """
    return {name: value for name, value in batch.items() if name != KEY and not name.startswith(TEACHER_PREFIX)}


def some_rows(count: int, most: int) -> list[int]:
    """Return the row numbers of a sample, evenly spread, so that it covers sorted files from end to end.

    Args:
        count: of all rows.
        most: of the sample; all rows if there are fewer.

    Example:
        >>> some_rows(10, 5), some_rows(2, 5)
        ([0, 2, 4, 6, 8], [0, 1])
    """
    return list(range(count)) if count <= most else [i * count // most for i in range(most)]


def full_lengths(tokenizer: Any, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Return (N,) the numbers of tokens before truncation.

    Args:
        tokenizer: of the model.
        texts: N rows of one or two texts.
    """
    columns = [list(column) for column in zip(*texts, strict=True)]
    # Without verbose=False it would warn of texts that are longer than the model takes.
    encoded = tokenizer(*columns, truncation=False, verbose=False)
    return np.asarray([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)


class Ragged(Sequence[np.ndarray]):
    """N lists of whole numbers in two arrays, as Arrow holds them: a few bytes a number, and no Python objects.

    Args:
        values: the numbers of all lists, one list after the other.
        lengths: (N,) of the lists.

    Example:
        >>> rows = Ragged(np.array([1, 2, 3]), np.array([2, 0, 1]))
        >>> [row.tolist() for row in rows]
        [[1, 2], [], [3]]
    """

    def __init__(self, values: np.ndarray, lengths: np.ndarray) -> None:
        self.values, self.lengths = values, lengths
        self._starts = np.zeros(len(lengths) + 1, dtype=np.int32 if len(values) < 2**31 else np.int64)
        np.cumsum(lengths, out=self._starts[1:])

    @classmethod
    def of(cls, lists: Iterable[Sequence[int] | np.ndarray]) -> Ragged:
        """Return lists of numbers of at most 32 bits; see `Growing`.

        Args:
            lists: read once.
        """
        growing = Growing()
        growing.extend(lists)
        return growing.done()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        return self.values[self._starts[row] : self._starts[row + 1]]

    def arrow(self) -> Any:
        """Return the lists as an Arrow array, which shares their memory."""
        import pyarrow as pa

        arrays = pa.ListArray if self._starts.dtype == np.int32 else pa.LargeListArray
        return arrays.from_arrays(pa.array(self._starts), pa.array(self.values))


class Growing:
    """Collects lists of numbers of at most 32 bits, in as few bytes a number as the largest one needs.

    Arrays of Python grow in place. Parts that are joined at the end would take the memory twice.

    Example:
        >>> growing = Growing()
        >>> growing.extend([[7, 8], [30_000]])
        >>> growing.done().values
        array([    7,     8, 30000], dtype=int16)
    """

    def __init__(self) -> None:
        self._values, self._lengths = array("b"), array("i")

    def extend(self, lists: Iterable[Sequence[int] | np.ndarray]) -> None:
        """Append lists.

        Args:
            lists: read once.

        Raises:
            RailkdError: a number needs more than 32 bits.
        """
        for row in lists:
            before = len(self._values)
            for code in _CODES[_CODES.index(self._values.typecode) :]:
                if code != self._values.typecode:
                    self._values = array(code, self._values)
                try:
                    self._values.extend(row)
                    break
                except OverflowError:
                    del self._values[before:]
            else:
                raise RailkdError(f"Expected token numbers below {2**31:,}, got {max(row):,}.")
            self._lengths.append(len(row))

    def done(self) -> Ragged:
        """Return the lists, without a copy. Nothing can be appended afterwards."""
        return Ragged(np.asarray(self._values), np.asarray(self._lengths))


@dataclass(frozen=True)
class KeyedTokens:
    """Examples as a model reads them.

    Attributes:
        inputs: input name -> N unpadded lists of tokens.
        keys: (N, 2).
    """

    inputs: Mapping[str, Ragged]
    keys: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each example, (N,)."""
        return self.inputs["input_ids"].lengths.astype(np.int64)

    def select(self, rows: np.ndarray) -> KeyedTokens:
        """Return some of the examples.

        Args:
            rows: (n,) their numbers.
        """
        inputs = {name: Ragged.of(values[i] for i in rows) for name, values in self.inputs.items()}
        return KeyedTokens(inputs, self.keys[rows])

    @classmethod
    def join(cls, parts: Sequence[KeyedTokens]) -> KeyedTokens:
        """Return the examples of several tables, one after the other.

        Args:
            parts: the tables, with the same inputs; at least one.
        """
        inputs = {name: Ragged.of(row for part in parts for row in part.inputs[name]) for name in parts[0].inputs}
        return cls(inputs, np.concatenate([part.keys for part in parts]))


def keyed_tokens(
    dataset: Any,
    tokenizer: Any,
    *,
    text: Sequence[str] | None = None,
    max_length: int,
    key_column: str = KEY,
    need_keys: bool = True,
) -> KeyedTokens:
    """Tokenise the rows of a dataset and compute their keys.

    Args:
        dataset: rows with one or two text columns, or rows tokenised beforehand with a key column.
        tokenizer: of the model that will read them.
        text: names of the text columns; None: found by common names (`railkd.data.columns`).
        max_length: in tokens.
        key_column: of rows tokenised beforehand; it holds text, numbers, or pairs of 64-bit integers.
        need_keys: False: rows tokenised beforehand without a key column get keys from their tokens.

    Returns:
        Tokens and keys of the N rows.

    Raises:
        RailkdError: there is no text column, a cell of it is not text, or tokens have no key.
    """
    names = list(dataset.column_names)
    if "input_ids" in names and text is None:
        if key_column not in names and need_keys:
            raise RailkdError(
                f"rows tokenised beforehand need a key column {key_column!r}; the columns are {named(names)}. "
                "Fix: add one that identifies each example, or give the raw text columns."
            )
        inputs = {name: dataset[name][:] for name in tokenizer.model_input_names if name in names}
        inputs = _give_each_row_a_token(inputs, tokenizer)
        tokens = {name: Ragged.of(lists) for name, lists in inputs.items()}
        if key_column not in names:
            return KeyedTokens(tokens, key_array(example_key(*ids) for ids in inputs["input_ids"]))
        given = dataset[key_column][:]
        return KeyedTokens(
            tokens, key_array(key if isinstance(key, (list, tuple)) else example_key(key) for key in given)
        )
    growing: dict[str, Growing] = {}
    keys = array("q")
    for first, rows in _text_rows(dataset, find_columns(names, text=text).text):
        found = _give_each_row_a_token(model_inputs(tokenizer, rows, max_length), tokenizer, first)
        for name, lists in found.items():
            growing.setdefault(name, Growing()).extend(lists)
        for row in rows:
            keys.extend(example_key(*row))
    return KeyedTokens({name: lists.done() for name, lists in growing.items()}, np.asarray(keys).reshape(-1, 2))


def _text_rows(dataset: Any, columns: Sequence[str]) -> Iterator[tuple[int, list[tuple[str, ...]]]]:
    """Yield the rows of text columns, some thousand at a time, with the number of the first of them.

    At least one part, so that a data set without rows gives arrays without rows.
    """
    for start in range(0, max(1, len(dataset)), _ROWS_AT_ONCE):
        cells = [_texts(dataset[column][start : start + _ROWS_AT_ONCE], column, start) for column in columns]
        yield start, list(zip(*cells, strict=True))


def _texts(values: Sequence[Any], column: str, first: int) -> list[str]:
    for row, value in enumerate(values, first + 1):
        if not isinstance(value, str):
            raise RailkdError(
                f"column {shortened(column)!r}, row {row}: expected text, got {shortened(repr(value))}. "
                "Fix: fill or drop the row, or name another text column."
            )
    return list(values)
