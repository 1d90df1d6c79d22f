"""Limits of a model's input: length, padding side, truncation."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from railkd.data.columns import find_columns
from railkd.data.tokens import KeyedTokens, full_lengths, some_rows
from railkd.errors import RailkdError

logger = logging.getLogger(__name__)
#: Model types with a learned table of positions: they crash on a text that is longer. Other types are not limited.
_TABLES = ("albert", "bert", "convbert", "distilbert", "electra", "ernie", "gpt2", "megatron-bert", "mobilebert", "opt")
#: As above, but positions are counted from the padding token's number plus one.
_SHIFTED_TABLES = ("camembert", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl")


def position_limit(config: Any) -> int | None:
    """Return the longest input that a model takes.

    Args:
        config: of the model.

    Returns:
        The number of tokens. None: there is no limit (rotary or relative positions), or it is not known.
    """
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
    """Return True if a tokenizer pads on the left of a model that is not made for it.

    The logits of a text then depend on the batch: an encoder's head reads the first token, absolute positions count
    from it, and a decoder behind an encoder reads the padding. Decoders with rotary positions, and XLNet, are made for
    padding on the left.

    Args:
        config: of the model.
        tokenizer: its ``padding_side`` is read.

    Returns:
        The answer.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS

    if getattr(tokenizer, "padding_side", "right") != "left":
        return False
    return bool(config.is_encoder_decoder) or config.model_type in {*ENCODERS, *_TABLES} - {"opt"}  # counts by the mask


def warn_of_padding(config: Any, tokenizer: Any, who: str) -> None:
    """Warn if the caller's own tokenizer pads on the wrong side.

    Args:
        config: of the model.
        tokenizer: of the caller.
        who: "the student" or "the teacher", for the message.
    """
    if left_padding_counts(config, tokenizer):
        logger.warning(
            "The tokenizer of %s pads on the left. %s models are not made for this: their logits for a text depend on "
            "the other texts of its batch. Fix: set tokenizer.padding_side = 'right'.",
            *(who, config.model_type),
        )


def check_length(config: Any, lengths: np.ndarray, max_length: int, who: str) -> None:
    """Refuse rows with more tokens than a model takes, before the model fails on them.

    A ``max_length`` above the limit is allowed as long as no row is longer than the limit.

    Args:
        config: of the model.
        lengths: (N,) tokens per row, after truncation.
        max_length: in tokens.
        who: "the student" or "the teacher", for the message.

    Raises:
        RailkdError: a row is longer than the limit.
    """
    limit = position_limit(config)
    if limit is None or not (lengths > limit).any():
        return
    raise RailkdError(
        f"got {int((lengths > limit).sum()):,} of {len(lengths):,} rows longer than {who} takes (up to "
        f"{int(lengths.max()):,} tokens at max length {max_length}); wanted at most {limit}; give --max-length {limit} "
        f"(max_length={limit})"
    )


def check_tokens(config: Any, tokenizer: Any, tokens: KeyedTokens, max_length: int, who: str) -> None:
    """Refuse rows that a model cannot read, before the model fails on them: `check_length`, and unknown token numbers.

    Args:
        config: of the model.
        tokenizer: that made the tokens.
        tokens: of N rows.
        max_length: in tokens.
        who: such as "the student", for the message.

    Raises:
        RailkdError: a row is too long, or has a token that the model has no embedding for.
    """
    lengths = tokens.lengths
    check_length(config, lengths, max_length, who)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if not rows or not len(lengths):
        return
    used = {"a text": int(tokens.inputs["input_ids"].values.max())}
    if lengths.min() < lengths.max():
        used["the padding"] = tokenizer.pad_token_id or 0
    for what, number in used.items():
        if number >= rows:
            raise RailkdError(
                f"Expected token numbers below {rows:,}, for which {who} has embeddings, got {number:,} "
                f"({tokenizer.convert_ids_to_tokens(int(number))!r}) in {what}. Fix: use the tokenizer of the model, "
                "or call model.resize_token_embeddings(len(tokenizer)) and save it."
            )


def check_texts(config: Any, tokenizer: Any, dataset: Any, max_length: int, who: str) -> None:
    """Call `check_length` for rows of text. They are tokenised only if ``max_length`` is above the model's limit.

    Args:
        config: of the model.
        tokenizer: of the model.
        dataset: rows with text columns named by convention.
        max_length: in tokens.
        who: "the student" or "the teacher", for the message.
    """
    limit = position_limit(config)
    if limit is None or max_length <= limit or not len(dataset):
        return
    columns = find_columns(dataset.column_names).text
    lengths = full_lengths(tokenizer, list(zip(*[dataset[name][:] for name in columns], strict=True)))
    check_length(config, np.minimum(lengths, max_length), max_length, who)


def truncation_line(
    dataset: Any, tokenizer: Any, max_length: int, *, sample: int = 1000, rows: int | None = None
) -> str:
    """Say how many rows are cut.

    Args:
        dataset: rows with text columns named by convention.
        tokenizer: of the model.
        max_length: in tokens.
        sample: rows to count on, at most.
        rows: number of rows that the dataset is a sample of; None: it has all of them.

    Returns:
        A line of text.
    """
    columns = find_columns(dataset.column_names).text
    chosen = dataset.select(some_rows(len(dataset), sample))
    lengths = full_lengths(tokenizer, list(zip(*[chosen[name][:] for name in columns], strict=True)))
    share, longest = float((lengths > max_length).mean()), int(lengths.max())
    of = "rows" if len(chosen) == (rows or len(dataset)) else f"{len(chosen):,} sampled rows"
    advice = "" if share <= 0.1 else "; a larger --max-length reads more of them"
    return f"truncated at {max_length} tokens: {share:.1%} of {of} (the longest has {longest:,}){advice}"
