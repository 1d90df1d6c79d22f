"""From rows of text to keyed rows of tokens.

An example is known by its content: `example_key` hashes the text, so shuffles, subsets, folds and merged sets name the
same example by the same key, and a changed text by another one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from railkd.data.columns import find_columns
from railkd.data.keys import KEY, example_key, key_array
from railkd.errors import RailkdError

logger = logging.getLogger(__name__)
#: A live teacher's own tokens travel beside the student's under this prefix.
TEACHER_PREFIX = "teacher_"


def model_inputs(tokenizer: Any, texts: Sequence[Sequence[str]], max_length: int) -> dict[str, list[Any]]:
    """Tokenise a list of one- or two-text rows in one call, truncated to ``max_length``, unpadded."""
    columns = list(zip(*texts, strict=True))
    encoded = tokenizer(*[list(column) for column in columns], truncation=True, max_length=max_length)
    return {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}


def student_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch without the keys and the columns that only the teacher reads."""
    return {name: value for name, value in batch.items() if name != KEY and not name.startswith(TEACHER_PREFIX)}


def some_rows(count: int, most: int) -> list[int]:
    """Row numbers of a sample: evenly spread, so that sorted files are seen from end to end; all where few.

    >>> some_rows(10, 5), some_rows(2, 5)
    ([0, 2, 4, 6, 8], [0, 1])
    """
    return list(range(count)) if count <= most else [i * count // most for i in range(most)]


def full_lengths(tokenizer: Any, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """(N,) tokens of one- or two-text rows before truncation."""
    columns = [list(column) for column in zip(*texts, strict=True)]
    # verbose: it would warn of every text that is longer than the model takes, which is what is being counted.
    encoded = tokenizer(*columns, truncation=False, verbose=False)
    return np.asarray([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)


#: Model types whose learned table of positions ends: one more token and they crash. Of other types nothing is refused.
_TABLES = ("albert", "bert", "convbert", "distilbert", "electra", "ernie", "gpt2", "megatron-bert", "mobilebert", "opt")
#: As above, but their positions are counted from behind the padding token's number.
_SHIFTED_TABLES = ("camembert", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl")


@dataclass(frozen=True)
class KeyedTokens:
    """Examples as a model reads them: unpadded tokens by input name, and their keys (N, 2)."""

    inputs: dict[str, list[Any]]
    keys: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each example."""
        return np.asarray([len(ids) for ids in self.inputs["input_ids"]], dtype=np.int64)


def keyed_tokens(
    dataset: Any,
    tokenizer: Any,
    *,
    text: Sequence[str] | None = None,
    max_length: int,
    key_column: str = KEY,
    need_keys: bool = True,
) -> KeyedTokens:
    """Tokenise and key the rows of a dataset.

    Args:
        dataset: rows with one or two text columns, or rows tokenised beforehand with a key column.
        tokenizer: of the model that will read them.
        text: names of the text columns; None: found by convention (`railkd.data.columns`).
        max_length: in tokens. key_column: of rows tokenised beforehand: text, numbers, or pairs of 64-bit integers.
        need_keys: False lets rows tokenised beforehand do without: their tokens are the key.

    Raises:
        RailkdError: no text column, a text that is none, tokens without a key.
    """
    names = list(dataset.column_names)
    if "input_ids" in names and text is None:
        if key_column not in names and need_keys:
            raise RailkdError(
                f"got rows tokenised beforehand without a key column '{key_column}' (columns: {', '.join(names)}); add "
                "one "
                "that names each example, or give the raw text columns"
            )
        inputs = {name: dataset[name][:] for name in tokenizer.model_input_names if name in names}
        if key_column not in names:
            return KeyedTokens(inputs, key_array(example_key(*ids) for ids in inputs["input_ids"]))
        given = dataset[key_column][:]
        return KeyedTokens(
            inputs, key_array(key if isinstance(key, (list, tuple)) else example_key(key) for key in given)
        )
    chosen = find_columns(names, text=text).text
    rows = list(zip(*[_texts(dataset, column) for column in chosen], strict=True))
    return KeyedTokens(model_inputs(tokenizer, rows, max_length), key_array(example_key(*row) for row in rows))


def _texts(dataset: Any, column: str) -> list[str]:
    values = dataset[column][:]
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise RailkdError(
                f"column '{column}', row {row + 1}: got {value!r}, wanted text; fill or drop the row, or name another "
                "text column"
            )
    return values
