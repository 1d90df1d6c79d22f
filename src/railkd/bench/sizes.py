"""Computes the bytes that a plan writes: teachers, caches, students and checkpoints, beside what is free."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from railkd.bench.plan import Job
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.jobs import findings
from railkd.jobs.settings import plain
from railkd.jobs.training_settings import keeps_checkpoints
from railkd.models.checkpoints import Checkpoint
from railkd.models.loading import empty_classifier
from railkd.models.named_teachers import start_model
from railkd.runtime.words import listed, size

#: Bytes of a weight on disk. A checkpoint holds the weight and Adam's two moments.
_WEIGHT, _CHECKPOINT = 4, 12
#: Number of checkpoints that a run keeps by default; the next one is written before the oldest is deleted.
_CHECKPOINTS = 2


@dataclass(frozen=True)
class Sizes:
    """The bytes that are still to be written. None: not known until models and rows are on this machine.

    Attributes:
        teachers: the weights of the teachers.
        caches: the caches of the teachers.
        students: the weights of the students that are kept.
        checkpoints: of the runs that train at the same time, the largest, and those that runs keep.
        free: bytes on the disk of the bench, with those that overwriting it frees.
        kept: which students are kept.
        keeps_checkpoints: whether runs keep checkpoints when they end.
    """

    teachers: int | None
    caches: int | None
    students: int | None
    checkpoints: int | None
    free: int
    kept: str
    keeps_checkpoints: bool = False

    @property
    def needed(self) -> int:
        """The sum of what is known."""
        return sum(filter(None, (self.teachers, self.caches, self.students, self.checkpoints)))

    def __str__(self) -> str:
        named = {"teachers": self.teachers, "caches": self.caches, "students": self.students}
        parts = [f"{name} {'not known' if count is None else size(count)}" for name, count in named.items()]
        checkpoints = "not known" if self.checkpoints is None else size(self.checkpoints)
        return f"{', '.join(parts)} (kept: {self.kept}), checkpoints {checkpoints}; {size(self.free)} free"

    def check(self, output: Path) -> None:
        """Refuse a plan that does not fit on its disk.

        Args:
            output: the bench's folder.

        Raises:
            RailkdError: it does not fit.
        """
        if self.needed > self.free:
            fixes = ["name an --output on a larger disk"]
            fixes += ["keep fewer weights with 'keep_students: best' or 'none' in the grid"] * (self.kept == "all")
            fixes += ["keep fewer checkpoints: leave out 'save_...' settings"] * self.keeps_checkpoints
            raise RailkdError(
                f"--output '{output}': expected room for {size(self.needed)}, got {size(self.free)} free. The plan "
                f"writes: {self}. Fix: {listed(fixes).replace(' and ', ', or ')}."
            )


def compute_sizes(
    jobs: Sequence[Job], done: Iterable[str], output: Path, kept: str, slots: int, freed: int = 0
) -> Sizes:
    """Compute the bytes that the unfinished jobs of a plan will write.

    Args:
        jobs: the plan.
        done: folders of the finished jobs.
        output: the bench's folder.
        kept: which students are kept: all, best or none.
        slots: jobs at a time.
        freed: bytes that are deleted before the first job.

    Returns:
        The sizes.
    """
    finished = set(done)
    left = [job for job in jobs if job.folder not in finished]
    bases = Bases(jobs)
    weights = {job.folder: bases.parameters(job) for job in left if job.kind in ("finetune", "distill")}
    folder = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    return Sizes(
        teachers=_sum(_times(weights[job.folder], _WEIGHT) for job in left if job.kind == "finetune"),
        caches=_sum(bases.cache_bytes(job) for job in left if job.kind == "cache"),
        students=_students(left, weights, kept),
        checkpoints=_checkpoints([(job, weights[job.folder]) for job in left if job.folder in weights], slots),
        free=shutil.disk_usage(folder).free + freed,
        kept=kept,
        keeps_checkpoints=any(map(_kept, left)),
    )


class Bases:
    """The models that the jobs of a plan start from.

    Args:
        jobs: the plan.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._models = {job.folder: str(job.request.options.model) for job in jobs if job.kind == "finetune"}

    def teacher(self, job: Job) -> str:
        """Return the checkpoint of a job's teacher; of a teacher that is not trained yet, what it is fine-tuned from.

        Args:
            job: of the plan.
        """
        if job.kind == "finetune":
            return str(job.request.options.model)
        found = (self._models[need] for need in job.needs if need in self._models)
        return next(found, str(start_model(job.request.options)))

    def start(self, job: Job) -> tuple[str, int | None]:
        """Return the checkpoint that a job trains, and its number of blocks if it is not that of the checkpoint.

        Args:
            job: a fine-tuning or a distillation.
        """
        if job.kind == "finetune":
            return self.teacher(job), None
        options = job.request.options
        return str(options.student or self.teacher(job)), options.student_layers

    def parameters(self, job: Job) -> int | None:
        """Return the number of weights of the model that a job trains; None if it is not on this machine."""
        return _parameters(*self.start(job))

    def cache_bytes(self, job: Job) -> int | None:
        """Return the bytes of the cache that a teacher pass writes; None if models or rows are not on this machine."""
        checkpoint = find_local(self.teacher(job))
        rows = [count_rows(source) for source in job.request.options.train]
        if checkpoint is None or None in rows:
            return None
        total = sum(filter(None, rows))
        options, (blocks, width) = job.request.options, checkpoint.shape
        sizes = blocks, options.states_dim or width, checkpoint.config.num_labels
        return findings.cache_bytes(total, *sizes, options.pooling, options.dtype)


