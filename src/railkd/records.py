"""What one job leaves behind: a record that says what ran, on what, how long, and how well. A leaf without torch."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from railkd._version import __version__

SCHEMA = 1
_LIBRARIES = ("railkd", "torch", "transformers", "datasets", "accelerate", "tokenizers", "numpy")


@dataclass
class RunRecord:
    """One finished job.

    Attributes:
        job: finetune or distill. method: None for finetune jobs. seed: of the run.
        config: the settings as the user gave them. metrics: test name -> metric -> value.
        domains: test name -> "in" or "out" of the domain of the training rows.
        curve: what was logged, step by step. draws: teacher blocks of each draw, in order. coverage: teacher block ->
            how often it taught the 1st, 2nd, ... matched block.
        seconds: by phase. sizes: parameters and bytes. versions: of the libraries. selection: which rows chose the kept
            weights.
    """

    job: str
    method: str | None
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    draws: list[list[int]] = field(default_factory=list)
    coverage: dict[int, list[int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    selection: str = "last step"
    versions: dict[str, str] = field(default_factory=lambda: versions())
    schema: int = SCHEMA

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the wall-clock seconds spent inside to ``seconds[name]``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def write(self, path: str | Path) -> None:
        """As indented JSON."""
        write_text(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> RunRecord:
        """What `write` wrote."""
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        values["coverage"] = {int(block): counts for block, counts in values["coverage"].items()}
        return cls(**values)

    def summary(self) -> str:
        """The results, a line for each scored set, and a coverage line for each teacher block that could be drawn."""
        lines = [scored_line(name, metrics, self.domains.get(name)) for name, metrics in self.metrics.items()]
        if self.coverage:
            lines.append(f"draws: {len(self.draws)}; how often each teacher block taught student block 1, 2, ...:")
            lines += [
                f"  teacher block {block}: {' '.join(map(str, counts))}" for block, counts in self.coverage.items()
            ]
        return "\n".join(lines)


def write_text(path: str | Path, text: str) -> None:
    """Write under a temporary name and rename: the file is complete or absent."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def scored_line(name: str, metrics: Mapping[str, float], domain: str | None = None) -> str:
    """``hans (out of domain): accuracy 0.5000``.

    >>> scored_line("dev", {"accuracy": 0.8125}, "in")
    'dev: accuracy 0.8125'
    """
    return f"{name}{' (out of domain)' if domain == 'out' else ''}: {described(metrics)}"


def described(metrics: Mapping[str, float]) -> str:
    """``accuracy 0.8125, f1 0.8000``."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def versions() -> dict[str, str]:
    """Versions of python and of the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = __version__ if name == "railkd" else "not installed"
    return found
