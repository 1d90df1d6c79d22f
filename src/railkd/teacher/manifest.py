"""What a manifest must look like: it is data, perhaps from elsewhere, and what reads it relies on its types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from railkd.signals import POOLINGS

_FILE = {"file": str, "bytes": int, "header_crc": int}
_TEACHER = {"blocks": int, "width": int, "labels": list, "problem_type": str, "max_length": int}
_IDENTITY = {
    "weights": str,
    "config": dict,
    "tokenizer": str,
    "max_length": int,
    "precision": str,
    "states_dtype": str,
    "versions": dict,
}


def check(manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest that does not describe a cache.

    Raises:
        ValueError: names the entry.
    """
    _typed(manifest, {"teacher": dict, "identity": dict, "poolings": list, "rows": int, "index": dict, "shards": list})
    _typed(manifest["teacher"], _TEACHER, "teacher.")
    _typed(manifest["identity"], _IDENTITY, "identity.")
    _typed(manifest["index"], _FILE, "index.")
    for number, entry in enumerate(manifest["shards"]):
        if not isinstance(entry, dict):
            raise ValueError(f"shards.{number} is no mapping")
        _typed(entry, _FILE | {"rows": int}, f"shards.{number}.")
    _texts(manifest["teacher"]["labels"], "teacher.labels")
    _texts(list(manifest["identity"]["versions"].values()), "identity.versions")
    _texts(manifest["poolings"], "poolings")
    if not manifest["poolings"] or not set(manifest["poolings"]) <= set(POOLINGS):
        raise ValueError(f"poolings are {manifest['poolings']}, wanted some of {', '.join(POOLINGS)}")
    if not isinstance(manifest["identity"].get("blocks"), str | None):
        raise ValueError("identity.blocks is no text")


def _typed(values: Mapping[str, Any], wanted: Mapping[str, type], where: str = "") -> None:
    for name, kind in wanted.items():
        value = values.get(name)
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if not fits or (isinstance(value, int) and not 0 <= value < 2**53):
            raise ValueError(f"{where}{name} is {str(value)[:40]!r}, wanted {kind.__name__}")


def _texts(values: list[Any], where: str) -> None:
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{where} holds something else than text")
