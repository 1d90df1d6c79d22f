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
#: Entry of a config -> its values that are part of torch and transformers.
_BUILT_IN = {
    "_attn_implementation": ("eager", "sdpa", "flex_attention"),
    "_experts_implementation": ("eager", "batched_mm", "grouped_mm"),
}
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


def drop_kernels(config: Any, name: str) -> None:
    """Take choices of attention that load code from elsewhere out of a config; transformers then chooses.

    Args:
        config: is changed, and so are the configs inside of it.
        name: of the checkpoint, for the log line.
    """
    parts = [config, *(part for part in vars(config).values() if hasattr(part, "_attn_implementation"))]
    for part in parts:
        for field, built_in in _BUILT_IN.items():
            chosen = getattr(part, field, None)
            if chosen is not None and chosen not in built_in:
                logger.warning(
                    "The config of '%s' asks for the code '%s' (%s). It is not loaded. Fix: to load it, trust the "
                    "checkpoint (--trust-remote-code).",
                    *(name, chosen, field.strip("_")),
                )
                setattr(part, field, None)


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
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        for reference in named.values() if isinstance(named, dict) else [named]:
            references += reference if isinstance(reference, list) else [reference]
    return {str(reference).rpartition("--")[0] for reference in references if reference}
