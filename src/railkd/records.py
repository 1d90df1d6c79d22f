"""Records of jobs: the settings, scores, seconds and versions of each run, as JSON. Needs no torch."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from railkd.errors import RailkdError
from railkd.runtime import free_fields, typed
from railkd.runtime.environment import commit, versions
from railkd.runtime.files import write_json, write_text

#: Schema 2 adds the fields of a benchmark and its report. Records of schema 1 are read with these fields empty.
SCHEMA: Literal[2] = 2

#: The file of one record in the folder of its run, and of many in the folder of a benchmark, one a line.
RECORD_FILE, RECORDS_FILE = "metrics.json", "records.jsonl"

#: Starts the arm of one of several teachers of a benchmark whose mean is the teacher, before its name.
TEACHER_PART = "teacher, "

#: Fields that differ between two runs of the same settings. `RunRecord.comparable` leaves them out.
VARYING = ("started", "seconds", "examples_per_second", "peak_memory", "commit", "machine", "predictions")


@dataclass(frozen=True)
class Question:
    """A comparison of two arms that a grid names before the runs: is ``arm`` better than ``baseline``?

    Attributes:
        name: the question in words.
        arm: the arm in question.
        baseline: the arm to compare with.
        domain: "in" or "out": whether the test sets are of the domain of the training rows.
    """

    name: str
    arm: str
    baseline: str
    domain: str = "in"


@dataclass
class Baseline:
    """The scores of the best answer that needs no model, to compare those of a set with.

    Attributes:
        answer: this answer in words: the commonest class or classes, or the mean.
        metrics: metric -> value of giving it to every row.
        positive: of two classes, the one whose f1 is given; empty: f1 is not given, or is a mean over classes.
        remark: what is wrong with the scores of the model: one answer to every row, or none better than this one.
            Empty: nothing.
    """

    answer: str
    metrics: dict[str, float]
    positive: str = ""
    remark: str = ""


@dataclass
class ClassScore:
    """The scores of one class on one set. A score that is not defined is None, not 0.

    Attributes:
        name: of the class.
        precision: share of the rows with this answer that have the class; None: no row got it as its answer.
        recall: share of the rows of the class that got it as their answer; None: no row has the class.
        f1: harmonic mean of both; None: neither occurs.
        support: number of rows of the class.
        answered: number of rows that got it as their answer.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    answered: int


