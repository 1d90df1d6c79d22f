"""Makes batches: pads and stacks rows of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from railkd.data.keys import KEY
from railkd.data.tokens import TEACHER_PREFIX
from railkd.errors import RailkdError


class PaddingCollator:
    """Makes a padded batch of rows of tokens. Keys become one tensor (B, 2), labels one tensor.

    Args:
        tokenizer: pads ``input_ids`` and the other inputs.
        teacher_tokenizer: pads the ``teacher_`` columns, if there are any.
        real_labels: labels are floats, and NaN marks a row without one; otherwise they are class indices.
    """

    def __init__(self, tokenizer: Any, teacher_tokenizer: Any = None, *, real_labels: bool = False) -> None:
        self.tokenizer = tokenizer
        self.teacher_tokenizer = teacher_tokenizer
        self.real_labels = real_labels

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
            dtype = torch.float if self.real_labels or values.ndim > 1 else torch.long
            batch["labels"] = torch.as_tensor(values).to(dtype)
        return batch


def _padded(tokenizer: Any, rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, Tensor]:
    names = [name for name in tokenizer.model_input_names if prefix + name in rows[0]]
    batch = dict(tokenizer.pad({name: [row[prefix + name] for row in rows] for name in names}, return_tensors="pt"))
    if "attention_mask" not in batch:
        raise RailkdError(
            "expected token rows with attention_mask, got rows without one. Fix: tokenise the text with it."
        )
    return batch
