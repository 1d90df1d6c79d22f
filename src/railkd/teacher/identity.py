"""The identity of a teacher: everything that changes its numbers. A cache stores it and compares it before use."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import xxhash
from pydantic import Field
from torch import nn

from railkd.models.checkpoints import Checkpoint
from railkd.models.loading import DTYPES
from railkd.teacher.number_formats import NUMBER_BYTES
from railkd.teacher.protocol import Count

#: Entries of a config that do not change what the model computes.
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
#: Families that the first release read elsewhere: ``cls`` at the first token of a causal model, and every pooling at
#: the attention layers instead of the blocks. The digest of such states differs from that of the old ones.
_OTHER_CLS = {"bloom", "doge", "jamba", "mpt", "openai-gpt", "qwen3_5_text", "qwen3_next", "zamba", "zamba2"}
_OTHER_BLOCKS = {"flaubert", "xlm"}


#: Fields that say how states are stored. The first pass that stores states chooses them.
OF_STATES = ("states_dtype", "states_dim")


@dataclass(frozen=True)
class Identity:
    """Everything that the numbers in a cache depend on.

    Attributes:
        weights: their digest.
        config: the entries that change what the model computes.
        tokenizer: its digest.
        max_length: of the inputs, in tokens.
        precision: in which the teacher ran: ``float32``, ``bfloat16`` (autocast of float32 weights), or the type of
            its weights, such as ``bfloat16 weights``.
        states_dtype: in which its states are stored.
        blocks: the regular expression for its blocks, if one was given.
        states_dim: number of principal components that are stored of a state; None: whole states are.
        components: digest of these components; None: of any.
        versions: of libraries. A difference here is logged and not refused: it changes the last digits only.
    """

    weights: str
    config: Mapping[str, Any]
    tokenizer: str
    max_length: Count
    precision: str
    states_dtype: str
    blocks: str | None = None
    states_dim: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    components: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def digest(self, poolings: Sequence[str] = ()) -> str:
        """Return a digest of everything except the versions.

        Args:
            poolings: of the states that it is for; empty: outputs alone.
        """
        kept = {name: value for name, value in asdict(self).items() if name != "versions"}
        for name in ("states_dim", "components"):  # the first releases did not know them
            if kept[name] is None:
                del kept[name]
        if self.is_read_anew(poolings):
            kept["reading"] = 2
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def teacher_dtype(self) -> str:
        """The precision of the teacher's weights, as ``--teacher-dtype`` takes it."""
        name = self.precision.removesuffix(" weights")
        return "float32" if name == self.precision else name if name in DTYPES else "auto"

    def is_read_anew(self, poolings: Sequence[str]) -> bool:
        """Return True if the first release read other states of this family for one of the poolings.

        Args:
            poolings: of the states.
        """
        family = str(self.config.get("model_type"))  # a manifest by hand may hold anything here
        return (family in _OTHER_CLS and "cls" in poolings) or (
            family in _OTHER_BLOCKS and self.blocks is None and bool(poolings)
        )

    def content(self) -> str:
        """Return a digest of the model alone: weights, config and tokenizer."""
        kept = [self.weights, self.config, self.tokenizer]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]

    def digests_of_outputs(self) -> set[str]:
        """Return the digests of shards of outputs alone that this identity adds states to, in a format of its own."""
        whole = replace(self, states_dim=None, components=None)
        return {replace(whole, states_dtype=name).digest() for name in NUMBER_BYTES} | {self.digest()}

    def differences(self, other: Identity, *, ignore: tuple[str, ...] = ()) -> list[str]:
        """Return the differences to another identity, in words; an empty list means the same teacher.

        Args:
            other: the identity that is wanted; this one is stored in a cache.
            ignore: names of fields that may differ.
        """
        found = []
        for name, word in (("weights", "other teacher weights"), ("tokenizer", "another tokenizer")):
            if name not in ignore and getattr(self, name) != getattr(other, name):
                found.append(word)
        if "config" not in ignore:
            for key in sorted(set(self.config) | set(other.config)):
                mine, theirs = self.config.get(key), other.config.get(key)
                if mine != theirs:
                    found.append(f"config.{key} is {_short(mine)} in the cache, {_short(theirs)} here")
        if None not in (self.components, other.components) and self.components != other.components:
            found.append("other principal components, which were fitted on other rows")
        for name in ("max_length", "precision", "states_dtype", "states_dim", "blocks"):
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
    states_dim: int | None = None,
    blocks: str | None = None,
) -> Identity:
    """Return the identity of a checkpoint, without loading its model, or of a module in memory.

    Args:
        teacher: folder, hub name, `Checkpoint` or module.
        tokenizer: of the teacher.
        max_length: of the inputs, in tokens.
        precision: in which the teacher runs.
        states_dtype: in which its states are stored.
        states_dim: number of principal components that are stored; None: whole states are.
        blocks: the regular expression for its blocks, if one is given.
    """
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
        states_dim=states_dim,
        blocks=blocks,
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
    )


def content_of(checkpoint: Checkpoint) -> str:
    """Return a digest of the weights, config and tokenizer of a checkpoint; see `Identity.content`."""
    return identify(checkpoint, checkpoint.tokenizer, max_length=0, precision="", states_dtype="").content()


def digest_of(contents: Sequence[str]) -> str:
    """Return one digest for the contents of several models, in their order."""
    return hashlib.sha256(json.dumps(list(contents)).encode()).hexdigest()[:32]


def module_digest(model: nn.Module) -> str:
    """Return a digest of the names and bytes of a module's state.

    It has 128 bits and is fast: nobody gains by forging it.

    Args:
        model: its state may be on any device.
    """
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {tuple(data.shape)}".encode())
        if data.numel():
            digest.update(data.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Return the SHA-256 of the vocabulary and rules of a tokenizer. Padding and truncation do not change it.

    Args:
        tokenizer: fast or slow.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # The text is cut, not parsed: parsing a large vocabulary costs more than the rest of the identity.
        rules = _without(_without(backend.to_str(), "truncation"), "padding")
    else:
        rules = json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    special = {name: str(value) for name, value in sorted(tokenizer.special_tokens_map.items())}
    return hashlib.sha256(f"{rules} {json.dumps(special)}".encode()).hexdigest()


def _without(text: str, name: str) -> str:
    """Remove one top-level entry from compact JSON. It must be the first place that has this name."""
    start = text.index(f'"{name}":')
    _, end = json.JSONDecoder().raw_decode(text, start + len(f'"{name}":'))
    return text[:start] + text[end:]


def _short(value: Any) -> str:
    """Return a value as JSON of at most 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
