"""Reads what a model folder says about the training of its model."""

from __future__ import annotations

from typing import Any

from railkd.jobs.options import DEFAULT_MAX_LENGTH, Say


def trained_length(given: int | None, config: Any, say: Say) -> int:
    """Return the length in tokens at which a job cuts the texts of a model, the same rule for every verb.

    Args:
        given: length that the user or a cache gives; None takes the one of the training, or the default.
        config: config of the model. Its entry ``railkd`` holds the length of the training.
        say: receives a line if the given length is not the one of the training.
    """
    trained = (getattr(config, "railkd", None) or {}).get("max_length")
    if given is not None and trained not in (None, given):
        say(f"texts are cut at {given} tokens, but the model was trained with {trained}")
    return given or int(trained or DEFAULT_MAX_LENGTH)
