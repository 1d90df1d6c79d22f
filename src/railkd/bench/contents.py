"""Refuses to resume a bench whose rows or models have changed since its jobs began."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from railkd.bench.plan import Job
from railkd.data.reader import Table
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.jobs.answers import read_teacher_labels
from railkd.jobs.contents import changed_contents
from railkd.jobs.options import CacheOptions, DistillOptions, FinetuneOptions
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.splits import Sources, TableReader
from railkd.jobs.trained import Trained
from railkd.models.checkpoints import Checkpoint
from railkd.models.named_teachers import PART, NamedTeacher, as_list, named_teachers, start_model
from railkd.objectives import method_spec
from railkd.records import RunRecord
from railkd.runtime.words import listed
from railkd.tasks.own_metrics import load_own
from railkd.teacher.identity import content_of, digest_of

#: Parts that are models, the one that rows are read for first.
_MODELS = ("model", "teacher", "student")

#: Options that decide how `read_teacher_labels` reads a file.
_OF_ANSWERS = (
    *("student", "labels", "label_smoothing", "problem_type", "trust_remote_code"),
    *("text_column", "label_column", "label_map"),
)


def refuse_other_contents(jobs: Sequence[Job], output: Path, done: Mapping[str, RunRecord]) -> None:
    """Compare what the jobs read with what they read when they began. Each file and model is read once.

    Args:
        jobs: the plan.
        output: the bench's folder.
        done: records of the finished jobs, by folder.

    Raises:
        RailkdError: names what changed, and the jobs.
    """
    reader, changed = _Reader(output), dict[str, list[str]]()
    for job in jobs:
        before = done[job.folder].contents if job.folder in done else RunFolder(output / job.folder).contents()
        if before:
            for what in changed_contents(before, reader.contents(job.request, before), job.config):
                changed.setdefault(what, []).append(job.folder)
    if changed:
        folders = list(dict.fromkeys(folder for found in changed.values() for folder in found))
        raise RailkdError(
            f"{listed(changed, 5)} changed since {listed(map(repr, folders), 3)} began. Fix: restore the old contents, "
            "remove the folders of these jobs, or use another --output"
        )


class _Reader:
    """Reads what jobs read, each file and model once.

    Args:
        output: the bench's folder. A model in it that does not exist yet is left out, with the rows of its jobs.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._models: dict[str, Checkpoint] = {}
        self._known: dict[Any, str] = {}

    def contents(self, request: Request[Any], parts: Mapping[str, str]) -> dict[str, str]:
        """Return part -> digest, as `RunRecord.contents` has them.

        Args:
            request: settings of the job.
            parts: those to read.
        """
        options = request.options
        found, complete = self._models_of(options, parts)
        if "method" in parts:
            found["method"] = method_spec(request.training["method"]).digest
        own = {f"metrics {one.address}": one.digest for one in load_own(getattr(options, "metrics", ()))}
        found |= {part: digest for part, digest in own.items() if part in parts}
        if isinstance(options, CacheOptions) or not complete:  # a cache of a teacher pass takes other rows too
            return found
        start = getattr(options, "model", None) or start_model(options) or getattr(options, "student", None)
        source = self._models.get(as_list(start)[0]) if start else None
        trained, sources = Trained.of(source.config if source else None), Sources.parse(options)
        reader = TableReader(options, lambda line: None, trained, strict=not isinstance(options, FinetuneOptions))
        rows: dict[str, tuple[str, Callable[[], Table]]] = {
            "train": (_names(sources.train), lambda: reader.read_train(sources.train)),
            "unlabelled": (
                _names(source for source, _ in sources.unlabelled),
                lambda: reader.read_unlabelled(sources.unlabelled)[0],
            ),
        }
        tests = {f"test {name}": (source, source.scored_split) for name, source in sources.tests.items()}
        for part, (given, split) in ({"eval": (sources.eval, "dev")} | tests).items():
            if given is not None:
                rows[part] = f"{given.text} {split}", partial(reader.read, given, split=split)
        asked = json.dumps([options.text_column, options.label_column, options.label_map, trained.text_columns])
        for part, (name, read) in rows.items():
            if name and part in parts:
                key = name, part == "unlabelled", asked, type(options)
                if key not in self._known:
                    self._known[key] = read().digest
                found[part] = self._known[key]
        return found

    def _models_of(self, options: Any, parts: Mapping[str, str]) -> tuple[dict[str, str], bool]:
        """Return part -> digest of the models and the files of answers, and whether all models exist."""
        teachers = _teachers_of(options)
        models = {part: as_list(getattr(options, part, None)) for part in _MODELS if part in parts}
        models |= {part: as_list(one.model) for part, one in teachers.items() if part in parts}
        models = {part: names for part, names in models.items() if names}
        there = {part: names for part, names in models.items() if all(self._exists(Path(name)) for name in names)}
        digests = {p: [self._model(n, options.trust_remote_code) for n in names] for p, names in there.items()}
        found = {part: several[0] if len(several) == 1 else digest_of(several) for part, several in digests.items()}
        for part, one in teachers.items():
            if one.labels and part in parts:
                first = next(iter(teachers.values())).model
                kind = self._models[first].task.name if first in self._models else None
                found[part] = self._labels(options, one.labels, kind)
        return found, there == models

    def _exists(self, model: Path) -> bool:
        return model.exists() or self._output not in model.parents

    def _labels(self, options: Any, file: str, kind: str | None) -> str:
        key = file, kind, json.dumps([getattr(options, name) for name in _OF_ANSWERS])
        if key not in self._known:
            self._known[key] = read_teacher_labels(options, file, kind).identity.content()
        return self._known[key]

    def _model(self, name: str, trust: bool) -> str:
        if name not in self._models:
            self._models[name] = Checkpoint.find(name, trust=trust)
            self._known[name] = content_of(self._models[name])
        return self._known[name]


def _names(sources: Iterable[Source]) -> str:
    return " + ".join(source.text for source in sources)


def _teachers_of(options: Any) -> dict[str, NamedTeacher]:
    """Return the teachers of a distillation by their parts of the contents; empty for other jobs."""
    if not isinstance(options, DistillOptions):
        return {}
    teachers = named_teachers(options)
    if len(teachers) == 1:
        return {PART.strip(): teachers[0]}
    return {f"{PART}{number}": teacher for number, teacher in enumerate(teachers, 1)}
