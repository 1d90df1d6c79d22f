"""``railkd bench``: run the tasks x students x methods x seeds of one grid file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from railkd.bench import bundled_grids, grid_reader
from railkd.bench.grid import Grid, Machine
from railkd.cli.verb import Verb, print_results
from railkd.cli.verbs import find_verb
from railkd.cli.words import assemble, refuse_code
from railkd.errors import RailkdError, RunFailed
from railkd.jobs.bench_options import BenchOptions
from railkd.jobs.request import Request
from railkd.jobs.validation import Problems, check_at_least, check_target
from railkd.runtime.files import write_text
from railkd.runtime.words import counted


def check(request: Request[BenchOptions]) -> None:
    """Check the flags and the grid file, and raise all problems as one `RailkdError`.

    Args:
        request: flags of the command line.
    """
    options = request.options
    problems = Problems()
    if options.list or options.copy:
        if options.copy and len(options.copy) > 2:
            problems.add(f"--copy: expected the name of a grid, and perhaps a file, got {len(options.copy)} words")
        problems.report()
        return
    if options.grid is None:
        problems.add("no grid file is given. Fix: name one, such as the file that 'railkd bench --copy smoke' writes")
    if options.output is None and not (options.dry_run or options.rehearse):
        problems.require(options, "output")
    elif options.output is not None:
        check_target(problems, Path(options.output))
    if options.resume and options.overwrite:
        problems.add(
            "--resume and --overwrite exclude each other. Fix: --resume continues a bench, --overwrite replaces it"
        )
    check_at_least(problems, options, 1, "processes", "threads")
    check_at_least(problems, options, 0, "retries")
    if options.grid is not None:
        with problems.collect():
            grid = grid_reader.load(options.grid, trusted=options.trust_methods)
            for where, names in grid.named_code():
                refuse_code(names, f"{options.grid}: {where}", trusted=options.trust_methods)
    problems.report()


def run(request: Request[BenchOptions]) -> None:
    """List the bundled grids, copy one, print the estimate of a grid, or run it.

    Args:
        request: flags of the command line.
    """
    options = request.options
    if options.list:
        _list()
    elif options.copy:
        _copy(*options.copy)
    else:
        _bench(options)


def _list() -> None:
    for name in bundled_grids.list_grids():
        about = bundled_grids.read_grid(name).split("\n", 1)[0].removeprefix("# ")
        print(f"{name}: {about}")
    print("\nrailkd bench --copy NAME writes one of them to NAME.yaml, to be edited and run")


def _copy(name: str, target: str | None = None) -> None:
    text, path = bundled_grids.read_grid(name), Path(target or f"{name}.yaml")
    problems = Problems()
    check_target(problems, path, folder=False)
    problems.report()
    if path.exists():
        raise RailkdError(f"--copy: '{path}' exists already. Fix: name another file: --copy {name} FILE")
    write_text(path, text)
    print_results(f"{path}: run it with railkd bench {path} --output {name}/")


def _bench(options: BenchOptions) -> None:
    from railkd.bench.plan import make_jobs

    path = Path(str(options.grid))
    grid = grid_reader.load(path)
    machine = _machine(grid, options)
    output = Path(options.output or "bench")
    verbs = make_verbs()
    jobs = make_jobs(grid, str(output), verbs)
    if options.rehearse:
        _rehearse(grid, verbs, quiet=options.quiet)
    if options.dry_run or options.rehearse:
        from rich.console import Console

        from railkd.bench.estimate import print_estimate

        console = Console()
        # In a pipe or file rich would wrap the lines at 80 columns.
        console = console if console.is_terminal else Console(width=240)
        print_estimate(grid, jobs, output, machine, console, quiet=options.quiet)
        return
    print_end(_run_jobs(grid, jobs, output, machine, options), output)


def _rehearse(grid: Grid, verbs: Any, *, quiet: bool) -> None:
    from railkd.bench.rehearsal import describe, rehearse_grid

    found = rehearse_grid(grid, verbs, quiet=quiet)
    describe(found, len(grid.seeds), print_results)
    if found.failures:
        raise RunFailed("The rehearsal found jobs that would fail. Fix: correct what the lines above name")


def _run_jobs(grid: Grid, jobs: Sequence[Any], output: Path, machine: Machine, options: BenchOptions) -> list[Any]:
    from railkd.bench import loop
    from railkd.bench.contents import refuse_other_contents
    from railkd.bench.display import Progress
    from railkd.bench.method_files import copy_method_files, refuse_registered
    from railkd.bench.ownership import check_inputs, count_overwritten
    from railkd.bench.results import find_removed, read_finished
    from railkd.bench.sizes import compute_sizes

    refuse_registered(jobs)
    if options.overwrite:
        check_inputs(jobs, output)
    folders, slots = [job.folder for job in jobs], machine.processes or 1
    # Before the folder is made, and before an earlier bench is deleted.
    ended = read_finished(jobs, str(output)) if options.resume else {}
    freed = count_overwritten(output) if options.overwrite else 0
    compute_sizes(jobs, ended, output, grid.keep_students, slots, freed).check(output)
    with loop.lock_folder(output, resume=options.resume, overwrite=options.overwrite, folders=folders):
        done, removed = read_finished(jobs, str(output)), find_removed(jobs, output)
        if options.resume:
            refuse_other_contents(jobs, output, done)
        copy_method_files(jobs, output)
        with Progress(grid.name, quiet=options.quiet) as progress:
            if removed:
                progress.note(f"finished runs that are no longer in the grid, kept: {', '.join(removed)}")
            executor = _executor(machine, str(output), options.address)
            try:
                return loop.run(
                    jobs,
                    executor,
                    output,
                    done=done,
                    grid=Path(str(options.grid)).read_text(encoding="utf-8"),
                    retries=machine.retries,
                    progress=progress,
                    kept=grid.keep_students,
                )
            finally:
                executor.close()


def print_end(records: Sequence[Any], output: Path) -> None:
    """Print the best student and arm of each task and where the records are.

    Args:
        records: of all jobs.
        output: the bench's folder.

    Raises:
        RunFailed: some jobs failed.
    """
    from railkd.bench.display import describe_best
    from railkd.bench.results import NOT_RUN

    unfinished = [record for record in records if record.state == "failed"]
    failed = [record for record in unfinished if not record.error.startswith(NOT_RUN)]
    left_out = len(unfinished) - len(failed)
    for task in dict.fromkeys(record.task for record in records):
        best = describe_best(records, task)
        if best:
            print_results(f"{task}: best {best}")
    print_results(
        f"{len(records) - len(unfinished)} of {len(records)} jobs finished; records: {output / 'records.jsonl'}; "
        f"railkd report {output} --html report.html makes a page of them"
    )
    if left_out and not failed:
        raise RunFailed(
            f"{left_out} of {len(records)} jobs were left out, because their teachers are weak. Fix: see the lines "
            "above; --resume runs them when the teacher is better or the guard is open"
        )
    if failed:
        folders = ", ".join(record.folder for record in failed[:5]) + (", ..." if len(failed) > 5 else "")
        more = f"{counted(left_out, 'more job')} {'was' if left_out == 1 else 'were'} left out. " if left_out else ""
        raise RunFailed(
            f"{len(failed)} of {len(records)} jobs failed: {folders}. {more}The reasons are in failure.json and "
            "log.txt of each folder. Fix: --resume runs them again"
        )


def _machine(grid: Grid, options: BenchOptions) -> Machine:
    # The machine of the grid, with the flags applied and the numbers filled in.
    names = ("executor", "processes", "threads", "retries")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    machine = dataclasses.replace(grid.machine, **given)
    if options.address is not None and machine.executor != "ray":
        raise RailkdError(f"--address {options.address}: names a Ray cluster. Fix: give --executor ray too")
    processes = machine.processes or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return dataclasses.replace(machine, processes=processes, threads=machine.threads or max(1, cores // processes))


def _executor(machine: Machine, output: str, address: str | None) -> Any:
    assert machine.processes is not None and machine.threads is not None
    if machine.executor == "ray":
        from railkd.bench.executors.ray import RayExecutor

        cpus = machine.processes * machine.threads
        return RayExecutor(output, threads=machine.threads, gpus=machine.gpus, address=address, cpus=cpus)
    from railkd.bench.executors.local import LocalExecutor

    return LocalExecutor(output, processes=machine.processes, threads=machine.threads, gpus=machine.gpus)


def make_verbs() -> Any:
    """Return how the settings of jobs are read and checked: by the verb of the same name as the kind of job."""
    from railkd.bench.plan import OPTIONS, Verbs
    from railkd.jobs import distill
    from railkd.models.checkpoints import Checkpoint
    from railkd.models.named_teachers import start_model
    from railkd.signals import NO_POOLING
    from railkd.teacher.components import check_dim

    known: dict[str, Verb] = {kind: find_verb(kind) for kind in OPTIONS}

    def read(kind: str, layers: Any) -> Request[Any]:
        return assemble(known[kind], layers).complete(known[kind])

    checkpoints: dict[str, Checkpoint] = {}
    passed: set[str] = set()

    def find(source: str | None) -> Checkpoint | None:
        if source and source not in checkpoints and Path(source).is_dir():
            checkpoints[source] = Checkpoint.find(source)
        return checkpoints.get(source or "")

    def check_settings(request: Request[Any], source: str | None) -> None:
        """Check settings and models once for all tasks of a kind and all seeds: no row decides about them."""
        options = request.options
        models = [source, getattr(options, "student", None), getattr(options, "student_layers", None)]
        key = repr([type(options), models, bool(options.eval or options.eval_share), sorted(request.training.items())])
        if key not in passed:
            distill.check_settings(request, find(source))
            passed.add(key)

    def check_job(kind: str, request: Request[Any]) -> None:
        options = request.options
        # As if resuming: the folders of jobs may hold files of an earlier run of this bench.
        resumed = {"resume": True} if hasattr(options, "resume") else {}
        known[kind].check(request.with_options(**resumed))
        if kind in ("finetune", "distill"):
            check_settings(request, options.model if kind == "finetune" else start_model(options))
        if kind == "cache" and (teacher := find(options.teacher)) is not None:
            poolings = [name for name in options.pooling or [] if name != NO_POOLING]
            check_dim(options.states_dim, teacher.shape.width, poolings)

    return Verbs(read, check_job)


_ABOUT = "Compare methods over the tasks, students and seeds of a grid file. Each teacher is trained and run once."
VERB = Verb("bench", _ABOUT, "railkd bench grid.yaml --output bench/", BenchOptions, run, check, "grid")
