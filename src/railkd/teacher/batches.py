"""Batches of a teacher pass: which rows run together, and how they are padded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from railkd.data.tokens import KeyedTokens, Ragged
from railkd.models.limits import left_padding_counts


def plan_batches(lengths: np.ndarray, todo: np.ndarray, *, tokens: int | None, rows: int | None) -> list[np.ndarray]:
    """Return the rows of each batch, the longest rows first.

    So the time left is not underestimated, a lack of memory shows at once, and little is padded. The batches are a
    function of the arguments alone, so that all ranks agree on them.

    Args:
        lengths: (N,) of all rows, in tokens.
        todo: positions of the rows to run.
        tokens: the most in a batch, padding included; one row may be longer. None: any number.
        rows: the most in a batch; None: any number.

    >>> [batch.tolist() for batch in plan_batches(np.array([2, 6, 3, 1]), np.array([0, 1, 2, 3]), tokens=6, rows=None)]
    [[1], [2, 0], [3]]
    """
    order = todo[np.argsort(-lengths[todo], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        fit = len(order) if tokens is None else max(1, tokens // max(1, int(lengths[order[start]])))
        end = start + min(fit, rows or fit)
        batches.append(order[start:end])
        start = end
    return batches


class Padder:
    """Pads rows so that the teacher returns for each row what it returns for that row alone.

    Causal models are padded on the right: whatever their positions are, no token sees the padding behind it. The head
    of a decoder looks for the last token that is not the padding token of the config. If the config names none, a
    token that occurs in no row takes its place during the pass.

    Args:
        config: of the teacher.
        tokenizer: of the teacher; it need not have a padding token.
        causal: the teacher is a decoder.
        rows: all rows of the pass.

    Attributes:
        alone: every token of the vocabulary occurs and the config names no padding token, so rows must run one by one.
    """

    def __init__(self, config: Any, tokenizer: Any, causal: bool, rows: KeyedTokens) -> None:
        self._config = config.get_text_config()
        self._rows = rows.inputs
        left = getattr(tokenizer, "padding_side", "right") == "left"
        self._left = left and not causal and not left_padding_counts(config, tokenizer)
        self._named = self._config.pad_token_id is not None
        pad = self._config.pad_token_id if self._named else _unused(self._config.vocab_size, rows.inputs["input_ids"])
        self.alone = pad is None
        segment = getattr(tokenizer, "pad_token_type_id", 0) or 0
        self._fill = {"input_ids": pad or 0, "token_type_ids": segment}

    def pad(self, chosen: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Return rows as padded tensors (B, L), with an attention mask.

        Args:
            chosen: B positions of rows.
        """
        lengths = [len(self._rows["input_ids"][row]) for row in chosen]
        inputs = {name: [values[row] for row in chosen] for name, values in self._rows.items()}
        inputs.setdefault("attention_mask", [[1] * length for length in lengths])
        return {name: self._tensor(values, max(lengths), self._fill.get(name, 0)) for name, values in inputs.items()}

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Let the config name the padding token inside the ``with`` block."""
        before = self._config.pad_token_id
        if not self._named and not self.alone:
            self._config.pad_token_id = self._fill["input_ids"]
        try:
            yield
        finally:
            self._config.pad_token_id = before

    def _tensor(self, values: Sequence[Sequence[int]], length: int, fill: int) -> Tensor:
        padded = np.full((len(values), length), fill, dtype=np.int64)
        for row, ids in enumerate(values):
            padded[row, length - len(ids) if self._left else 0 : length if self._left else len(ids)] = ids
        return torch.from_numpy(padded)


def _unused(vocabulary: int, rows: Ragged) -> int | None:
    """Return a token that occurs in no row, or None if every one does."""
    used = np.zeros(vocabulary, dtype=bool)
    used[rows.values] = True
    free = np.flatnonzero(~used)
    return int(free[0]) if len(free) else None
