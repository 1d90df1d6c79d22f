"""The training of a model, as its folder describes it: the entry ``railkd`` of its config.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from railkd.jobs.options import DEFAULT_MAX_LENGTH, Say


@dataclass(frozen=True)
class Trained:
    """How a model was trained, as far as its readers need it. Plain transformers ignores the entry.

    Attributes:
        max_length: length in tokens at which its texts were cut; None: not known.
        text_columns: the text columns of its training rows, in order; empty: not known.
    """

    max_length: int | None = None
    text_columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Any) -> Trained:
        """Read the entry of a config. What is not written as `entry` writes it is not known.

        Args:
            config: of the model; None: there is none.

        Returns:
            The entry.
        """
        found = getattr(config, "railkd", None)
        if not isinstance(found, dict):
            return cls()
        length, columns = found.get("max_length"), found.get("text_columns")
        known = isinstance(columns, list) and len(columns) in (1, 2) and all(isinstance(name, str) for name in columns)
        whole = type(length) is int and length > 0  # True is an int too
        return cls(length if whole else None, tuple(columns) if columns and known else ())

    @staticmethod
    def entry(method: str, max_length: int, text_columns: Sequence[str]) -> dict[str, Any]:
        """Return the entry for a config.

        Args:
            method: of the training.
            max_length: in tokens.
            text_columns: in order.
        """
        return {"method": method, "max_length": max_length, "text_columns": list(text_columns)}


def trained_length(given: int | None, config: Any, say: Say) -> int:
    """Return the length in tokens at which a job cuts the texts of a model, the same rule for every verb.

    Args:
        given: length that the user or a cache gives; None takes the one of the training, or the default.
        config: config of the model.
        say: receives a line if the given length is not the one of the training.
    """
    trained = Trained.of(config).max_length
    if given is not None and trained not in (None, given):
        say(f"texts are cut at {given} tokens, but the model was trained with {trained}")
    return given or trained or DEFAULT_MAX_LENGTH
