"""Reads the pooled states of a transformer's blocks while it runs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from railkd import functional
from railkd.errors import RailkdError, did_you_mean
from railkd.signals import POOLINGS, BlockShape

_NAME_THEM = (
    "name the blocks with a regular expression (blocks=, --blocks or --teacher-blocks), "
    "such as 'encoder\\.layer\\.\\d+'"
)


def pool(states: Tensor, mask: Tensor, pooling: str, *, causal: bool = False, weights: Tensor | None = None) -> Tensor:
    """(B, L, d) token states to (B, d), by name: ``mean`` over real tokens, or ``cls``.

    ``cls`` is the first real token of an encoder and the last real token of a causal model. The mask is (B, L);
    ``weights`` of the mean are made from it where they are not given.
    """
    if pooling == "mean":
        return functional.masked_mean(states, mask, weights)
    if pooling == "cls":
        return functional.token_at_edge(states, mask, last=causal)
    raise RailkdError(f"unknown pooling '{pooling}'; known: {', '.join(POOLINGS)}.{did_you_mean(pooling, POOLINGS)}")


class BlockReader:
    """Pools the output of every block of a model as it is produced, in a forward hook.

    The alternative, ``output_hidden_states``, holds n * B * L * d numbers where n * B * d are wanted.

    The hooks are there only inside ``with reader.reading(mask):``; the model itself is never changed, and the reader is
    no submodule of anything.

    Args:
        model: any transformer whose blocks stand in one list (see `find_blocks`).
        poolings: which of ``mean`` and ``cls`` to keep.
        blocks: a regular expression over module names, for models whose blocks cannot be found by structure.
        first: keep the states of blocks 1..first only; None: of all.
    """

    def __init__(
        self,
        model: nn.Module,
        poolings: Sequence[str] = ("mean",),
        blocks: str | None = None,
        *,
        first: int | None = None,
    ) -> None:
        self.poolings = tuple(poolings)
        self.blocks = find_blocks(model, blocks)
        self.shape = _shape(model, self.blocks, named=blocks is not None)
        self.causal = is_causal(self.blocks)
        self._first = self.shape.blocks if first is None else first
        self._seen = 0
        self._pooled: list[tuple[Tensor, ...]] = []

    @contextmanager
    def reading(self, mask: Tensor) -> Iterator[None]:
        """Catch the block states of the forward pass made inside; ``mask`` (B, L) says which tokens are real."""
        self._seen, self._pooled = 0, []
        wanted = (*mask.shape, self.shape.width)
        weights = functional.mean_weights(mask) if "mean" in self.poolings else None  # once for all blocks

        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._seen += 1
            if self._seen > self._first:
                return
            states = output[0] if isinstance(output, tuple) else output  # (B, L, d)
            if not isinstance(states, Tensor) or states.shape != wanted:
                raise self._unreadable(states, wanted)
            self._pooled.append(
                tuple(pool(states, mask, name, causal=self.causal, weights=weights) for name in self.poolings)
            )

        handles = [block.register_forward_hook(hook) for block in self.blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _unreadable(self, states: Any, wanted: tuple[int, ...]) -> RailkdError:
        """What is no (B, L, d): some models put tokens before rows, or drop tokens on the way up."""
        got = tuple(states.shape) if isinstance(states, Tensor) else type(states).__name__
        return RailkdError(
            f"got {got} from the block {type(self.blocks[0]).__name__}, wanted (rows, tokens, width) {wanted}; "
            f"{_NAME_THEM}"
        )

    def states(self) -> dict[str, Tensor]:
        """Pooling name -> (B, n, d), of the last pass. Blocks that share weights count once per call."""
        if self._seen != self.shape.blocks:
            raise RailkdError(f"got the output of {self._seen} blocks, wanted {self.shape.blocks}; {_NAME_THEM}")
        return {
            name: torch.stack([pooled[i] for pooled in self._pooled], dim=1) for i, name in enumerate(self.poolings)
        }


def find_blocks(model: nn.Module, pattern: str | None = None) -> list[nn.Module]:
    """The transformer blocks of a model, in depth order, found by structure.

    The blocks are the outermost `torch.nn.ModuleList` of like modules with as many members as the config has hidden
    layers (or groups of layers, where blocks share their weights). Of an encoder-decoder they are the encoder's, whose
    tokens are the text's.

    Args:
        model: a transformers model.
        pattern: a regular expression that whole module names must match; used instead of the search.

    Raises:
        RailkdError: nothing fits; says what was looked for.
    """
    name = type(model).__name__
    if pattern is not None:
        try:
            found = [module for path, module in model.named_modules() if re.fullmatch(pattern, path)]
        except re.error as error:
            raise RailkdError(f"blocks='{pattern}' is no regular expression ({error}); {_NAME_THEM}") from error
        if not found:
            raise RailkdError(f"blocks='{pattern}' matches no module of {name}; see named_modules() for the names")
        return found
    config: Any = getattr(model, "config", None)
    wanted = {int(getattr(config, name, 0) or 0) for name in ("num_hidden_layers", "num_hidden_groups")} - {0}
    inside: Any = model.get_encoder() if getattr(config, "is_encoder_decoder", False) else model  # type: ignore[operator]
    lists = [
        (path.count("."), path, module)
        for path, module in inside.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) in wanted and len({type(part) for part in module}) == 1
    ]
    if not lists:
        raise RailkdError(
            f"cannot find the blocks of {name}: no list of {sorted(wanted) or 'any known number of'} equal modules; "
            f"{_NAME_THEM}"
        )
    return list(min(lists, key=lambda item: item[:2])[2])


def accepted_inputs(model: nn.Module) -> frozenset[str]:
    """Names of the inputs a model reads: a tokenizer may give more, such as segments to a model that knows none."""
    names = set(inspect.signature(model.forward).parameters)
    if "attention_mask" not in names:  # a wrapper around a model, which hands on what it is given
        names |= {"input_ids", "attention_mask", "token_type_ids"}
    if getattr(model.config, "type_vocab_size", None) in (0, 1):
        names.discard("token_type_ids")  # the only segment is 0, which the model fills in by itself
    return frozenset(names)


def _shape(model: nn.Module, blocks: Sequence[nn.Module], *, named: bool) -> BlockShape:
    config: Any = model.config
    depth, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if width is None:
        raise RailkdError(
            f"cannot tell the width of {type(model).__name__}: its config has no hidden_size; set config.hidden_size"
        )
    shared = len(blocks) == getattr(config, "num_hidden_groups", None)  # one module runs several times
    if depth is None or (named and not shared):
        depth = len(blocks)
    return BlockShape(int(depth), int(width))


def is_causal(blocks: Sequence[nn.Module]) -> bool:
    """Whether a token sees only what stands before it, so that the last real token sums up the text."""
    return any(getattr(module, "is_causal", False) is True for module in blocks[0].modules())
