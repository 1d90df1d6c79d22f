"""The options of a bench, which runs many jobs. See `railkd.jobs.options`."""

from __future__ import annotations

from dataclasses import dataclass

from railkd.jobs.options import TRUST_METHODS, option

Words = list[str]  # for classes with a field that is called list


@dataclass
class BenchOptions:
    """Options of ``railkd bench``: which grid to run, where to write, and on which machine."""

    grid: str | None = option("grid file: tasks, students, methods and seeds", metavar="GRID", required=True)
    output: str | None = option("folder of the bench", metavar="DIR", required="--dry-run")
    list: bool = option("list the grids that come with railkd", False, group="grids")
    copy: Words | None = option(
        "write a grid that comes with railkd to a file (default: NAME.yaml), and stop",
        metavar="NAME",
        group="grids",
    )
    dry_run: bool = option("print the number of runs, the size of the caches and the estimated time, and stop", False)
    rehearse: bool = option(
        "run every job of one seed small in a temporary folder, with tiny copies of the models and two steps, and stop",
        False,
    )
    resume: bool = option("continue the bench in the output folder; finished jobs are not repeated", False)
    overwrite: bool = option("replace the bench in the output folder", False)
    executor: str | None = option(
        "where the runs are executed (default: the grid's, or local)", choices=["local", "ray"], group="machine"
    )
    processes: int | None = option(
        "number of runs at the same time on this machine (default: the grid's, or 1)", metavar="N", group="machine"
    )
    threads: int | None = option(
        "threads of each run (default: the cores divided by --processes)", metavar="N", group="machine"
    )
    address: str | None = option(
        "Ray cluster to use (default: a new one on this machine)", metavar="HOST:PORT", group="machine"
    )
    retries: int | None = option(
        "how often a run is repeated after its process crashed (default: 2)", metavar="N", group="machine"
    )
    trust_methods: bool = option(TRUST_METHODS, False)
    quiet: bool = option("print the results only", False)
