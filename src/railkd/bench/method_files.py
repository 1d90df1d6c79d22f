"""Copies the files of methods and metrics into the bench's folder, so that all runs of a bench use the same code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from railkd.bench.plan import Job
from railkd.errors import RailkdError
from railkd.objectives.outside import is_registered
from railkd.runtime.addresses import copy_name, file_of
from railkd.runtime.files import write_bytes
from railkd.runtime.ownership import Ledger

#: The folder of the copies, in the bench's folder. `railkd.runtime.addresses.copies` reads it.
FOLDER = "methods"


def copy_method_files(jobs: Sequence[Job], output: Path) -> None:
    """Copy each file that a method or metric of the plan is read from.

    Args:
        jobs: the plan.
        output: the bench's folder.

    Raises:
        RailkdError: something that railkd did not write stands in the place of a copy.
    """
    ledger = Ledger(output)
    names = {job.request.training.get("method") for job in jobs}
    names |= {name for job in jobs for name in getattr(job.request.options, "metrics", ())}
    files = {file for name in names if (file := file_of(name))}
    for file in sorted(files):
        target = output / FOLDER / copy_name(file)
        for path in ledger.foreign([target]):
            raise RailkdError(
                f"--output: '{path}' was not written by railkd, and a copy of '{file}' belongs there. Fix: move it "
                "elsewhere"
            )
        ledger.add(target.relative_to(output).as_posix())
        target.parent.mkdir(exist_ok=True)
        write_bytes(target, file.read_bytes())


def refuse_registered(jobs: Sequence[Job]) -> None:
    """Refuse methods that the processes of the runs would not find.

    Args:
        jobs: the plan.

    Raises:
        RailkdError: a method is registered in this process alone.
    """
    for job in jobs:
        method = str(job.request.training.get("method"))
        if is_registered(method):
            raise RailkdError(
                f"the method '{method}' is registered in this process alone, but the runs of a bench are processes of "
                "their own. Fix: name its class by an address, PACKAGE.MODULE:CLASS"
            )