@dataclass
class RunRecord:
    """The record of one job: the ``metrics.json`` of its run folder, and a line of ``records.jsonl`` in a benchmark.

    Attributes:
        job: "finetune" (trains a teacher), "cache" (a teacher pass), "distill", or "evaluate" (scores a model that
            existed before).
        method: name or address of the distillation method; None for other jobs.
        seed: seed of the run.
        task: name of the task; empty outside a benchmark.
        student: its name; for a teacher or a cache the students that use it, separated by ", ", or empty if all do.
        arm: name of the arm, a method with its options; empty outside a benchmark.
        config: the settings as the user gave them.
        start: the rule (``keep``) and the numbers (``blocks``) of the source blocks that the student copied, without
            these if it took a whole checkpoint; the parts that were not trained (``frozen``); the word pieces of a
            trimmed ``vocabulary`` (``before``, ``after``), and how many training texts they ``cut`` smaller.
        teacher_line: slope and offset that were put on the outputs of a regression teacher; empty: none.
        metrics: set name -> metric -> value; the first metric is the main one. "eval" is the selection set: it picked
            the best epoch and is not reported as a test result.
        higher_is_better: metric -> whether higher is better, for the metrics of the user's own functions.
        baselines: set name -> what its scores compare with; records of earlier releases have none.
        classes: set name -> the scores of each class; records of earlier releases, and of regression, have none.
        confusion: set name -> [class, answer, number of rows] for each pair that occurs, as indices into ``classes``;
            sets whose rows have any number of classes have none.
        gaps: set name -> metric -> which classes its value leaves out, or why it has no value, in words.
        domains: set name -> "in" or "out" of the domain of the training rows.
        curve: the training log, one dict per entry.
        draws: teacher blocks of each draw, in order.
        coverage: teacher block -> how many draws assigned it to the 1st, 2nd, ... matched student block.
        gauges: collapse readings and block similarities, in the format of `railkd.training.gauges`.
        seconds: phase -> wall-clock seconds.
        seen: of a training: its optimizer ``steps``, and the ``rows`` that they read on all ranks, those with labels
            (``labelled``) and without (``unlabelled``); repeated rows count each time. Earlier records have none.
        examples_per_second: examples per second of training.
        peak_memory: highest memory use of the process, in bytes.
        sizes: number of parameters and of trained ones, bytes on disk, rows of a cache.
        contents: what the job read -> digest: "train", "eval" and "unlabelled" rows, a "model", "teacher" or "student"
            that it started from, several teachers as "teacher 1" and so on, each test set as "test NAME", the texts
            alone of labelled rows as "texts PART", the file of a "method" from outside, and those of own
            "metrics ADDRESS".
        labels: names of the outputs, in the order of the logits.
        paper: source of the method; empty: not known.
        folder: the run folder, relative to the records file.
        predictions: set name -> file of predictions, relative to the run folder.
        finding: of a teacher that was fine-tuned: what was found about its answers on the selection set. ``level`` is
            "error" for a teacher that no student should learn from; ``title``, ``detail`` and ``fix`` say why.
        selection: which weights were saved: those of the last step, or the best on the selection set.
        started: start time, UTC, ISO 8601.
        versions: library -> version.
        commit: git commit of railkd; None outside a git checkout.
        machine: processor, cores, threads and accelerator.
        state: "finished" or "failed".
        error: error message of a failed job.
        schema: version of this format.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # an unknown field is an error

    job: str
    method: str | None
    seed: int
    task: str = ""
    student: str = ""
    arm: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    teacher_line: list[float] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    higher_is_better: dict[str, bool] = field(default_factory=dict)
    baselines: dict[str, Baseline] = field(default_factory=dict)
    classes: dict[str, list[ClassScore]] = field(default_factory=dict)
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    gaps: dict[str, dict[str, str]] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    draws: list[list[int]] = field(default_factory=list)
    coverage: dict[int, list[int]] = field(default_factory=dict)
    gauges: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    examples_per_second: float = 0.0
    peak_memory: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    paper: str = ""
    folder: str = ""
    predictions: dict[str, str] = field(default_factory=dict)
    finding: dict[str, str] = field(default_factory=dict)
    selection: str = "last step"
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: dict[str, str] = field(default_factory=lambda: versions())
    commit: str | None = field(default_factory=lambda: commit())
    machine: dict[str, Any] = field(default_factory=dict)
    state: str = "finished"
    error: str = ""
    schema: Literal[1, 2] = SCHEMA

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the wall-clock seconds of a ``with`` block to ``seconds[name]``.

        Args:
            name: name of the phase.

        Yields:
            Nothing.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def write(self, path: str | Path) -> None:
        """Write the record as indented JSON.

        Args:
            path: file to write.
        """
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> RunRecord:
        """Read a record that `write` wrote.

        Args:
            path: file to read.

        Returns:
            The record.
        """
        return cls.from_text(Path(path).read_text(encoding="utf-8"), str(path))

    @classmethod
    def from_text(cls, text: str, where: str) -> RunRecord:
        """Return the record that a JSON text holds.

        Args:
            text: the JSON.
            where: file and line, for the message.

        Returns:
            The record. Fields that schema 1 lacks are empty.

        Raises:
            RailkdError: the text is not a record, or its schema is newer; the message names the field.
        """
        try:
            values = typed.from_json(dict[str, Any], text)
            schema = values.get("schema")
            if schema is None:
                raise RailkdError(f"{where}: is not a run record (schema: field required).")
            if isinstance(schema, int) and schema > SCHEMA:
                raise RailkdError(
                    f"{where}: is a record of schema {schema}, this railkd reads up to {SCHEMA}. Fix: update railkd."
                )
            if schema == 1:
                text = json.dumps({"started": "", "commit": None} | values)
            record = cast(RunRecord, typed.from_json(cls, text))
            free_fields.check(record.config, record.curve, record.gauges)
            return record
        except RailkdError:
            raise
        except ValueError as error:
            raise RailkdError(f"{where}: is not a run record ({error}).") from None

    def comparable(self) -> dict[str, Any]:
        """Return the fields that two runs of the same settings share: no times, memory or machine.

        Returns:
            Field name -> value, without `VARYING` and without times in the curve.
        """
        fields = {name: value for name, value in asdict(self).items() if name not in VARYING}
        times = re.compile(r"runtime|per_second")
        fields["curve"] = [{k: v for k, v in entry.items() if not times.search(k)} for entry in self.curve]
        return fields

    def summary(self) -> str:
        """Return the results as text, to print at the end of a job.

        Returns:
            A line for each teacher block that could be drawn, and then a line for each scored set. Below it stand a
            warning if the model is no better than an answer without a model, and the metrics with gaps.
        """
        lines = []
        if self.coverage:
            lines.append(f"draws: {len(self.draws)}; how often each teacher block taught student block 1, 2, ...:")
            lines += [
                f"  teacher block {block}: {' '.join(map(str, counts))}" for block, counts in self.coverage.items()
            ]
        for name, metrics in self.metrics.items():
            lines.append(score_line(name, metrics, self.domains.get(name), self.baselines.get(name)))
            if name in self.baselines and (remark := self.baselines[name].remark):
                lines.append(f"  warning: {name}: {remark}")
            lines += [f"  note: {name}: {metric}: {gap}" for metric, gap in self.gaps.get(name, {}).items()]
        return "\n".join(lines)


def write_lines(path: str | Path, records: Iterable[RunRecord]) -> None:
    """Write records as JSON lines, one record per line.

    Args:
        path: file to write.
        records: the records, in order.
    """
    write_text(path, "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records))


def read_lines(path: str | Path) -> list[RunRecord]:
    """Read the records that `write_lines` wrote.

    Args:
        path: file to read.

    Returns:
        The records, in order.
    """
    # str.splitlines() would also split at U+2028, which may be part of a JSON string.
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    return [RunRecord.from_text(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def score_line(
    name: str, metrics: Mapping[str, float], domain: str | None = None, baseline: Baseline | None = None
) -> str:
    """Return the scores of one set as a line of text.

    Args:
        name: name of the set.
        metrics: metric -> value.
        domain: "in" or "out" of the domain of the training rows, if known.
        baseline: what the scores compare with, if known.

    Returns:
        The line.

    >>> score_line("hans", {"accuracy": 0.8125}, "out")
    'hans (out of domain): accuracy 0.8125'
    >>> score_line("dev", {"f1": 0.9}, baseline=Baseline("'pos'", {"f1": 0.8}, "pos"))
    "dev: f1 of 'pos' 0.9000 (always 'pos': f1 0.8000)"
    """
    f1 = f"f1 of {baseline.positive!r}" if baseline and baseline.positive else "f1"
    line = f"{name}{' (out of domain)' if domain == 'out' else ''}: {_scores(metrics, f1)}"
    return f"{line} (always {baseline.answer}: {_scores(baseline.metrics)})" if baseline else line


def _scores(metrics: Mapping[str, float], f1: str = "f1") -> str:
    return ", ".join(f"{f1 if metric == 'f1' else metric} {value:.4f}" for metric, value in metrics.items())
