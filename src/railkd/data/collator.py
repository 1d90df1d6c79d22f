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


class Batch(dict[str, Tensor]):
    """The tensors of one batch, and the numbers of it that the host needs.

    Attributes:
        host: the keys (B, 2) and the labels of the batch as arrays in main memory, by the names of the tensors, and
            ``ends`` (B,), the number of columns up to the last token of each row. Nothing has to be read back from a
            device.
        ahead: a read of the teacher's signals that has begun, see `railkd.training.feeding`; None without one.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], host: Mapping[str, np.ndarray] | None = None, ahead: Any = None
    ) -> None:
        super().__init__(tensors)
        self.host: dict[str, np.ndarray] = dict(host or {})
        self.ahead = ahead

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> Batch:
        """Return a batch as it is, or make one of the tensors that another collator returned."""
        return batch if isinstance(batch, Batch) else cls(batch)

    def on_host(self, name: str) -> np.ndarray | None:
        """Return keys or labels as an array, or None if the batch has none; only those of other collators are read."""
        if name not in self.host and name in self:
            self.host[name] = self[name].cpu().numpy()
        return self.host.get(name)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch with its tensors on a device; the keys stay in main memory, where they are looked up.

        Copies from pinned memory never make the host wait.
        """
        moved = {
            name: value if name == KEY else value.to(device, non_blocking=non_blocking or value.is_pinned())
            for name, value in self.items()
        }
        return Batch(moved, self.host, self.ahead)


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

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        batch = _padded(self.tokenizer, rows, "")
        if self.teacher_tokenizer is not None and TEACHER_PREFIX + "input_ids" in rows[0]:
            theirs = _padded(self.teacher_tokenizer, rows, TEACHER_PREFIX)
            batch |= {TEACHER_PREFIX + name: value for name, value in theirs.items()}
        host: dict[str, np.ndarray] = {"ends": ends_of(np.from_dlpack(batch["attention_mask"]))}
        if KEY in rows[0]:
            host[KEY] = np.asarray([row[KEY] for row in rows], dtype=np.int64)
            batch[KEY] = torch.as_tensor(host[KEY])
        label = next((name for name in ("labels", "label") if name in rows[0]), None)
        if label is not None:
            values = np.asarray([row[label] for row in rows])
            host["labels"] = values.astype(np.float32 if self.real_labels or values.ndim > 1 else np.int64)
            batch["labels"] = torch.as_tensor(host["labels"])
        return Batch(batch, host)


def ends_of(mask: np.ndarray) -> np.ndarray:
    """Return the number of columns up to the last token of each row, (B,), of a mask (B, L).

    >>> ends_of(np.array([[1, 1, 0], [0, 1, 1]])).tolist()
    [2, 3]
    """
    return np.asarray((mask * np.arange(1, mask.shape[1] + 1)).max(axis=1))


def _padded(tokenizer: Any, rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, Tensor]:
    names = [name for name in tokenizer.model_input_names if prefix + name in rows[0]]
    batch = dict(tokenizer.pad({name: [row[prefix + name] for row in rows] for name in names}, return_tensors="pt"))
    if "attention_mask" not in batch:
        raise RailkdError(
            "expected token rows with attention_mask, got rows without one. Fix: tokenise the text with it."
        )
    return batch
