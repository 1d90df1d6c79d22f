"""From rows of text to keyed rows of tokens.

An example is known by its content: `example_key` hashes the text, so shuffles, subsets, folds and merged sets name the
same example by the same key, and a changed text by another one.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from railkd.errors import RailkdError
from railkd.tasks.columns import find_columns

logger = logging.getLogger(__name__)
#: Column of the key: two signed 64-bit integers per row.
KEY = "example_key"
#: A live teacher's own tokens travel beside the student's under this prefix.
TEACHER_PREFIX = "teacher_"


def example_key(*fields: str | int) -> tuple[int, int]:
    """128 bits of BLAKE2b over the fields of an example, as two signed 64-bit integers (the widest a tensor holds).

    Lengths are hashed too, so ("ab", "c") and ("a", "bc") differ, and a pair differs from a single text.

    >>> example_key("a film") == example_key("a film"), example_key("a", "film") == example_key("a film")
    (True, False)
    """
    digest = hashlib.blake2b(digest_size=16)
    for field in fields:
        data = str(field).encode("utf-8", errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    high, low = np.frombuffer(digest.digest(), dtype="<i8").tolist()
    return high, low


def held_out(dataset: Any, share: float, seed: int) -> tuple[Any, Any]:
    """Split rows in two by their content: (the rest, about ``share`` of the rows).

    A pure function of seed and texts, so file order and other rows play no part; rows of equal text stay together, so
    nothing that is trained on is held out as well.

    Raises:
        RailkdError: a part would be empty.
    """
    names = [name for name in ("text", "text_pair") if name in dataset.column_names]
    rank = np.asarray([example_key(seed, *row)[0] for row in zip(*[dataset[name] for name in names], strict=True)])
    cut = np.sort(rank)[round(share * len(rank)) - 1] if round(share * len(rank)) else None
    inside = rank <= cut if cut is not None else np.zeros(len(rank), dtype=bool)
    if not inside.any() or inside.all():
        raise RailkdError(
            f"got a share of {share:g} of {len(rank):,} rows to hold out, which leaves one part empty; wanted a share "
            "that leaves rows in both"
        )
    return dataset.select(np.flatnonzero(~inside)), dataset.select(np.flatnonzero(inside))


def key_array(keys: Iterable[Sequence[int]]) -> np.ndarray:
    """(N, 2) int64 out of key tuples."""
    return np.asarray(list(keys), dtype=np.int64).reshape(-1, 2)


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


def position_limit(config: Any) -> int | None:
    """The longest input, in tokens, that a model takes; None: any (rope, relative positions), or it is not known."""
    kind, positions = config.model_type, getattr(config, "max_position_embeddings", None)
    if not positions or getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        return None
    if kind in _SHIFTED_TABLES:
        # MPNet counts from 1 whatever its config says.
        return int(positions) - 1 - (1 if kind == "mpnet" else int(config.pad_token_id or 0))
    if kind in ("deberta", "deberta-v2"):  # relative positions; a table only where they are added to the input too
        return int(positions) if config.position_biased_input else None
    return int(positions) if kind in _TABLES else None


def left_padding_counts(config: Any, tokenizer: Any) -> bool:
    """Whether a tokenizer pads on the left of a model that is not made for it.

    A text then has other numbers in every batch: an encoder's head reads the first token, absolute positions count from
    there, a decoder behind an encoder reads the padding. Decoders with rotary positions, and XLNet, do not mind.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS

    if getattr(tokenizer, "padding_side", "right") != "left":
        return False
    return bool(config.is_encoder_decoder) or config.model_type in {*ENCODERS, *_TABLES} - {"opt"}  # counts by the mask


def warn_of_padding(config: Any, tokenizer: Any, who: str) -> None:
    """Say so, of a tokenizer that is the caller's own."""
    if left_padding_counts(config, tokenizer):
        logger.warning(
            "the tokenizer of %s pads on the left, which %s models are not made for: what they say of a text depends "
            "on the texts beside it; set tokenizer.padding_side = 'right'",
            *(who, config.model_type),
        )


