"""Makes a shallower student from a checkpoint: some of its blocks, its embeddings and its head."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from railkd.errors import RailkdError
from railkd.models.blocks import block_lists, find_blocks
from railkd.models.checkpoints import Checkpoint
from railkd.models.heads import fit_head, say, task_of_config
from railkd.models.loading import empty_classifier
from railkd.models.quiet import quiet_transformers
from railkd.models.starts import Keep, blocks_to_keep
from railkd.models.trust import is_foreign
from railkd.models.weights import check_finite, read_weights
from railkd.runtime.words import listed


def make_student(
    source: str | Path | Checkpoint | nn.Module,
    num_layers: int,
    keep: Keep = "even",
    *,
    blocks: str | None = None,
    **config: Any,
) -> Any:
    """Make a student of ``num_layers`` blocks with the weights of ``source``.

    The source model of a folder or hub name is not built: only its weight files are read. The student is in single
    precision, because half precision would round away the small steps of fine-tuning.

    Args:
        source: folder, hub name or `Checkpoint` of a sequence classifier or a bare encoder, or a model in memory. For a
            checkpoint with Python code of its own give ``Checkpoint.find(name, trust=True)``.
        num_layers: blocks of the student. In an encoder-decoder both stacks get this depth, and the decoder gets no
            more blocks than it had.
        keep: source blocks to copy; see `railkd.models.starts.blocks_to_keep`. Block numbers are those of the encoder.
            A decoder of another depth is cut by the rule ``even``.
        blocks: see `railkd.models.blocks.find_blocks`.
        config: overrides of the config, e.g. ``num_labels``. A head that does not fit is drawn anew.

    Returns:
        A transformers sequence classifier whose config states its new depth.
    """
    origin = _origin(source)
    stored = origin.config
    ours = copy.deepcopy(stored)
    depth = stored.num_hidden_layers
    chosen = blocks_to_keep(num_layers, depth, keep)
    behind = _decoder_blocks(stored, num_layers, keep)
    # Groups of blocks that share weights all stay, so nothing is renumbered.
    shared = getattr(stored, "num_hidden_groups", depth) < depth
    for name, value in {**config, **_shallower(stored, chosen, behind)}.items():
        setattr(ours, name, value)
    with quiet_transformers():
        plan = task_of_config(ours).auto_model().from_config(ours, trust_remote_code=origin.trusted)
        base, renamed = f"{plan.base_model_prefix}.", origin.weights
        stacks = {} if shared else _stacks(plan, chosen, behind, blocks)
        for path, kept in stacks.items():
            renamed = _renumbered(renamed, path, base, kept)
        student, report = type(plan).from_pretrained(
            None,
            config=ours,
            state_dict=renamed,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    # ModernBERT's first block has no norm in front, unlike the block that takes its place.
    new = {name.removeprefix(base) for name in renamed if name not in origin.weights}
    left_out = [name for name in report["unexpected_keys"] if name.removeprefix(base) in new]
    if left_out:
        say(
            f"The first block of the student has no place for {listed(sorted(left_out), 4)}, which block {chosen[0]} "
            f"of '{origin.name}' has. Those weights are left out."
        )
    theirs = partial(_name_in_source, stacks=stacks, base=base)
    check_finite({theirs(name): value for name, value in student.state_dict().items()}, origin.name)
    return fit_head(student, _in_words_of(theirs, report, left_out), origin.name, stored, new_head=True)


def _in_words_of(theirs: Callable[[str], str], report: Mapping[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    """Return transformers' report with the names that weights have in the source."""
    return {
        "missing_keys": [theirs(name) for name in report["missing_keys"]],
        "unexpected_keys": [theirs(name) for name in report["unexpected_keys"] if name not in left_out],
        "mismatched_keys": [(theirs(name), *shapes) for name, *shapes in report["mismatched_keys"]],
    }


class _Origin(NamedTuple):
    """The model that a student is made of."""

    name: str
    config: Any
    weights: dict[str, torch.Tensor]
    trusted: bool


def _origin(source: str | Path | Checkpoint | nn.Module) -> _Origin:
    """Read a config and weights that may be changed."""
    if isinstance(source, nn.Module):
        theirs: Any = source.config
        weights = {name: tensor.detach().clone() for name, tensor in source.state_dict().items()}
        return _Origin(type(source).__name__, type(theirs).from_dict(theirs.to_dict()), weights, is_foreign(source))
    checkpoint = Checkpoint.find(source)
    config = checkpoint.new_config()
    checkpoint.name_padding(config)
    return _Origin(checkpoint.name, config, read_weights(checkpoint.weights, checkpoint.name), checkpoint.trusted)


def describe_student(source: Any, student: nn.Module) -> str:
    """Describe a student and its source: blocks, parameters, and the speed-up to expect.

    The speed-up is the ratio of the weights that a token passes through. Shared blocks count as often as they run.
    Embeddings do not count, because they are looked up, nor does attention between tokens, which is small in sentences.

    Args:
        source: the teacher, or the checkpoint that the student starts from: folder, hub name, `Checkpoint`, or config.
        student: the model.

    Returns:
        A line of text.
    """
    if isinstance(source, (str, Path, Checkpoint)):
        checkpoint = Checkpoint.find(source)
        bare = empty_classifier(checkpoint.config, trusted=checkpoint.trusted)
    else:
        bare = empty_classifier(source, trusted=is_foreign(source))
    ours, theirs = _size(student), _size(bare)
    return (
        f"{ours.blocks} blocks of {ours.width}, {ours.parameters / 1e6:.2f} M parameters "
        f"({ours.passed / 1e6:.2f} M outside the embeddings); "
        f"its teacher or source: {theirs.blocks} blocks of {theirs.width}, {theirs.parameters / 1e6:.2f} M "
        f"({theirs.passed / 1e6:.2f} M); expected speed-up about {theirs.passed / max(1, ours.passed):.1f}x"
    )


