"""The inputs and outputs of a job, compared before it starts.

No output is an input, no two outputs are one, and no input lies in what is replaced. Links are followed first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from railkd.data.shares import split_share
from railkd.data.sources import Source
from railkd.errors import Problems
from railkd.training.checkpoint_folders import MODEL_FILE


@dataclass(frozen=True)
class Place:
    """A path that a job reads or writes.

    Attributes:
        flag: that named it.
        text: as written.
        path: resolved.
        reads: whether a file of this name is read, where the path is a folder.
    """

    flag: str
    text: str
    path: Path
    reads: Callable[[str], bool] = lambda name: True

    @classmethod
    def of(cls, flag: str, text: str, reads: Callable[[str], bool] = lambda name: True) -> Place:
        """Return the place that a flag names.

        Args:
            flag: of the command line.
            text: its value, a path.
            reads: see `Place`.

        Returns:
            The place, with links followed.
        """
        return cls(flag, text, Path(text).resolve(), reads)


def _reads_model(name: str) -> bool:
    return bool(MODEL_FILE.fullmatch(name) or re.search(r"\.(safetensors|bin|py|model)$", name))


def _reads_table(name: str) -> bool:
    return bool(re.search(r"\.(csv|tsv|jsonl|ndjson|json|parquet|arrow|feather|zip)(\.(gz|bz2|xz|zst|zip))?$", name))


def _reads_records(name: str) -> bool:
    return bool(re.search(r"\.(json|jsonl|yaml|tsv|safetensors|bin|txt)$", name))


_MODELS = ("model", "against", "teacher", "student", "defer_to")
_TABLES = ("train", "eval", "unlabelled", "teacher_labels", "from_labels", "test", "ood", "held_out")


def inputs_of(options: Any) -> list[Place]:
    """Return what a job reads, as far as it is on this machine.

    Args:
        options: of any job.

    Returns:
        Models, tables and folders of records. A cache is not among them, since it may be written.
    """
    models = ((f"--{name.replace('_', '-')}", text) for name in _MODELS for text in _texts(options, name))
    found = [Place.of(flag, text, _reads_model) for flag, text in models]
    found += [Place.of("--thresholds", text, "thresholds.json".__eq__) for text in _texts(options, "thresholds")]
    for name in _TABLES:
        for text in _texts(options, name):
            file = split_share(text)[0] if name == "unlabelled" else text
            source = Source.parse_named(file) if name in ("test", "ood") else Source.parse(file)
            flag = f"--{name.replace('_', '-')}"
            found += [Place.of(flag, part.base, _reads_table) for part in source.parts or (source,)]
    found += [Place.of("FOLDER", text, _reads_records) for text in _texts(options, "folders")]
    return [place for place in found if place.path.exists()]


def compare(
    problems: Problems,
    options: Any,
    outputs: Mapping[str, str],
    replaced: Iterable[Path] = (),
    kept: Iterable[str] = (),
) -> None:
    """Compare the inputs and outputs of a job.

    Args:
        problems: collects what is wrong.
        options: of the job; they name its inputs.
        outputs: flag -> file or folder that it writes. What is replaced belongs to the first.
        replaced: files and folders that it deletes or replaces, with all that is in them.
        kept: flags of outputs that must not lie in what is replaced either.
    """
    with problems.collect():
        inputs = inputs_of(options)
        places = [Place.of(flag, text) for flag, text in outputs.items()]
        for number, one in enumerate(places):
            _compare_output(problems, one, places[:number], inputs)
        held = [*inputs, *(place for place in places if place.flag in kept)]
        gone = [path.resolve() for path in replaced if os.path.lexists(path)]
        for given in held:
            if any(place in (given.path, *given.path.parents) for place in gone):
                problems.add(
                    f"{given.flag}: '{given.text}' lies inside {places[0].flag}, where it would be replaced. Fix: name "
                    f"another {places[0].flag}"
                )


def _compare_output(problems: Problems, one: Place, others: Iterable[Place], inputs: Iterable[Place]) -> None:
    for two in others:
        if one.path == two.path:
            problems.add(f"{two.flag} and {one.flag} name one path, '{one.text}'. Fix: name two")
    for given in inputs:
        inside = given.path in one.path.parents and one.path.is_file() and given.reads(one.path.name)
        if one.path == given.path or inside:
            problems.add(f"{one.flag}: '{one.text}' is read by {given.flag}. Fix: name another {one.flag}")


def _texts(options: Any, name: str) -> list[str]:
    value = getattr(options, name, None)
    return list(value) if isinstance(value, list) else [value] if value else []
