"""Let compiled training (``--torch-compile``) compile once for a run, and not for each length of a batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

#: Inputs of the distiller whose second dimension is the length of the batch. The first of most inputs is its rows.
_TOKENS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_ROWS = frozenset({*_TOKENS, "labels", "teacher_logits", "teacher_states", "teacher_answered"})


def leave_sizes_open(batch: Mapping[str, Tensor]) -> None:
    """Mark rows and length of a batch as sizes that change, so that the compiler keeps no number of them.

    Args:
        batch: the arguments of `railkd.models.distiller.Distiller.forward`.
    """
    for name in _ROWS & batch.keys():
        for dimension in (0, 1) if name in _TOKENS else (0,):
            if batch[name].shape[dimension] > 1:  # the compiler always keeps a size of 1
                torch._dynamo.maybe_mark_dynamic(batch[name], dimension)