class _Size(NamedTuple):
    blocks: int
    width: int
    parameters: int
    passed: int


def _size(model: Any) -> _Size:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tables = {
        id(module.weight): module.weight.numel() for module in model.modules() if isinstance(module, nn.Embedding)
    }
    depth, repeated = int(model.config.num_hidden_layers), 0
    groups = getattr(model.config, "num_hidden_groups", None)
    if groups is not None and groups < depth:
        once = sum(parameter.numel() for block in find_blocks(model) for parameter in block.parameters())
        repeated = once * depth // groups - once
    passed = parameters - sum(tables.values()) + repeated
    return _Size(depth, int(model.config.hidden_size), parameters, passed)


def _decoder_blocks(config: Any, num_layers: int, keep: Keep) -> tuple[int, ...]:
    """Return the decoder's blocks to keep; empty if there is no decoder behind the encoder."""
    entry = _decoder_depth(config)
    if entry is None:
        return ()
    depth = int(getattr(config, entry))
    same = depth == config.num_hidden_layers
    return blocks_to_keep(min(num_layers, depth), depth, keep if same or isinstance(keep, str) else "even")


def _decoder_depth(config: Any) -> str | None:
    """Return the name of the config entry with the decoder's depth, or None if there is no decoder."""
    paired = getattr(config, "is_encoder_decoder", False)
    names = ("num_decoder_layers", "decoder_layers")
    return next((name for name in names if getattr(config, name, None)), None) if paired else None


def _shallower(config: Any, chosen: Sequence[int], behind: Sequence[int]) -> dict[str, Any]:
    """Return the config entries that depend on depth, changed for the student."""
    depth = config.num_hidden_layers
    changes: dict[str, Any] = {"num_hidden_layers": len(chosen)}
    for name, values in config.to_dict().items():
        if "layer" in name and isinstance(values, list) and len(values) == depth:
            changes[name] = [values[block - 1] for block in chosen]  # such as layer_types: each block keeps its own
    if getattr(config, "num_hidden_groups", None) == depth:  # as many groups as blocks, so nothing is shared
        changes["num_hidden_groups"] = len(chosen)
    entry = _decoder_depth(config)
    if entry is not None:
        changes[entry] = len(behind)
    return changes


def _stacks(
    student: Any, chosen: Sequence[int], behind: Sequence[int], blocks: str | None
) -> dict[str, tuple[int, ...]]:
    """Map the path of each list of blocks in the student to the source blocks that go there."""
    first = find_blocks(student, blocks)[0]
    names = {module: name for name, module in student.named_modules()}
    parent, lists = names[first].rpartition(".")[0], block_lists(student)
    stacks = {path: tuple(chosen) for path in (lists if parent in lists else [parent])}
    if behind:
        kind = type(first)
        same = [m for m in student.get_decoder().modules() if isinstance(m, nn.ModuleList) and len(m) == len(behind)]
        found = next((m for m in same if isinstance(m[0], kind) or "Decoder" in type(m[0]).__name__), None)
        if found is None:
            raise RailkdError(
                f"Expected a list of {len(behind)} decoder blocks in {type(student).__name__}, got none. Fix: give a "
                "model without a decoder, or a checkpoint of the student's depth (--student)."
            )
        stacks[names[found]] = tuple(behind)
    return stacks


def _name_in_source(name: str, stacks: Mapping[str, Sequence[int]], base: str) -> str:
    """Return the name that a weight of the student has in its source."""
    for path, chosen in stacks.items():
        match = _block_names(path, base).match(name)
        if match is not None and int(match[2]) < len(chosen):
            return f"{match[1]}{chosen[int(match[2])] - 1}{match[3]}"
    return name


def _block_names(path: str, base: str) -> re.Pattern[str]:
    """Return a pattern of the weights of a list of blocks, with or without the prefix of the base model."""
    return re.compile(rf"^((?:{re.escape(base)})?{re.escape(path.removeprefix(base))}\.)(\d+)(\..*)$")


def _renumbered(
    weights: dict[str, torch.Tensor], path: str, base: str, chosen: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Return the weights with the chosen blocks of the list at ``path`` renumbered 0, 1, ..., without the others.

    Weights that only the first block has (T5's position bias) go to the student's first block.
    """
    matches = {name: _block_names(path, base).match(name) for name in weights}
    elsewhere = {match[3] for match in matches.values() if match is not None and int(match[2]) > 0}
    new_place = {old - 1: new for new, old in enumerate(chosen)}
    renamed = {}
    for name, tensor in weights.items():
        match = matches[name]
        if match is None or (int(match[2]) == 0 and match[3] not in elsewhere):
            renamed[name] = tensor
        elif int(match[2]) in new_place:
            renamed[f"{match[1]}{new_place[int(match[2])]}{match[3]}"] = tensor
    return renamed
