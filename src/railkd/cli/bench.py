"""``railkd bench``: tasks x students x methods x seeds out of one file, resumable."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from railkd.bench import grid as grids
from railkd.bench.grid import Grid, Machine
from railkd.cli.verb import Verb
from railkd.cli.verbs import find_verb
from railkd.cli.words import assemble
from railkd.errors import RailkdError, RunFailed
from railkd.jobs.options import BenchOptions
from railkd.jobs.validation import Problems, check_target
from railkd.runtime.files import write_text


def check(options: BenchOptions, training: dict[str, Any]) -> None:
    """What needs no torch to be seen: the flags, and the grid file by itself."""
    problems = Problems()
    if options.list or options.copy:
        if options.copy and len(options.copy) > 2:
            problems.add(f"--copy: got {len(options.copy)} words, wanted the name of a grid, and perhaps a file")
        problems.report()
        return
    if options.grid is None:
        problems.add("got no grid file; wanted one, such as what 'railkd bench --copy smoke' writes")
    if options.output is None and not options.dry_run:
        problems.required(options, "output")
    elif options.output is not None:
        check_target(problems, Path(options.output))
    if options.resume and options.overwrite:
        problems.add("got --resume and --overwrite; wanted one of them: go on with the bench, or replace it")
    for name, least in (("processes", 1), ("threads", 1), ("retries", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            problems.add(f"--{name}: got {value}, wanted {least} or more")
    if options.grid is not None:
        with problems.collect():
            grids.load(options.grid)
    problems.report()


def run(options: BenchOptions, training: dict[str, Any]) -> None:
    """List, copy, describe, or run."""
    if options.list:
        _list()
    elif options.copy:
        _copy(*options.copy)
    else:
        _bench(options)


def _list() -> None:
    for name in grids.names():
        text = grids.text_of(name)
        about = text.split("\n", 1)[0].removeprefix("# ")
        print(f"{name}: {about}")
    print("\nrailkd bench --copy NAME writes one to NAME.yaml, to be edited and run")


def _copy(name: str, target: str | None = None) -> None:
    text, path = grids.text_of(name), Path(target or f"{name}.yaml")
    problems = Problems()
    check_target(problems, path, folder=False)
    problems.report()
    if path.exists():
        raise RailkdError(f"--copy: '{path}' exists already; name another file: --copy {name} FILE")
    write_text(path, text)
    print(f"{path}: run it with railkd bench {path} --output {name}/")


def _bench(options: BenchOptions) -> None:
    from railkd.bench import loop as bench
    from railkd.bench.display import Progress
    from railkd.bench.plan import jobs_of

    path = Path(str(options.grid))
    grid = grids.load(path)
    machine = _machine(grid, options)
    output = Path(options.output or "bench")
    jobs = jobs_of(grid, str(output), verbs())
    if options.dry_run:
        from rich.console import Console

        from railkd.bench.estimate import describe

        console = Console()
        # Into a pipe or file rich would fold the lines at 80 columns.
        console = console if console.is_terminal else Console(width=240)
        describe(grid, jobs, output, machine, console)
        return
    with bench.claimed(output, resume=options.resume, overwrite=options.overwrite):
        done, gone = bench.finished(jobs, str(output)), bench.forgotten(jobs, output)
        with Progress(grid.name, quiet=options.quiet) as progress:
            if gone:
                progress.note(f"no longer in the grid, left where they are: {', '.join(gone)}")
            executor = _executor(machine, str(output), options.address)
            try:
                records = bench.run(
                    jobs,
                    executor,
                    output,
                    done=done,
                    grid=path.read_text(encoding="utf-8"),
                    retries=machine.retries,
                    progress=progress,
                )
            finally:
                executor.close()
    closing(records, output)


def closing(records: Sequence[Any], output: Path) -> None:
    """The last lines: the best of each task, and what failed, which is raised."""
    from railkd.bench.display import best_so_far

    failed = [record for record in records if record.state == "failed"]
    for task in dict.fromkeys(record.task for record in records):
        best = best_so_far(records, task)
        if best:
            print(f"{task}: best {best}")
    print(
        f"{len(records) - len(failed)} of {len(records)} jobs finished; records: {output / 'records.jsonl'}; "
        f"railkd report {output} --html report.html makes a page of them"
    )
    if failed:
        folders = ", ".join(record.folder for record in failed[:5]) + (", ..." if len(failed) > 5 else "")
        raise RunFailed(
            f"{len(failed)} of {len(records)} jobs failed: {folders}; each says why in its failure.json and log.txt; "
            "--resume tries them again"
        )


def _machine(grid: Grid, options: BenchOptions) -> Machine:
    """The grid's, with what the flags say, and every number filled in."""
    names = ("executor", "processes", "threads", "retries")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    machine = dataclasses.replace(grid.machine, **given)
    if options.address is not None and machine.executor != "ray":
        raise RailkdError(f"--address {options.address}: is of a Ray cluster; give --executor ray too")
    processes = machine.processes or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return dataclasses.replace(machine, processes=processes, threads=machine.threads or max(1, cores // processes))


def _executor(machine: Machine, output: str, address: str | None) -> Any:
    assert machine.processes is not None and machine.threads is not None
    if machine.executor == "ray":
        from railkd.bench.ray import RayExecutor

        cpus = machine.processes * machine.threads
        return RayExecutor(output, threads=machine.threads, gpus=machine.gpus, address=address, cpus=cpus)
    from railkd.bench.local import LocalExecutor

    return LocalExecutor(output, processes=machine.processes, threads=machine.threads, gpus=machine.gpus)


def verbs() -> Any:
    """How settings are read and checked: as those of the verb that each kind of job is named for."""
    from railkd.bench.plan import OPTIONS, Verbs
    from railkd.jobs import distill
    from railkd.jobs.training_settings import resolve

    known: dict[str, Verb] = {kind: find_verb(kind) for kind in OPTIONS}

    def read(kind: str, layers: Any) -> tuple[Any, dict[str, Any]]:
        request = assemble(known[kind], layers)
        others = resolve(request.others, verb=kind, known=known[kind].settings())
        return request.options, request.training | others

    def checked(kind: str, options: Any, training: dict[str, Any]) -> None:
        # The folder is the bench's own affair: it may hold what an earlier bench has left.
        free = {"resume": True} if hasattr(options, "resume") else {}
        known[kind].check(dataclasses.replace(options, **free), training)
        if kind in ("finetune", "distill"):
            source = options.model if kind == "finetune" else options.teacher
            distill.check_settings(options, training, Path(source) if Path(source).is_dir() else None)

    return Verbs(read, checked)


VERB = Verb(
    name="bench",
    about="Compare methods over tasks, students and seeds, out of one grid file; each teacher is trained and run once.",
    example="railkd bench grid.yaml --output bench/",
    options=BenchOptions,
    check=check,
    run=run,
    positional="grid",
)
