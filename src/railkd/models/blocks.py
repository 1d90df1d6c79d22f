"""Reads the pooled states of a transformer's blocks while the model runs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from railkd import functional
from railkd.errors import RailkdError
from railkd.models.probe import hidden_states_come_from, is_causal
from railkd.runtime.words import listed
from railkd.signals import BlockShape, checked_poolings

_NAME_THEM = (
    "name the blocks with a regular expression (blocks=, --blocks or --teacher-blocks), "
    "such as 'encoder\\.layer\\.\\d+'"
)


def pool(
    states: Tensor,
    mask: Tensor,
    pooling: str,
    *,
    causal: bool = False,
    weights: Tensor | None = None,
    tests: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Pool token states into one vector per text.

    ``mean`` is the mean over real tokens. ``cls`` is the first real token of an encoder, and the last real token of a
    causal model.

    Args:
        states: (B, L, d) token states.
        mask: (B, L), 1 for real tokens.
        pooling: ``mean`` or ``cls``.
        causal: the model is causal. Only ``cls`` depends on it.
        weights: (B, L) of `railkd.functional.mean_weights`. They are computed from the mask if they are not given. Only
            ``mean`` uses them.
        tests: of the weights; see `railkd.functional.masked_mean`.

    Returns:
        (B, d) pooled states.
    """
    if pooling == "mean":
        return functional.masked_mean(states, mask, weights, tests)
    checked_poolings([pooling])
    return functional.token_at_edge(states, mask, last=causal)


