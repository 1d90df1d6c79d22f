"""Which teacher a cache is of: everything that would change its numbers, compared word by word."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import nn

from railkd.models.checkpoints import Checkpoint
from railkd.teacher.protocol import Count

#: Parts of a config that say where it came from, not what it computes.
_VOLATILE = {
    "_name_or_path",
    "railkd",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "architectures",
    "_commit_hash",
}
_LIBRARIES = ("torch", "transformers", "tokenizers")


@dataclass(frozen=True)
class Identity:
    """Stored in a cache and compared before it is used.

    Attributes:
        weights, tokenizer: digests. config: as far as it computes. max_length: of the inputs, in tokens.
        precision: the teacher ran in. states_dtype: its states are stored in. blocks: the regular expression that named
            its blocks, if one did. versions: a difference here is said, not refused: numbers move in the last digits
            only.
    """

    weights: str
    config: Mapping[str, Any]
    tokenizer: str
    max_length: Count
    precision: str
    states_dtype: str
    blocks: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """A name for everything but the versions."""
        kept = {name: value for name, value in asdict(self).items() if name != "versions"}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]

    def differences(self, other: Identity, *, ignore: tuple[str, ...] = ()) -> list[str]:
        """What keeps ``other`` (wanted) from being this identity (stored), in words; empty: the same teacher."""
        found = []
        for name, word in (("weights", "other teacher weights"), ("tokenizer", "another tokenizer")):
            if name not in ignore and getattr(self, name) != getattr(other, name):
                found.append(word)
        if "config" not in ignore:
            for key in sorted(set(self.config) | set(other.config)):
                mine, theirs = self.config.get(key), other.config.get(key)
                if mine != theirs:
                    found.append(f"config.{key} is {_short(mine)} in the cache, {_short(theirs)} here")
        for name in ("max_length", "precision", "states_dtype", "blocks"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if name not in ignore and mine != theirs:
                found.append(f"{name} is {mine or 'not given'} in the cache, {theirs or 'not given'} here")
        return found


def identify(
    teacher: str | Path | Checkpoint | nn.Module,
    tokenizer: Any,
    *,
    max_length: int,
    precision: str,
    states_dtype: str,
    blocks: str | None = None,
) -> Identity:
    """Return the identity of a checkpoint (no model is built) or of a module in memory."""
    if isinstance(teacher, nn.Module):
        weights, config = module_digest(teacher), teacher.config
    else:
        checkpoint = Checkpoint.find(teacher)
        weights, config = checkpoint.digest, checkpoint.config
    kept = {name: value for name, value in config.to_dict().items() if name not in _VOLATILE}  # type: ignore[union-attr,operator]
    return Identity(
        weights=weights,
        config=json.loads(json.dumps(kept, default=str, sort_keys=True)),
        tokenizer=tokenizer_digest(tokenizer),
        max_length=max_length,
        precision=precision,
        states_dtype=states_dtype,
        blocks=blocks,
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
    )


def module_digest(model: nn.Module) -> str:
    """Digest of the names and bytes of a module's state: of 128 bits and fast, for nobody gains by forging it."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {tuple(data.shape)}".encode())
        if data.numel():
            digest.update(data.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 over what a tokenizer does to a text: its vocabulary and rules, not its padding and truncation of the
    moment.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Cut out of the text: reading and writing a vocabulary as JSON would cost more than the rest of the identity.
        rules = _without(_without(backend.to_str(), "truncation"), "padding")
    else:
        rules = json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    special = {name: str(value) for name, value in sorted(tokenizer.special_tokens_map.items())}
    return hashlib.sha256(f"{rules} {json.dumps(special)}".encode()).hexdigest()


def _without(text: str, name: str) -> str:
    """A tokenizer as compact JSON, one entry of the whole left out; they stand before all that may hold such a name."""
    start = text.index(f'"{name}":')
    _, end = json.JSONDecoder().raw_decode(text, start + len(f'"{name}":'))
    return text[:start] + text[end:]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
