"""The record of one run: JSON that is written again after every result, so that a killed run keeps what it measured."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy")


class Record:
    """Results by part.

    Args:
        paths: files that get the same JSON at every `save`.
        settings: what the run was asked for.
    """

    def __init__(self, paths: Sequence[Path], **settings: Any) -> None:
        self.paths = list(paths)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.data: dict[str, Any] = {"when": now, "settings": settings, "machine": machine(), "bars": {}, "parts": {}}

    def part(self, name: str) -> dict[str, Any]:
        """Return the results of a part, to be filled in place."""
        results: dict[str, Any] = self.data["parts"].setdefault(name, {})
        return results

    def bar(
        self, what: str, value: float, bar: float, *, at_least: bool = False, interval: Sequence[float] | None = None
    ) -> None:
        """Note a measured value beside its goal; a quick run measures nothing worth one."""
        if self.data["settings"].get("quick"):
            return
        met = value >= bar if at_least else value <= bar
        row = {"value": value, "at least" if at_least else "at most": bar, "met": bool(met)}
        self.data["bars"][what] = row | ({} if interval is None else {"interval_95": list(interval)})

    def save(self) -> None:
        """Write all files, each complete or not at all."""
        text = json.dumps(self.data, indent=1, default=str) + "\n"
        for path in self.paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.part")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)


def failure(error: BaseException) -> dict[str, str]:
    """Return what a record keeps of an exception: its last line, and the end of its traceback."""
    lines = "".join(traceback.format_exception(error)).replace(f"{ROOT}{os.sep}", "")
    return {"error": f"{type(error).__name__}: {error}"[:500], "traceback": lines[-3000:]}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the median over rounds of ours / theirs, with a 95 % bootstrap interval over the rounds.

    "halves" are the medians of the first and the second half of the rounds: they are alike where nothing drifts.
    """
    each = np.asarray(ours) / np.asarray(theirs)
    draws = np.median(np.random.default_rng(0).choice(each, (2000, len(each))), axis=1)
    interval = [round(float(value), 3) for value in np.quantile(draws, [0.025, 0.975])]
    halves = [round(float(np.median(half)), 3) for half in np.array_split(each, 2) if len(half)]
    return {
        "ratio": round(float(np.median(each)), 3),
        "interval_95": interval,
        "halves": halves,
        "rounds": len(each),
    }


def machine() -> dict[str, Any]:
    """Return what a timing must be read beside: processors and versions, and a digest of railkd's source files."""
    import torch

    from railkd.runtime.hardware import processor

    cuda = torch.cuda.is_available()
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(0) if cuda else "none",
        "gpu memory in GB": round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1) if cuda else 0,
        "cuda": torch.version.cuda,
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found | {"torch": torch.__version__, "railkd source": source_digest()}


def source_digest() -> str:
    """Return the first 12 hexadecimal digits of a digest of the source files that are measured."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "src" / "railkd").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
