"""Refuses rows that a model has seen, where something is fitted on rows that chose nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from railkd.data.reader import Table
from railkd.errors import RailkdError
from railkd.jobs.contents import TEXTS, is_test
from railkd.jobs.run_folder import RunFolder
from railkd.records import RunRecord
from railkd.training.checkpoint_folders import checkpoints_in

#: Part of the contents of a run -> what its rows did.
_DID = {"train": "trained the model", "unlabelled": "trained the model", "eval": "chose its epoch"}


def check_held_out(model: str, table: Table, flag: str) -> str:
    """Refuse rows that the run of a model trained on, or chose its epoch by.

    Args:
        model: as the user named it.
        table: the rows, as they were read.
        flag: that named them, for the message.

    Returns:
        A line for the user: which run the rows were compared with, or that none is known.

    Raises:
        RailkdError: the rows are those of the run, by their digest or by that of their texts.
    """
    contents, where = _run_of(Path(model))
    if contents is None:
        return (
            f"{flag}: no run is known of '{model}', so it is not known which rows trained it; these rows must not be "
            "among them"
        )
    rows = {table.digest, table.texts_digest}
    parts = [part.removeprefix(TEXTS) for part, digest in contents.items() if digest in rows]
    for part in (name.partition(" ")[0] for name in parts):  # "train 2" is the second of several files
        if part in _DID:
            raise RailkdError(
                f"{flag}: expected rows that chose nothing else, but '{table.source.text}' holds the rows that "
                f"{_DID[part]} (--{part} of '{where}'). Fix: give other rows."
            )
    tests = [part.removeprefix("test ") for part in parts if is_test(part)]
    if TEXTS + "train" not in contents and (table.cells is None or "train" not in contents):
        return (
            f"{flag}: the run in '{where}' is of an earlier railkd and kept no digest of texts alone, so these rows "
            "cannot be compared with those that trained the model; they must not be among them"
        )
    if tests:
        return (
            f"{flag}: these rows are the test set '{tests[0]}' of '{where}'; do not report scores on them for what is "
            "fitted here"
        )
    return f"{flag}: the run in '{where}' used other sets for training and for choosing its epoch"


def _run_of(path: Path) -> tuple[Mapping[str, str] | None, Path]:
    """Return what the run that made a model read, part -> digest, with its folder; None: no run is known.

    A checkpoint belongs to its run, and an exported model leads to its origin.
    """
    for _ in range(3):  # an export of an export; no more, so that no circle is followed
        for folder in (path, *list(path.absolute().parents)[:1]):
            run = RunFolder(folder)
            made = [run.path, *map(run.model, RunFolder.MODELS), *checkpoints_in(run.path)]
            if path.absolute() in [place.absolute() for place in made] and run.is_run():
                if run.record.is_file():
                    return RunRecord.read(run.record).contents, run.path
                if begun := run.contents():  # the record is written last, so a run that has not ended has none
                    return begun, run.path
        origin = _origin(path)
        if origin is None:
            break
        path = origin
    return None, path


def _origin(path: Path) -> Path | None:
    """Return what a shipped folder, or a file in it, was exported from."""
    for folder in (path, *list(path.absolute().parents)[:2]):
        try:
            origin = json.loads((folder / "export.json").read_bytes())["config"]["model"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return Path(origin) if isinstance(origin, str) else None
    return None