@cache
def find_local(model: str) -> Checkpoint | None:
    """Return a checkpoint that is a folder on this machine; None for a name on the hub.

    Args:
        model: a folder or a name on the hub.
    """
    return Checkpoint.find(model) if Path(model).is_dir() else None


@cache
def count_rows(source: str) -> int | None:
    """Return the number of rows of a source; None if it is not on this machine.

    Args:
        source: as in a grid.
    """
    parsed = Source.parse(source)
    return parsed.rows("train").num_rows if parsed.on_disk else None


@cache
def _parameters(model: str, layers: int | None) -> int | None:
    checkpoint = find_local(model)
    if checkpoint is None:
        return None
    config = checkpoint.new_config(**({"num_hidden_layers": layers} if layers else {}))
    return sum(weight.numel() for weight in empty_classifier(config, trusted=checkpoint.trusted).parameters())


def _students(left: Sequence[Job], weights: Mapping[str, int | None], kept: str) -> int | None:
    runs = [job for job in left if job.kind == "distill"]
    if kept == "none":
        return 0
    if kept == "best":  # one of the seeds of each student and arm
        chosen: dict[Any, Job] = {}
        for job in runs:
            chosen.setdefault((job.task, job.student, job.arm), job)
        runs = list(chosen.values())
    return _sum(_times(weights[job.folder], _WEIGHT) for job in runs)


def _checkpoints(runs: Sequence[tuple[Job, int | None]], slots: int) -> int | None:
    """Return the bytes of the checkpoints that runs keep, and of those that the largest running ones delete again."""
    lasting, passing = 0, []
    for job, count in runs:
        if count is None:
            return None
        one, kept = count * (_WEIGHT if job.request.training.get("save_only_model") else _CHECKPOINT), _kept(job)
        lasting += kept * one
        passing.append(one * (1 if kept else _CHECKPOINTS + 1))
    return lasting + sum(sorted(passing, reverse=True)[:slots])


def _kept(job: Job) -> int:
    """Return the most checkpoints that a run keeps when it ends."""
    training, options = job.request.training, job.request.options
    strategy = plain(training.get("save_strategy"))
    if job.kind not in ("finetune", "distill") or strategy == "no" or not keeps_checkpoints(training):
        return 0
    limit = int(training.get("save_total_limit") or _CHECKPOINTS)
    if options.eval or options.eval_share:
        limit = max(limit, 2)  # the best one, and the last
    if "save_steps" in training or strategy == "steps":
        return limit
    return min(limit, math.ceil(float(training.get("num_train_epochs", 3))))


def _times(count: int | None, factor: int) -> int | None:
    return None if count is None else count * factor


def _sum(values: Iterable[int | None]) -> int | None:
    """Return the sum, or None if one of the values is not known."""
    found = list(values)
    return None if None in found else sum(filter(None, found))
