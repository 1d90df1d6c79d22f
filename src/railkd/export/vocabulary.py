"""Trims the vocabulary of a model: word pieces that the data never need, and their embeddings.

Two laws. A text whose pieces all stay is tokenised as before and gets the same logits, bit for bit. No text becomes
unknown that was not: special tokens, single characters and bytes stay, and so does every piece with a character that
has no piece of its own.

- WordPiece takes the longest piece at each place, and Unigram the most likely sequence: a choice that stays remains the
  best one.
- BPE merges pairs in a fixed order. A piece that stays keeps all pairs that lead to it, and the pieces of these.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from railkd.errors import RailkdError

_KINDS = ("WordPiece", "BPE", "Unigram")


@dataclass(frozen=True)
class Trimming:
    """Which pieces stay.

    Attributes:
        kept: (V',) old numbers of the pieces that stay, in rising order: the new number is the place.
        before: number of pieces V.
        state: the tokenizer with the new pieces, as tokenizer.json holds it.
    """

    kept: np.ndarray
    before: int
    state: dict[str, Any]

    @property
    def new_numbers(self) -> dict[int, int]:
        """Old number -> new number."""
        return {int(old): new for new, old in enumerate(self.kept)}

    def unchanged(self, rows: Iterable[Sequence[int]]) -> np.ndarray:
        """Return (N,) bool: the rows of old numbers whose pieces all stay."""
        stays = set(self.kept.tolist())
        return np.array([stays.issuperset(row) for row in rows])


def plan(tokenizer: Any, counts: Counter[int], size: int | None) -> Trimming:
    """Choose the pieces that stay.

    Args:
        tokenizer: a fast tokenizer of transformers.
        counts: number of a piece -> how often it occurs in the data.
        size: number of pieces; what must stay stays in any case. Pieces that do not occur fill the rest, in the order
            of the tokenizer. None keeps every piece that occurs.

    Returns:
        The plan.

    Raises:
        RailkdError: the tokenizer is of another kind than WordPiece, BPE and Unigram.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(backend.to_str()) if backend is not None else {}
    kind = state.get("model", {}).get("type")
    if kind not in _KINDS:
        raise RailkdError(
            f"--vocabulary: expected a tokenizer of the kind {', '.join(_KINDS[:-1])} or {_KINDS[-1]}, got "
            f"{kind or type(tokenizer).__name__}. Fix: leave the flag out."
        )
    numbers = _numbers(state)
    parents = _parents(state)
    kept: set[str] = set()
    for piece in _needed(state, numbers):
        _add(piece, kept, parents)
    names = {number: piece for piece, number in numbers.items()}
    frequent = [number for number, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    rest = [] if size is None else sorted(names.keys() - counts.keys())  # tokenizers list the frequent pieces first
    for number in (*frequent, *rest):
        if size is not None and len(kept) >= size:
            break
        if number in names:
            _add(names[number], kept, parents)
    order = np.array(sorted(numbers[piece] for piece in kept))
    return Trimming(order, len(numbers), _renumbered(state, kept, {int(old): new for new, old in enumerate(order)}))


def trim(model: Any, trimming: Trimming) -> Any:
    """Return a copy of a model with the embeddings of the pieces that stay.

    Args:
        model: a classifier.
        trimming: of its tokenizer.

    Returns:
        The model, in evaluation mode.
    """
    import torch

    trimmed, new = copy.deepcopy(model), trimming.new_numbers
    table = trimmed.get_input_embeddings()  # changed in place, because some families scale what it returns
    chosen = torch.as_tensor(trimming.kept, device=table.weight.device)
    table.weight = torch.nn.Parameter(table.weight.detach()[chosen].clone(), table.weight.requires_grad)
    table.num_embeddings, table.padding_idx = len(chosen), new.get(table.padding_idx)
    trimmed.set_input_embeddings(table)  # also where a decoder shares it
    trimmed.config.vocab_size = len(chosen)
    for name, value in trimmed.config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int) and value in new:
            setattr(trimmed.config, name, new[value])
    return trimmed.eval()


def trim_tokenizer(tokenizer: Any, trimming: Trimming) -> Any:
    """Return a tokenizer with the pieces that stay, of the same class.

    Args:
        tokenizer: the one that the plan is of.
        trimming: the plan.
    """
    with tempfile.TemporaryDirectory(prefix="railkd-") as scratch:
        tokenizer.save_pretrained(scratch)
        write_tokenizer(trimming, Path(scratch))
        found = type(tokenizer).from_pretrained(scratch)
    found.name_or_path = tokenizer.name_or_path
    return found


def write_tokenizer(trimming: Trimming, folder: Path) -> None:
    """Put the new pieces into the folder of a saved tokenizer.

    Args:
        trimming: of the tokenizer.
        folder: holds tokenizer.json and tokenizer_config.json.
    """
    (folder / "tokenizer.json").write_text(json.dumps(trimming.state, ensure_ascii=False), encoding="utf-8")
    file, new = folder / "tokenizer_config.json", trimming.new_numbers
    config = json.loads(file.read_text(encoding="utf-8"))
    if "added_tokens_decoder" in config:
        old = config["added_tokens_decoder"].items()
        config["added_tokens_decoder"] = {str(new[int(number)]): token for number, token in old if int(number) in new}
    file.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _numbers(state: Mapping[str, Any]) -> dict[str, int]:
    """Return piece -> number, added tokens included."""
    vocabulary = state["model"]["vocab"]
    pieces = vocabulary.items() if isinstance(vocabulary, dict) else ((p, i) for i, (p, _) in enumerate(vocabulary))
    return dict(pieces) | {token["content"]: token["id"] for token in state["added_tokens"]}


def _parents(state: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return piece of BPE -> the pieces of all pairs that are merged into it."""
    found: dict[str, set[str]] = {}
    for merge in state["model"].get("merges", ()):
        left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
        found.setdefault(_merged(state, left, right), set()).update((left, right))
    return found


def _merged(state: Mapping[str, Any], left: str, right: str) -> str:
    prefix = state["model"].get("continuing_subword_prefix") or ""
    return left + (right.removeprefix(prefix) if prefix else right)


def _add(piece: str, kept: set[str], parents: Mapping[str, set[str]]) -> None:
    waiting = [piece]
    while waiting:
        one = waiting.pop()
        if one not in kept:
            kept.add(one)
            waiting += parents.get(one, ())


def _needed(state: Mapping[str, Any], numbers: Mapping[str, int]) -> list[str]:
    """Return the pieces that must stay, whatever the data."""
    model = state["model"]
    special = {token["content"] for token in state["added_tokens"]} | {model.get("unk_token")}
    if isinstance(model["vocab"], list) and model.get("unk_id") is not None:
        special.add(model["vocab"][model["unk_id"]][0])
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    single = {piece for piece in numbers if len(_bare(piece, prefix, suffix)) == 1}
    single |= {piece for piece in numbers if piece.startswith("<0x") and piece.endswith(">")}
    needed = single | {piece for piece in special if piece in numbers}
    # A character may have a piece at the start of words only, or inside of them only, or none.
    both = [f"{prefix}{{}}", "{}"] if prefix else ["{}"]
    for piece in numbers.keys() - needed:
        characters = set(_bare(piece, prefix, suffix))
        if any(form.format(character) not in single for character in characters for form in both):
            needed.add(piece)
    return sorted(needed)


def _bare(piece: str, prefix: str, suffix: str) -> str:
    piece = piece.removeprefix(prefix) if prefix and piece != prefix else piece
    return piece.removesuffix(suffix) if suffix and piece != suffix else piece


def _renumbered(state: Mapping[str, Any], kept: set[str], new: Mapping[int, int]) -> dict[str, Any]:
    """Return a tokenizer with the pieces that stay, and their new numbers wherever a number stands."""
    found: dict[str, Any] = copy.deepcopy(dict(state))
    model = found["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {piece: new[number] for piece, number in model["vocab"].items() if piece in kept}
    else:
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
        model["vocab"] = [entry for entry in model["vocab"] if entry[0] in kept]
    if "merges" in model:
        pairs = [(merge, *(merge if isinstance(merge, list) else merge.split(" ", 1))) for merge in model["merges"]]
        model["merges"] = [merge for merge, left, right in pairs if {left, right, _merged(state, left, right)} <= kept]
    for token in found["added_tokens"]:
        token["id"] = new[token["id"]]
    _renumber_template(found.get("post_processor"), new)
    return found


def _renumber_template(part: Any, new: Mapping[int, int]) -> None:
    """Change the numbers of special tokens in a post-processor, and in those that it joins."""
    if not isinstance(part, dict):
        return
    for one in part.get("processors", ()):
        _renumber_template(one, new)
    for name in ("sep", "cls"):
        if isinstance(part.get(name), list):
            part[name] = [part[name][0], new[part[name][1]]]
    if isinstance(part.get("special_tokens"), dict):
        for token in part["special_tokens"].values():
            token["ids"] = [new[number] for number in token["ids"]]