class BlockReader:
    """Pools the output of each block of a model in a forward hook, as soon as the block has run.

    The alternative, ``output_hidden_states``, keeps n * B * L * d numbers alive. The pooled states are n * B * d.

    The hooks exist only inside ``with reader.reading(mask):``. The model is never changed, and the reader is not a
    submodule of the model.

    Args:
        model: a transformer whose blocks `find_blocks` finds.
        poolings: ``mean``, ``cls`` or both.
        blocks: regular expression of the blocks' module names, for models whose blocks cannot be found by structure.
        first: keep the states of blocks 1 to ``first``; None keeps those of all blocks.

    Attributes:
        blocks: the modules that are hooked.
        shape: (number of blocks n, width d).
        causal: ``cls`` is the last real token. It is found out by a probe, only if ``cls`` is pooled.
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
        self.shape = block_shape(model, self.blocks, named=blocks is not None)
        self.causal = "cls" in self.poolings and is_causal(model, self.blocks)
        self._first = self.shape.blocks if first is None else first
        self._seen = 0
        self._pooled: list[tuple[Tensor, ...]] = []

    @contextmanager
    def reading(self, mask: Tensor) -> Iterator[None]:
        """Pool the block states of the forward pass that runs inside of the ``with`` block.

        Args:
            mask: (B, L), 1 for real tokens.

        A block that returns something other than (B, L, d) states raises `RailkdError` in the pass.

        Yields:
            Nothing. `states` returns the pooled states afterwards.
        """
        self._seen, self._pooled = 0, []
        # Once for all blocks. A CPU pools by one matrix product, which needs no tests of the weights.
        weights = functional.mean_weights(mask) if "mean" in self.poolings else None
        tests = None
        if weights is not None and weights.device.type != "cpu":
            tests = (weights == 0).unsqueeze(2), weights.amax(dim=1, keepdim=True)

        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._seen += 1
            if self._seen > self._first:
                return
            states = output[0] if isinstance(output, tuple | list) else output  # (B, L, d)
            wanted = (*mask.shape, self.shape.width)  # here, because compiled code would keep a number from outside
            if not isinstance(states, Tensor) or states.shape != wanted:
                raise self._unreadable(states, wanted)
            options: Any = {"causal": self.causal, "weights": weights, "tests": tests}
            # Compiled code would fix the length to that of tensors from outside, and shares equal parts by itself. A
            # model that is spread over devices has states on each.
            if torch.compiler.is_compiling() or states.device != mask.device:
                options = {"causal": self.causal}
            here = mask.to(states.device)
            self._pooled.append(tuple(pool(states, here, name, **options).to(mask.device) for name in self.poolings))

        handles = [block.register_forward_hook(hook) for block in self.blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _unreadable(self, states: Any, wanted: tuple[int, ...]) -> RailkdError:
        """Return the error for an output that is not (B, L, d): some models put tokens first, or drop tokens."""
        got = tuple(states.shape) if isinstance(states, Tensor) else type(states).__name__
        return RailkdError(
            f"Expected states (rows, tokens, width) {wanted} from the block {type(self.blocks[0]).__name__}, "
            f"got {got}. Fix: {_NAME_THEM}."
        )

    def states(self) -> dict[str, Tensor]:
        """Return the pooled states of the last pass. A block that runs several times counts once per run.

        Returns:
            Name of the pooling -> (B, n, d).

        Raises:
            RailkdError: the pass ran another number of blocks than the model has.
        """
        if self._seen != self.shape.blocks:
            raise RailkdError(
                f"Expected the output of {self.shape.blocks} blocks, got {self._seen}. Fix: {_NAME_THEM}."
            )
        return {
            name: torch.stack([pooled[i] for pooled in self._pooled], dim=1) for i, name in enumerate(self.poolings)
        }


def find_blocks(model: nn.Module, pattern: str | None = None) -> list[nn.Module]:
    """Find the transformer blocks of a model by its structure.

    The blocks are the outermost `torch.nn.ModuleList` whose modules have one type and whose length is the config's
    number of hidden layers. If blocks share their weights, the length is the number of groups of layers. In an
    encoder-decoder they are the blocks of the encoder, because its tokens are those of the text. If there are several
    such lists (XLM, FlauBERT), the blocks are the one whose outputs are the model's hidden states.

    States are read as a block returns them. The last block of a pre-norm model (ModernBERT, decoders, T5) is therefore
    read before the model's final norm, and block 1 of a DeBERTa-v2 with a convolution before that convolution.

    Args:
        model: a transformers model.
        pattern: regular expression that the whole name of a block must match. It replaces the search.

    Returns:
        The blocks, from the input to the output.

    Raises:
        RailkdError: no module fits.
    """
    name = type(model).__name__
    if pattern is not None:
        try:
            found = [module for path, module in model.named_modules() if re.fullmatch(pattern, path)]
        except re.error as error:
            raise RailkdError(
                f"blocks='{pattern}' is not a regular expression ({error}). Fix: {_NAME_THEM}."
            ) from error
        if not found:
            raise RailkdError(
                f"blocks='{pattern}' matches no module of {name}. Fix: take the names from model.named_modules()."
            )
        return found
    lists = block_lists(model)
    if not lists:
        raise RailkdError(f"cannot find the blocks of {name}: no list is as long as it has layers. Fix: {_NAME_THEM}.")
    if len(lists) == 1:
        return list(*lists.values())
    found_list = hidden_states_come_from(model, list(lists.values()))
    if found_list is None:
        raise RailkdError(
            f"cannot tell which modules are the blocks of {name}: {listed(lists)} are equally long, and none of them "
            f"returns the hidden states. Fix: {_NAME_THEM}."
        )
    return list(found_list)


def block_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Return the outermost lists with one module for each layer of a model, or for each group of layers.

    Args:
        model: a transformers model. Of an encoder-decoder the encoder is searched.

    Returns:
        Path -> list. Most models have one. XLM has one for each part of its blocks.
    """
    config: Any = getattr(model, "config", None)
    wanted = {int(getattr(config, name, 0) or 0) for name in ("num_hidden_layers", "num_hidden_groups")} - {0}
    inside: Any = model.get_encoder() if getattr(config, "is_encoder_decoder", False) else model  # type: ignore[operator]
    lists = {
        path: module
        for path, module in inside.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) in wanted and len({type(part) for part in module}) == 1
    }
    outermost = min((path.count(".") for path in lists), default=0)
    return {path: module for path, module in lists.items() if path.count(".") == outermost}


def accepted_inputs(model: nn.Module) -> frozenset[str]:
    """Return the names of the inputs that a model reads.

    A tokenizer may give more than these, e.g. token types to a model without segments.

    Args:
        model: a transformers model, or a wrapper around one.

    Returns:
        The names.
    """
    names = set(inspect.signature(model.forward).parameters)
    if "attention_mask" not in names:  # a wrapper, which passes its inputs to the model inside
        names |= {"input_ids", "attention_mask", "token_type_ids"}
    if getattr(model.config, "type_vocab_size", None) in (0, 1):
        names.discard("token_type_ids")  # the only segment is 0, which the model fills in by itself
    return frozenset(names)


def block_shape(model: nn.Module, blocks: Sequence[nn.Module], *, named: bool) -> BlockShape:
    """Return the number of blocks that a batch passes, and their width.

    Args:
        model: a transformers model.
        blocks: its block modules; one that shares its weights runs several times.
        named: the user named the blocks.

    Returns:
        Blocks and width.

    Raises:
        RailkdError: the config has no width.
    """
    config: Any = model.config
    depth, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if width is None:
        raise RailkdError(
            f"cannot find the width of {type(model).__name__}: its config has no hidden_size. "
            "Fix: set config.hidden_size."
        )
    shared = len(blocks) == getattr(config, "num_hidden_groups", None)  # one module runs several times
    if depth is None or (named and not shared):
        depth = len(blocks)
    return BlockShape(int(depth), int(width))