def check_length(config: Any, lengths: np.ndarray, max_length: int, who: str) -> None:
    """Refuse rows (N,) of more tokens than a model takes, before it crashes on them.

    A ``max_length`` above the limit is fine as long as no row is.

    Args:
        lengths: as the model would read them: after truncation. who: "the student".
    """
    limit = position_limit(config)
    if limit is None or not (lengths > limit).any():
        return
    raise RailkdError(
        f"got {int((lengths > limit).sum()):,} of {len(lengths):,} rows longer than {who} takes (up to "
        f"{int(lengths.max()):,} tokens at max length {max_length}); wanted at most {limit}; give --max-length {limit} "
        f"(max_length={limit})"
    )


def check_texts(config: Any, tokenizer: Any, dataset: Any, max_length: int, who: str) -> None:
    """`check_length` of rows of text, which are tokenised only where ``max_length`` leaves a doubt."""
    limit = position_limit(config)
    if limit is None or max_length <= limit or not len(dataset):
        return
    columns = find_columns(dataset.column_names).text
    lengths = full_lengths(tokenizer, list(zip(*[dataset[name][:] for name in columns], strict=True)))
    check_length(config, np.minimum(lengths, max_length), max_length, who)


def truncation_line(dataset: Any, tokenizer: Any, max_length: int, *, sample: int = 1000) -> str:
    """How many rows are cut, in words; counted on a sample of long files."""
    columns = find_columns(dataset.column_names).text
    chosen = dataset.select(some_rows(len(dataset), sample))
    lengths = full_lengths(tokenizer, list(zip(*[chosen[name][:] for name in columns], strict=True)))
    share, longest = float((lengths > max_length).mean()), int(lengths.max())
    of = "rows" if len(chosen) == len(dataset) else f"{len(chosen):,} sampled rows"
    advice = "" if share <= 0.1 else "; a larger --max-length reads more of them"
    return f"truncated at {max_length} tokens: {share:.1%} of {of} (the longest has {longest:,}){advice}"


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
        text: names of the text columns; None: found by convention (`railkd.tasks.columns`).
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


class PaddingCollator:
    """Rows of tokens to a padded batch; keys become one (B, 2) tensor, labels one tensor.

    Args:
        tokenizer: pads ``input_ids`` and its company.
        teacher_tokenizer: pads the ``teacher_`` columns, if there are any.
        regression: labels are floats.
    """

    def __init__(self, tokenizer: Any, teacher_tokenizer: Any = None, *, regression: bool = False) -> None:
        self.tokenizer = tokenizer
        self.teacher_tokenizer = teacher_tokenizer
        self.regression = regression

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = _padded(self.tokenizer, rows, "")
        if self.teacher_tokenizer is not None and TEACHER_PREFIX + "input_ids" in rows[0]:
            theirs = _padded(self.teacher_tokenizer, rows, TEACHER_PREFIX)
            batch |= {TEACHER_PREFIX + name: value for name, value in theirs.items()}
        if KEY in rows[0]:
            batch[KEY] = torch.as_tensor(np.asarray([row[KEY] for row in rows], dtype=np.int64))
        label = next((name for name in ("labels", "label") if name in rows[0]), None)
        if label is not None:
            values = np.asarray([row[label] for row in rows])
            dtype = torch.float if self.regression or values.ndim > 1 else torch.long
            batch["labels"] = torch.as_tensor(values).to(dtype)
        return batch


def _padded(tokenizer: Any, rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, Tensor]:
    names = [name for name in tokenizer.model_input_names if prefix + name in rows[0]]
    batch = dict(tokenizer.pad({name: [row[prefix + name] for row in rows] for name in names}, return_tensors="pt"))
    if "attention_mask" not in batch:
        raise RailkdError("got token rows without attention_mask, wanted one: padding could not be told from text")
    return batch
