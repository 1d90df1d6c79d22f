"""Runs a batch through a student in parts of similar length, so that a random batch needs little padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from railkd.data.collator import ends_of
from railkd.models.blocks import BlockReader
from railkd.runtime.hardware import to_device

#: Parts of a batch. More parts pad less, but their matrix products are smaller.
PARTS = 4


def run_in_parts(
    student: Any,
    inputs: Mapping[str, Tensor],
    mask: Tensor,
    *,
    output: str,
    reader: BlockReader | None = None,
    ends: np.ndarray | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a batch in `PARTS` passes over rows of similar length, each without the columns that pad all its rows.

    The result is that of one pass, to rounding (dropout draws other numbers). The table of word embeddings is read
    once for all parts, because each reading of a trained table adds a gradient of the size of the whole table. Padding
    on the left is kept. On an accelerator without ``ends``, the host waits once, for the lengths.

    Args:
        student: a transformers model.
        inputs: name -> (B, L) tensors that the student takes, with ``input_ids``.
        mask: (B, L), 1 for real tokens.
        output: the name of the logits in what the student returns.
        reader: of the student's blocks, or None.
        ends: (B,) the number of columns up to the last token of each row. None: found from ``mask``.

    Returns:
        Logits (B, C), and the reader's pooling -> states (B, n, d), in the order of the rows.
    """
    if ends is None:
        ends = ends_of(mask.cpu().numpy())
    parts = np.array_split(np.argsort(ends, kind="stable"), min(PARTS, len(ends)))
    sizes, lengths = [len(part) for part in parts], [max(1, int(ends[part[-1]])) for part in parts]
    order = to_device(np.concatenate(parts), mask.device)
    ids = inputs["input_ids"][order]
    logits, states = [], []
    with _embedded_once(student, ids, sizes, lengths) as ids_of_parts:
        for number, rows in enumerate(order.split(sizes)):
            part = {name: value[rows, : lengths[number]] for name, value in inputs.items()}
            part["input_ids"] = ids_of_parts[number]
            with reader.reading(mask[rows, : lengths[number]]) if reader else nullcontext():
                logits.append(getattr(student(**part), output))
            states.append(reader.states() if reader else {})
    back = order.argsort()
    return torch.cat(logits)[back], {name: torch.cat([part[name] for part in states])[back] for name in states[0]}


@contextmanager
def _embedded_once(student: Any, ids: Tensor, sizes: list[int], lengths: list[int]) -> Iterator[list[Tensor]]:
    """Read the word embeddings of all parts at once, and return them where the student reads those of a part.

    A decoder that reads the same table at other ids reads it itself.

    Args:
        student: a transformers model.
        ids: (B, L) token ids, sorted into parts.
        sizes: number of rows of each part.
        lengths: number of tokens of each part.

    Yields:
        The ids of each part, (b, l), as they must be given to the student.
    """
    parts = [part[:, :length].contiguous() for part, length in zip(ids.split(sizes), lengths, strict=True)]
    table: nn.Module = student.get_input_embeddings()
    if not any(weights.requires_grad for weights in table.parameters()):
        yield parts
        return
    whole = [part[:, :length] for part, length in zip(table(ids).split(sizes), lengths, strict=True)]
    found = {part.data_ptr(): embedded for part, embedded in zip(parts, whole, strict=True)}

    def hook(_module: nn.Module, inputs: tuple[Any, ...], read: Tensor) -> Tensor:
        embedded = found.get(inputs[0].data_ptr()) if inputs else None
        return read if embedded is None or embedded.shape != read.shape else embedded

    handle = table.register_forward_hook(hook)
    try:
        yield parts
    finally:
        handle.remove()
