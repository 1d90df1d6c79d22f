"""Compares a job with one that has begun: what it reads by digests, its settings, and places by where they lead.

The name of a file or folder does not matter if its content is known to be equal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from railkd.data.shares import split_share
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.jobs.settings import NEVER_WRITTEN
from railkd.models.named_teachers import PART, named_teachers
from railkd.runtime import typed
from railkd.runtime.words import counted, listed
from railkd.training.fields import switched

#: Settings that change nothing of what a job computes or keeps: guards, verbosity, progress, and where files lie.
UNSEEN = frozenset(
    {
        "output",
        "cache",
        "allow_weak_teacher",
        "keep_freed_memory",
        "log_on_each_node",
        "states_on_device",
        "disable_tqdm",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_persistent_workers",
        "dataloader_prefetch_factor",
        "log_level",
        "log_level_replica",
        "logging_nan_inf_filter",
        "report_to",
        "run_name",
    }
)
#: Settings that change nothing of what training computes: a resumed run may have others, but see `_free_on_resume`.
FREE_ON_RESUME = UNSEEN | {
    "test",
    "ood",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "keep_predictions",
}
_ROWS = ("train", "eval", "unlabelled")
#: Starts the name of a test set among contents, and that of the texts alone of a labelled part.
_TEST, TEXTS = "test ", "texts "
_MODELS = ("model", "teacher", "teacher_labels", "student")
#: Setting -> field of the teachers that it names; see `railkd.models.named_teachers.NamedTeacher`.
_TEACHERS = {"teacher": "model", "teacher_labels": "labels"}


def changed_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str], equal: Collection[str] = ()
) -> list[str]:
    """List the settings in which a job differs from the one that has begun.

    Args:
        before: settings of the job that has begun, by short name.
        now: the settings to compare.
        free: settings that may differ, beside those that are not part of a run.
        equal: parts with equal contents, as `equal_contents` returns them, or whose contents are compared elsewhere.

    Returns:
        A text such as ``epochs was 1, is 3`` for each setting.
    """
    seen = {*free, *NEVER_WRITTEN}
    if len(named_teachers(before)) != len(named_teachers(now)):  # a further cache is a teacher
        seen -= {"cache"}
    return [
        f"{name} was {before.get(name, 'not given')}, is {now.get(name, 'not given')}"
        for name in sorted(before.keys() | now.keys())
        if name not in seen and not _same(name, before, now, equal)
    ]


@dataclass(frozen=True)
class Noted:
    """The start of a run, as its folder notes it. A run of railkd 0.1.0 noted nothing.

    Attributes:
        contents: part -> digest of what the run read.
        threads: of its process; None: not known.
    """

    contents: dict[str, str] = field(default_factory=dict)
    threads: int | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any], where: str) -> Noted:
        """Check the facts that a run folder notes.

        Args:
            facts: as they were read.
            where: their file, for messages.

        Returns:
            The facts.

        Raises:
            RailkdError: they are not as railkd writes them.
        """
        try:
            return cast(Noted, typed.from_json(cls, json.dumps(dict(facts))))
        except ValueError as error:
            raise RailkdError(
                f"'{where}' is damaged ({error}). Fix: restore it, or start anew with --overwrite"
            ) from None


@dataclass(frozen=True)
class Beginning:
    """How a run began, or is about to go on.

    Attributes:
        settings: by short name.
        contents: part -> digest of what it reads; empty if they are not known.
        threads: of its process.
    """

    settings: Mapping[str, Any]
    contents: Mapping[str, str]
    threads: int

    def compare(self, now: Beginning, who: str) -> list[str]:
        """Refuse to go on otherwise than the run began.

        Args:
            now: how it is about to go on.
            who: the run in words.

        Returns:
            Lines for the user on what may differ.

        Raises:
            RailkdError: other settings, rows or models. Test sets may be others: they are scored at the end.
        """
        trained_on = {part: digest for part, digest in now.contents.items() if not is_test(part)}
        if changed := changed_contents(self.contents, trained_on, now.settings):
            raise RailkdError(
                f"{who} began with other contents of {listed(changed)}. Fix: restore them, or start anew with "
                "--overwrite"
            )
        equal = equal_contents(self.contents, now.contents)
        if other := changed_settings(self.settings, now.settings, _free_on_resume(now.settings), equal):
            raise RailkdError(
                f"{who} was started with other settings: {'; '.join(other)}; resume with those, or start anew with "
                "--overwrite"
            )
        if self.threads == now.threads:
            return []
        return [
            f"the run began with {counted(self.threads, 'thread')} and goes on with {now.threads}, so the last digits "
            "of its weights may differ from those of a run without a break"
        ]


def equal_contents(before: Mapping[str, str], now: Mapping[str, str]) -> set[str]:
    """Return the parts whose digests are known and equal.

    Args:
        before: part -> digest, such as the contents of a record.
        now: the same of the job to compare.
    """
    return {part for part in before.keys() & now.keys() if before[part] == now[part]}


def changed_contents(before: Mapping[str, str], now: Mapping[str, str], config: Mapping[str, Any]) -> list[str]:
    """List what has another content than when a job began.

    Args:
        before: part -> digest. What is not in both has nothing to be compared with.
        now: the same of the job to compare.
        config: its settings, which name the files.

    Returns:
        A text such as ``--train 'train.tsv'`` for each part.
    """
    labelled = [part for part in now if not part.startswith(TEXTS)]  # their digests are of the texts as well
    parts = [part for part in labelled if part in before and before[part] != now[part]]
    words = {part: f"the test set '{part.removeprefix(_TEST)}'" for part in parts if is_test(part)}
    words |= {part: f"--{part} {listed(map(repr, _texts(config[part])))}" for part in parts if config.get(part)}
    words |= {f"{PART}{n}": f"the teacher '{one.name}'" for n, one in enumerate(named_teachers(config), 1)}
    return [words.get(part, f"the {part}") for part in parts]


def is_test(part: str) -> bool:
    """Return whether a part of the contents is a test set."""
    return part.startswith(_TEST)


def _free_on_resume(settings: Mapping[str, Any]) -> frozenset[str]:
    """Return the settings that may change when a run goes on.

    With rows that choose the epoch a run evaluates when it saves, so the interval decides which weights are compared,
    and when --patience stops. Where a strategy is given, the interval of the logs may be that of evaluations.
    """
    if not settings.keys() & {"eval", "eval_share"}:
        return FREE_ON_RESUME
    strategy = settings.keys() & {"save_strategy", "eval_strategy"}
    return FREE_ON_RESUME - {"save_steps"} - ({"logging_steps"} if strategy else set())


def _same(name: str, before: Mapping[str, Any], now: Mapping[str, Any], equal: Collection[str]) -> bool:
    one, two = before.get(name), now.get(name)
    if switched(name, one) == switched(name, two):
        return True
    if not (_texts(one) and _texts(two)):
        return False
    if name in ("test", "ood"):
        first, second = ([Source.parse_named(text) for text in _texts(value)] for value in (one, two))
        return len(first) == len(second) and all(
            source.name == other.name and _same_rows(source, other, f"{_TEST}{source.name}" in equal)
            for source, other in zip(first, second, strict=True)
        )
    if name in _ROWS:
        shared = [[_shared(text, name) for text in _texts(value)] for value in (one, two)]
        return len(shared[0]) == len(shared[1]) and all(
            share == asked and _same_rows(source, other, name in equal)
            for (source, share), (other, asked) in zip(*shared, strict=True)
        )
    if name == "states_from":
        return _states_number(before) == _states_number(now)
    parts = _parts(name, before)
    return (
        name in _MODELS
        and parts == _parts(name, now)
        and all(
            part in equal or os.path.realpath(a) == os.path.realpath(b)
            for part, a, b in zip(parts, _texts(one), _texts(two), strict=True)
        )
    )


def _parts(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the names among the contents of a record of what a setting names, one for each of its texts."""
    if kind := _TEACHERS.get(name):
        named = named_teachers(settings)
        parts = [f"{PART}{number}" if named[1:] else PART.strip() for number in range(1, len(named) + 1)]
        return [part for part, one in zip(parts, named, strict=True) if getattr(one, kind)]
    count = len(_texts(settings.get(name)))
    return [name] if count == 1 else [f"{name} {number}" for number in range(1, count + 1)]


def _states_number(settings: Mapping[str, Any]) -> str:
    """Return the number, from 1, of the teacher that gives the states, however the settings name it."""
    asked, names = settings["states_from"], [teacher.name for teacher in named_teachers(settings)]
    return str(names.index(asked) + 1) if asked in names else asked


def _shared(text: str, name: str) -> tuple[Source, float | None]:
    file, share = split_share(text) if name == "unlabelled" else (text, None)
    return Source.parse(file), share


def _texts(value: Any) -> list[str]:
    """Return the texts of a setting that names sources, one or several; empty if it holds anything else."""
    texts = value if isinstance(value, list) else [value]
    return texts if all(isinstance(text, str) and text for text in texts) else []


def _same_rows(one: Source, two: Source, equal: bool) -> bool:
    # A data set that railkd knows by its name brings metrics of its own.
    return _place(one) == _place(two) or (equal and one.row == two.row)


def _place(source: Source) -> tuple[str | None, ...]:
    base = os.path.realpath(source.base) if source.on_disk else source.base
    return base, source.cut, source.revision, *source.hints
