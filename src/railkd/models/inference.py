"""Computes the logits of a plain transformers classifier for a table of texts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from railkd.data.tokens import KeyedTokens, keyed_tokens
from railkd.models.blocks import accepted_inputs
from railkd.models.heads import task_of_config
from railkd.models.limits import check_tokens
from railkd.models.loading import first_device
from railkd.runtime import ranks
from railkd.runtime.progress import Advance


def predict_logits(
    model: Any,
    tokenizer: Any,
    dataset: Any,
    *,
    max_length: int,
    batch_size: int = 64,
    bf16: bool = False,
    on_progress: Advance | None = None,
) -> np.ndarray:
    """Compute the logits of a table of texts. Rows of similar length share a batch.

    Several ranks share the work: each must call this, and each gets all logits.

    Args:
        model: a sequence classifier. It is put in evaluation mode.
        tokenizer: of the model.
        dataset: rows with text columns named by convention, or their tokens.
        max_length: in tokens; longer texts are cut.
        batch_size: rows per batch.
        bf16: run the model under bfloat16 autocast.
        on_progress: called after each batch with (rows done, rows in all).

    Returns:
        (N, C) float32 logits, in the order of the rows.
    """
    device, output = first_device(model), task_of_config(model.config).output
    model.eval()

    def run(batch: Any) -> np.ndarray:
        cast: Any = torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()
        with torch.no_grad(), cast:
            found: np.ndarray = getattr(model(**batch.to(device)), output).float().cpu().numpy()
        return found

    return batched_logits(
        run,
        tokenizer,
        dataset,
        takes=accepted_inputs(model),
        config=model.config,
        max_length=max_length,
        batch_size=batch_size,
        on_progress=on_progress,
    )


def batched_logits(
    run: Callable[[Any], np.ndarray],
    tokenizer: Any,
    dataset: Any,
    *,
    takes: Collection[str],
    config: Any,
    max_length: int,
    batch_size: int = 64,
    on_progress: Advance | None = None,
) -> np.ndarray:
    """Compute the logits of a table of texts by any function of a batch; see `predict_logits`.

    Args:
        run: takes a padded batch of B rows of tokens, as PyTorch tensors by name; returns (B, C) float32 logits.
        tokenizer: of the model.
        dataset: rows with text columns named by convention, or their tokens.
        takes: names of the inputs that the function reads.
        config: of the model.
        max_length: in tokens; longer texts are cut.
        batch_size: rows per batch.
        on_progress: called after each batch with (rows done, rows in all).

    Returns:
        (N, C) float32 logits, in the order of the rows.
    """
    given = isinstance(dataset, KeyedTokens)
    tokens = dataset if given else keyed_tokens(dataset, tokenizer, max_length=max_length)
    check_tokens(config, tokenizer, tokens, max_length, "the model")
    order = np.argsort(-tokens.lengths, kind="stable")
    logits: np.ndarray | None = None
    for start in range(batch_size * ranks.rank(), len(order), batch_size * ranks.world_size()):
        rows = order[start : start + batch_size]
        batch = tokenizer.pad(
            {name: [values[i] for i in rows] for name, values in tokens.inputs.items() if name in takes},
            return_tensors="pt",
        )
        part = run(batch)
        if logits is None:
            logits = np.zeros((len(order), part.shape[1]), dtype=np.float32)
        logits[rows] = part
        if on_progress is not None:
            on_progress(min(start + batch_size, len(order)), len(order))
    if logits is None:
        logits = np.zeros((len(order), int(config.num_labels)), dtype=np.float32)
    return ranks.all_reduce_sum(logits)
