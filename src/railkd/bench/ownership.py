"""Overwrites a bench: deletes the files in its folder that railkd wrote, and keeps all others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from railkd.bench.plan import Job
from railkd.bench.results import FAILURE, LOG
from railkd.errors import Problems, RailkdError
from railkd.jobs.paths import inputs_of
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.unmarked import written_without_mark
from railkd.records import RECORDS_FILE
from railkd.runtime.ownership import Ledger
from railkd.teacher import writer
from railkd.training.checkpoint_folders import own_files

#: The grid as it was, in the bench's folder.
GRID = "grid.yaml"
#: Where jobs have their folders.
_FOLDERS = [f"{room}/{depth}" for room in ("teachers", "caches", "runs") for depth in ("*", "*/*")]


def is_bench(output: Path) -> bool:
    """Return whether railkd wrote a bench into a folder.

    Args:
        output: any folder.

    Returns:
        True if it bears the mark, or holds a grid and records as railkd 0.1.0 left them.
    """
    return Ledger(output).exists() or bool(_written_without_mark(output))


def claim(output: Path, folders: Iterable[str], *, overwrite: bool) -> None:
    """Make a folder that of a bench, and put on its list what the bench will write there itself.

    Args:
        output: the folder.
        folders: of the jobs, relative to it.
        overwrite: delete what an earlier bench wrote.

    Raises:
        RailkdError: a file that railkd did not write stands where the bench will write.
    """
    ledger = Ledger(output)
    if not ledger.exists():
        ledger.add(*_written_without_mark(output))
    names = [GRID, RECORDS_FILE, *(f"{folder}/{name}" for folder in folders for name in (LOG, FAILURE))]
    for path in ledger.foreign(output / name for name in names)[:1]:
        raise RailkdError(
            f"--output: '{path}' was not written by railkd, and the bench would write there. Fix: move it elsewhere"
        )
    if overwrite:
        for folder in _job_folders(output):
            run = RunFolder(folder)
            for cache in filter(Path.is_dir, (run.path, run.cache)):
                writer.clear(cache)
            run.clear()
        ledger.remove()
    ledger.add(*names)


def count_overwritten(output: Path) -> int:
    """Return the bytes of the files that overwriting a bench deletes.

    Args:
        output: its folder, which need not exist.
    """
    found = {output / name for name in Ledger(output).names() | _written_without_mark(output)}
    for folder in _job_folders(output):
        run = RunFolder(folder)
        found |= {folder / name for name in run.ledger.names() | written_without_mark(folder)}
        found |= {checkpoint / name for checkpoint in run.checkpoints for name in own_files(checkpoint)}
        for cache in filter(Path.is_dir, (run.path, run.cache)):
            found |= writer.own_files(cache)
    return sum(path.stat().st_size for path in found if path.is_file() and not path.is_symlink())


def check_inputs(jobs: Sequence[Job], output: Path) -> None:
    """Refuse to overwrite a bench out of whose folder a job reads what no other job makes.

    `RailkdError` is raised then, and names the inputs.

    Args:
        jobs: the plan.
        output: the bench's folder.
    """
    problems, root = Problems(), output.resolve()
    for job in jobs:
        made = [root / need for need in job.needs]
        for place in inputs_of(job.request.options):
            if root in place.path.parents and not any(folder in place.path.parents for folder in made):
                problems.add(
                    f"{place.flag}: '{place.text}' lies inside --output, which --overwrite replaces. Fix: name another "
                    "--output"
                )
    problems.report()


def _job_folders(output: Path) -> list[Path]:
    return [path for pattern in _FOLDERS for path in output.glob(pattern) if path.is_dir()]


def _written_without_mark(output: Path) -> set[str]:
    """Return the files of a bench of railkd 0.1.0: its records say whether it is one."""
    records = output / RECORDS_FILE
    if records.is_symlink() or not records.is_file() or not (output / GRID).is_file():
        return set()
    try:
        lines = records.read_text(encoding="utf-8").splitlines()
        if not all(json.loads(line).keys() >= {"job", "seed", "schema"} for line in lines[:1]):
            return set()
    except (ValueError, AttributeError, RecursionError):
        return set()
    logs = (path for name in (LOG, FAILURE) for folder in _FOLDERS for path in output.glob(f"{folder}/{name}"))
    return {GRID, RECORDS_FILE, *(path.relative_to(output).as_posix() for path in logs)}
