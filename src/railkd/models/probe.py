"""Finds out by running a model which tokens a state depends on, and which modules return its hidden states.

A probe runs the model on texts of two tokens. It changes nothing: no dropout, no gradients, no random numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from railkd.errors import RailkdError

#: A state has moved if a number of it changed by more than this part of its largest number: more than rounding does.
_MOVED = 1e-4


def is_causal(model: nn.Module, blocks: Sequence[nn.Module]) -> bool:
    """Return True if a token sees only the tokens before it, so that the last real token sums up the text.

    Args:
        model: a transformers model.
        blocks: its blocks; the last one is looked at.

    Returns:
        The answer.

    Raises:
        RailkdError: the model does not run on plain tokens, or neither the first nor the last token sees the others.
    """
    name, advice = type(model).__name__, "Fix: use the pooling mean."
    tokens = _plain_tokens(model)
    if len(tokens) < 3 or next(model.parameters()).is_meta:
        raise RailkdError(f"cannot tell which token of {name} sees the text: its vocabulary is too small. {advice}")
    first, last, other = tokens[:3]
    states = [_run(model, [first, last], blocks[-1:]), _run(model, [first, other], blocks[-1:])]
    states.append(_run(model, [other, last], blocks[-1:]))
    plain, changed_last, changed_first = (found.get(blocks[-1]) for _, found in states)
    if plain is None or changed_last is None or changed_first is None or plain.dim() != 3 or plain.shape[1] < 2:
        raise RailkdError(
            f"cannot tell which token of {name} sees the text: its blocks do not return (rows, tokens, width). {advice}"
        )
    if _moved(plain[0, 0], changed_last[0, 0]):
        return False
    if not _moved(plain[0, 1], changed_first[0, 1]):
        raise RailkdError(
            f"cannot pool {name} by cls: its first token does not see the last one, nor the last the first. {advice}"
        )
    return True


def hidden_states_come_from(model: nn.Module, lists: Sequence[nn.ModuleList]) -> nn.ModuleList | None:
    """Return the list whose modules return the hidden states of a model, one after the other.

    The last hidden state is not compared, because a norm may stand behind the last block.

    Args:
        model: a transformers model.
        lists: of modules, of equal length.

    Returns:
        The list. None if no list fits, or if the model does not run on plain tokens.
    """
    tokens = _plain_tokens(model)
    if len(tokens) < 2 or next(model.parameters()).is_meta:
        return None
    try:
        out, found = _run(model, tokens[:2], [module for one in lists for module in one], output_hidden_states=True)
    except RailkdError:
        return None
    hidden = out.hidden_states[1:]
    for one in lists:
        states = [found.get(module) for module in one]
        pairs = list(zip(states, hidden, strict=False))[: max(1, len(hidden) - 1)]
        if len(states) == len(hidden) and all(s is not None and torch.equal(s, h) for s, h in pairs):
            return one
    return None


def _plain_tokens(model: nn.Module) -> list[int]:
    """Return up to three token numbers without a special meaning."""
    config: Any = model.config
    given = [value for name, value in config.to_dict().items() if name.endswith("token_id")]
    special = {token for value in given for token in (value if isinstance(value, list | tuple) else [value])}
    rows = int(getattr(config, "vocab_size", 0) or 0)
    return [token for token in range(rows - 1, -1, -1) if token not in special][:3]


def _run(
    model: nn.Module, tokens: Sequence[int], modules: Sequence[nn.Module], **options: Any
) -> tuple[Any, dict[nn.Module, Tensor]]:
    """Run the model under its head on one text; return its output and the output of each module."""
    encoder_decoder = getattr(model.config, "is_encoder_decoder", False)
    inner: Any = model.get_encoder() if encoder_decoder else getattr(model, "base_model", model)  # type: ignore[operator]
    found: dict[nn.Module, Tensor] = {}

    def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple | list) else output
        if isinstance(states, Tensor):
            found[module] = states.clone()  # some models change it in place

    modes = [(module, module.training) for module in model.modules()]
    handles = [module.register_forward_hook(hook) for module in modules]
    if "use_cache" in inspect.signature(inner.forward).parameters:
        options["use_cache"] = False
    ids = torch.tensor([list(tokens)], device=next(model.parameters()).device)
    try:
        model.eval()
        with torch.no_grad():
            return inner(input_ids=ids, attention_mask=torch.ones_like(ids), **options), found
    except Exception as error:  # a model that needs more than tokens fails in a way of its own
        raise RailkdError(
            f"cannot run {type(model).__name__} on plain tokens ({type(error).__name__}: {error}). "
            "Fix: use the pooling mean, or name the blocks (--blocks)."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training


def _moved(before: Tensor, after: Tensor) -> bool:
    return bool((before - after).abs().max() > _MOVED * before.abs().max())
