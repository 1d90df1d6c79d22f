"""Decides whether the Python code that a checkpoint brings may run: only if the user trusts that one checkpoint."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path
from typing import Any

REFUSED = (
    "it brings Python code of its own, which is not run; read that code, and if you trust it give --trust-remote-code "
    "(in Python: railkd.models.Checkpoint.find(name, trust=True))"
)
logger = logging.getLogger(__name__)


def announce(folder: Path, name: str) -> None:
    """Log whose Python code runs when this checkpoint is loaded; log nothing if it brings none.

    Args:
        folder: holds config.json.
        name: as the user gave it.
    """
    owners = [owner or name for owner in sorted(_code_owners(folder))]
    if owners:
        _announce(name, ", ".join(owners))


def is_foreign(value: Any) -> bool:
    """Return True if the class of a model or config came with a checkpoint, so that its code runs already.

    Args:
        value: the model or config.

    Returns:
        The answer.
    """
    return type(value).__module__.startswith("transformers_modules.")


@functools.cache  # once for each checkpoint and process: a job may find a checkpoint several times
def _announce(name: str, owners: str) -> None:
    logger.warning("trust_remote_code: loading the model '%s' runs Python code of: %s", name, owners)


def _code_owners(folder: Path) -> set[str]:
    """Return whose Python code a checkpoint asks for: "" is its own, other names are repositories of the hub."""
    references: list[Any] = []
    for file in ("config.json", "tokenizer_config.json"):
        try:
            named = json.loads((folder / file).read_text(encoding="utf-8")).get("auto_map") or {}
        except (OSError, ValueError, AttributeError):
            continue
        for reference in named.values() if isinstance(named, dict) else [named]:
            references += reference if isinstance(reference, list) else [reference]
    return {str(reference).rpartition("--")[0] for reference in references if reference}
