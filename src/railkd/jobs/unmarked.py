"""Recognise the run folders of railkd 0.1.0, which have no list of their files, by the names and contents of files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from railkd.records import RECORD_FILE
from railkd.training.checkpoint_folders import MODEL_FILE


def written_without_mark(folder: Path) -> set[str]:
    """Return the files of a run folder that railkd 0.1.0 wrote.

    Args:
        folder: any folder.

    Returns:
        Paths relative to it; empty if it is not a run folder. Checkpoints have lists of their own.
    """
    sound = {name for name, check in _FILES.items() if _plain(folder / name) and check(folder / name)}
    if not sound & {"config.yaml", RECORD_FILE}:
        return set()
    for file in folder.glob("predictions/*.tsv"):
        if _plain(file) and _starts(file, b"index\tgold\tlabel"):
            sound.add(f"predictions/{file.name}")
    for model in ("student", "model"):
        if "railkd" in _json(folder / model / "config.json"):
            names = (path.name for path in (folder / model).iterdir() if _plain(path))
            sound |= {f"{model}/{name}" for name in names if MODEL_FILE.fullmatch(name)}
    return sound


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and not path.parent.is_symlink()


def _starts(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda path: _json(path).keys() >= set(names)


_FILES: dict[str, Callable[[Path], bool]] = {
    "config.yaml": lambda path: _starts(path, b"# railkd "),
    RECORD_FILE: _has("job", "method", "seed", "metrics", "schema"),
    "draws.json": _has("redraw", "draws", "coverage"),
    "gauges.json": lambda path: bool(_json(path)),
    "objective.safetensors": lambda path: True,
}
