"""Keeps the embeddings, or some blocks, of a model as they are: they get no gradient and no optimizer state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from railkd.errors import RailkdError
from railkd.models.blocks import block_lists, block_shape, find_blocks

#: Stands for the largest module that holds the table of word embeddings and no block.
EMBEDDINGS = "embeddings"


def check_names(names: Sequence[str], depth: int | None = None) -> None:
    """Check the names of the parts to freeze.

    Args:
        names: ``embeddings`` and numbers of blocks.
        depth: number of blocks of the model; None if it is not known yet.

    Raises:
        RailkdError: a name is neither, or the model has no such block.
    """
    for name in names:
        number = int(name) if name.isdecimal() else 0
        if name != EMBEDDINGS and not 1 <= number <= (depth or number):
            known = "numbers of its blocks" if depth is None else f"block numbers from 1 to {depth}"
            raise RailkdError(f"Expected {EMBEDDINGS} or {known} to freeze, got '{name}'. Fix: give one of these.")


def freeze(model: Any, names: Sequence[str], *, blocks: str | None = None) -> None:
    """Freeze parts of a model. Trainer gives frozen parameters no gradient and no optimizer state.

    Dropout still acts in frozen parts, as it does in the others. An unknown name raises `RailkdError`.

    Args:
        model: a transformers model; changed in place.
        names: ``embeddings``: the largest module around the table of word embeddings that holds no block, so tables of
            positions and types and their norm belong to it where the model has them there; or numbers of blocks,
            counted from 1. Blocks that share weights are frozen together.
        blocks: see `railkd.models.blocks.find_blocks`.
    """
    if not names:
        return
    found = find_blocks(model, blocks)
    depth = block_shape(model, found, named=blocks is not None).blocks
    check_names(names, depth)
    lists = [found] if blocks else list(block_lists(model).values())  # XLM has a list for each part of its blocks
    for name in names:
        parts = (
            [_embeddings(model, found)]
            if name == EMBEDDINGS
            else [each[(int(name) - 1) * len(each) // depth] for each in lists]
        )
        for part in parts:
            part.requires_grad_(False)


def _embeddings(model: Any, blocks: Sequence[nn.Module]) -> nn.Module:
    """Return the largest module that holds the table of word embeddings and no block."""
    table, first = model.get_input_embeddings(), blocks[0]
    around = [module for module in model.modules() if any(part is table for part in module.modules())]
    return next(module for module in around if all(part is not first for part in module.modules()))


def frozen_line(model: nn.Module, names: Sequence[str]) -> str:
    """Describe what is frozen.

    Args:
        model: the model.
        names: see `freeze`.

    Returns:
        A line of text.
    """
    kept, count = sizes(model)["parameters"] - sizes(model)["trained"], sizes(model)["parameters"]
    return f"frozen: {', '.join(names)}: {kept / 1e6:.2f} M of {count / 1e6:.2f} M parameters keep their weights"


def sizes(model: nn.Module) -> dict[str, int]:
    """Return the number of parameters of a model, and of those that are trained."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {"parameters": sum(count for count, _ in counts), "trained": sum(count for count, on in counts if on)}
