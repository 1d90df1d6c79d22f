"""Makes a shallower student from a checkpoint: some of its blocks, its embeddings and its head."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from railkd.errors import RailkdError
from railkd.models.blocks import find_blocks
from railkd.models.checkpoints import Checkpoint, empty_classifier, quiet_transformers
from railkd.models.heads import task_of_config
from railkd.models.trust import is_foreign

Keep = str | Sequence[int]


def blocks_to_keep(num_layers: int, depth: int, keep: Keep = "even") -> tuple[int, ...]:
    """Return the source blocks (1-based) that a student starts from.

    Args:
        num_layers: blocks of the student, s.
        depth: blocks of the source, n.
        keep: ``even`` (blocks round(i n / s)), ``first``, ``last``, or the block numbers themselves.

    Returns:
        The s block numbers, rising.

    Raises:
        RailkdError: the student has more blocks than the source, or ``keep`` is unknown.

    >>> blocks_to_keep(3, 12), blocks_to_keep(3, 12, "last"), blocks_to_keep(2, 12, [1, 12])
    ((4, 8, 12), (10, 11, 12), (1, 12))
    """
    if num_layers < 1:
        raise RailkdError(f"Expected a student of at least 1 block, got {num_layers}. Fix: give a larger number.")
    if num_layers > depth:
        raise RailkdError(
            f"Expected a student of at most {depth} blocks, as many as its source has, got {num_layers}. Fix: give a "
            "smaller number, or start from another checkpoint (--student)."
        )
    if keep == "even":
        return tuple(round(i * depth / num_layers) for i in range(1, num_layers + 1))
    if keep == "first":
        return tuple(range(1, num_layers + 1))
    if keep == "last":
        return tuple(range(depth - num_layers + 1, depth + 1))
    if isinstance(keep, str):
        raise RailkdError(
            f"Expected keep to be even, first, last or block numbers such as 1,3,6, got '{keep}'. Fix: give one of "
            "these."
        )
    chosen = tuple(int(block) for block in keep)
    if (
        len(chosen) != num_layers
        or not all(1 <= block <= depth for block in chosen)
        or sorted(set(chosen)) != list(chosen)
    ):
        raise RailkdError(
            f"Expected {num_layers} rising numbers from 1 to {depth} of the blocks to keep, got {chosen}. Fix: give as "
            "many block numbers as the student has blocks."
        )
    return chosen


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
        keep: source blocks to copy; see `blocks_to_keep`. A decoder of another depth than the encoder is cut evenly.
        blocks: see `railkd.models.blocks.find_blocks`.
        config: overrides of the config, e.g. ``num_labels``. A head that does not fit is drawn anew.

    Returns:
        A transformers sequence classifier whose config states its new depth.
    """
    if isinstance(source, nn.Module):
        trusted = is_foreign(source)
        their_config: Any = source.config
        their_config = type(their_config).from_dict(their_config.to_dict())
        weights = {name: tensor.detach().clone() for name, tensor in source.state_dict().items()}
    else:
        checkpoint = Checkpoint.find(source)
        trusted, their_config = checkpoint.trusted, checkpoint.new_config()
        checkpoint.name_padding(their_config)
        weights = _read_weights(checkpoint)
    depth = their_config.num_hidden_layers
    chosen = blocks_to_keep(num_layers, depth, keep)
    behind = _decoder_blocks(their_config, num_layers, keep)
    # Groups of blocks that share weights all stay, so nothing is renumbered.
    shared = getattr(their_config, "num_hidden_groups", depth) < depth
    for name, value in {**config, **_shallower(their_config, chosen, behind)}.items():
        setattr(their_config, name, value)
    with quiet_transformers():
        plan = task_of_config(their_config).auto_model().from_config(their_config, trust_remote_code=trusted)
        renamed = weights
        for path, kept in ({} if shared else _stacks(plan, chosen, behind, blocks)).items():
            renamed = _renumbered(renamed, path, f"{plan.base_model_prefix}.", kept)
        student = type(plan).from_pretrained(
            None, config=their_config, state_dict=renamed, ignore_mismatched_sizes=True, dtype=torch.float32
        )
    return student


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
    stacks = {names[first].rpartition(".")[0]: tuple(chosen)}
    if behind:
        kind = type(first)
        lists = [m for m in student.get_decoder().modules() if isinstance(m, nn.ModuleList) and len(m) == len(behind)]
        found = next((m for m in lists if isinstance(m[0], kind) or "Decoder" in type(m[0]).__name__), None)
        if found is None:
            raise RailkdError(
                f"Expected a list of {len(behind)} decoder blocks in {type(student).__name__}, got none. Fix: give a "
                "model without a decoder, or a checkpoint of the student's depth (--student)."
            )
        stacks[names[found]] = tuple(behind)
    return stacks


def _renumbered(
    weights: dict[str, torch.Tensor], path: str, base: str, chosen: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Return the weights with the chosen blocks of the list at ``path`` renumbered 0, 1, ..., without the others.

    Weights that the first block holds for all blocks (T5's position bias) go to the student's first block.
    """
    block = re.compile(rf"^((?:{re.escape(base)})?{re.escape(path.removeprefix(base))}\.)(\d+)(\..*)$")
    new_place = {old - 1: new for new, old in enumerate(chosen)}
    renamed, first = {}, {}
    for name, tensor in weights.items():
        match = block.match(name)
        if match is None:
            renamed[name] = tensor
            continue
        old = int(match[2])
        if old in new_place:
            renamed[f"{match[1]}{new_place[old]}{match[3]}"] = tensor
        elif old == 0:
            first[name] = tensor
    return {**first, **renamed}


def _read_weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    weights: dict[str, torch.Tensor] = {}
    for path in checkpoint.weights:
        safe = path.suffix == ".safetensors"
        weights |= load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    return weights
