"""What one job leaves behind: a record that says what ran, on what, how long, and how well. A leaf without torch."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from railkd.errors import RailkdError
from railkd.runtime.environment import commit, versions
from railkd.runtime.files import write_text

#: 2 adds what a benchmark and its report need; a record of 1 is read with those fields empty.
SCHEMA = 2


#: What differs between two runs of the same settings: compare records without these.
VARYING = ("started", "seconds", "examples_per_second", "peak_memory", "commit", "machine", "predictions")


@dataclass
class RunRecord:
    """One job: a line of ``records.jsonl``, and the ``metrics.json`` of its run folder.

    Attributes:
        job: finetune (a teacher), cache (a teacher pass), distill, or evaluate (a model that was there already).
        method: of a distill job.
        seed: of the run.
        task, student, arm: as a benchmark names them; an arm is a method with its options. Empty outside of one.
        config: the settings as the user gave them.
        metrics: test name -> metric -> value, the metric that counts first. "eval" chose the kept weights and is no
            test.
        domains: test name -> "in" or "out" of the domain of the training rows.
        curve: what was logged, step by step. draws: teacher blocks of each draw, in order.
        coverage: teacher block -> how often it taught the 1st, 2nd, ... matched block.
        gauges: readings and the similarity of blocks, as `railkd.training.gauges` keeps them.
        seconds: by phase. examples_per_second: of training. peak_memory: of the process, in bytes.
        sizes: parameters and bytes. labels: names of the outputs, in order.
        folder: the run folder, relative to the file of records that holds this one.
        predictions: test name -> file of predictions, relative to the run folder.
        selection: which rows chose the kept weights.
        started: UTC, ISO 8601. versions: of the libraries. commit: of railkd, where it runs from a git checkout.
        machine: what it ran on. state: finished or failed, and then the error in words.
    """

    job: str
    method: str | None
    seed: int
    task: str = ""
    student: str = ""
    arm: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    draws: list[list[int]] = field(default_factory=list)
    coverage: dict[int, list[int]] = field(default_factory=dict)
    gauges: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    examples_per_second: float = 0.0
    peak_memory: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    folder: str = ""
    predictions: dict[str, str] = field(default_factory=dict)
    selection: str = "last step"
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: dict[str, str] = field(default_factory=lambda: versions())
    commit: str | None = field(default_factory=lambda: commit())
    machine: dict[str, Any] = field(default_factory=dict)
    state: str = "finished"
    error: str = ""
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
        return cls.from_text(Path(path).read_text(encoding="utf-8"), str(path))

    @classmethod
    def from_text(cls, text: str, where: str) -> RunRecord:
        """A record out of JSON.

        Raises:
            RailkdError: no JSON object, a newer schema, or fields that no schema has; ``where`` says of what.
        """
        try:
            values = json.loads(text)
            if values["schema"] not in range(1, SCHEMA + 1):
                raise RailkdError(
                    f"{where}: is a record of schema {values['schema']!r}, this railkd reads up to {SCHEMA}; update "
                    "railkd"
                )
            before = {} if values["schema"] == SCHEMA else {"started": "", "commit": None}
            values["coverage"] = {int(block): counts for block, counts in values["coverage"].items()}
            return cls(**(before | values))
        except RailkdError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RailkdError(f"{where}: is no run record ({type(error).__name__}: {error})") from None

    def comparable(self) -> dict[str, Any]:
        """All that two runs of the same settings have in common: no times, no memory, no machine."""
        kept = {name: value for name, value in asdict(self).items() if name not in VARYING}
        times = re.compile(r"runtime|per_second")
        kept["curve"] = [{k: v for k, v in entry.items() if not times.search(k)} for entry in self.curve]
        return kept

    def summary(self) -> str:
        """The results, a line for each scored set, and a coverage line for each teacher block that could be drawn."""
        lines = [scored_line(name, metrics, self.domains.get(name)) for name, metrics in self.metrics.items()]
        if self.coverage:
            lines.append(f"draws: {len(self.draws)}; how often each teacher block taught student block 1, 2, ...:")
            lines += [
                f"  teacher block {block}: {' '.join(map(str, counts))}" for block, counts in self.coverage.items()
            ]
        return "\n".join(lines)


def write_lines(path: str | Path, records: Iterable[RunRecord]) -> None:
    """As JSON lines, one record a line."""
    write_text(path, "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records))


def read_lines(path: str | Path) -> list[RunRecord]:
    """What `write_lines` wrote."""
    # Not splitlines(): a line separator inside a JSON string is text.
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    return [RunRecord.from_text(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def scored_line(name: str, metrics: Mapping[str, float], domain: str | None = None) -> str:
    """``hans (out of domain): accuracy 0.5000``.

    >>> scored_line("dev", {"accuracy": 0.8125}, "in")
    'dev: accuracy 0.8125'
    """
    return f"{name}{' (out of domain)' if domain == 'out' else ''}: {described(metrics)}"


def described(metrics: Mapping[str, float]) -> str:
    """``accuracy 0.8125, f1 0.8000``."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
