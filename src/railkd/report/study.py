"""Read folders of runs into a `Study`: the records, their names, and the contrasts named before the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from railkd.errors import RailkdError
from railkd.records import RECORD_FILE, RECORDS_FILE, TEACHER_PART, Question, RunRecord, read_lines
from railkd.report.shipped import Found, find_certificates, find_exports
from railkd.runtime.words import listed, shortened
from railkd.runtime.yaml_text import read_yaml

GRID = "grid.yaml"
#: The first arms of a table; the others follow by name.
_FIRST = ("finetune", "kd")
#: Settings that are not part of an arm's name: runs of one arm may differ in them.
_NOT_IN_ARM = {
    "seed",
    "output",
    "push_to_hub",
    "train",
    "eval",
    "test",
    "ood",
    "teacher",
    "student",
    "student_layers",
    "cache",
    "method",
}


@dataclass(frozen=True)
class Run:
    """A record with its run folder.

    Attributes:
        record: the record.
        folder: the run folder; paths of predictions are relative to it.
    """

    record: RunRecord
    folder: Path

    @property
    def key(self) -> tuple[str, str, str, int]:
        """(task, student, arm, seed), which identify a run of a study."""
        return self.record.task, self.record.student, self.record.arm, self.record.seed


def serves(job: Run, student: str) -> bool:
    """Return True if a teacher or teacher pass serves a student.

    Args:
        job: a teacher, or a teacher pass. Its record names the students that it serves; no name means all.
        student: name of the student.

    Returns:
        True or False.
    """
    return not job.record.student or student in job.record.student.split(", ")


def students_suffix(job: Run) -> str:
    """Return the suffix that names the students of a teacher or teacher pass, e.g. " of 3-layers, third".

    Args:
        job: a teacher, or a teacher pass.

    Returns:
        The suffix; empty if the job serves all students.
    """
    return f" of {job.record.student}" if job.record.student else ""


def teacher_arm(run: Run) -> str:
    """Return a teacher's name in the tables, e.g. "teacher", or "teacher of 3-layers" if a task has several.

    One of the teachers whose mean is the teacher has its own name, as in "teacher, base-seed-1".

    Args:
        run: the run of the teacher.

    Returns:
        The name.
    """
    arm = run.record.arm if run.record.arm.startswith(TEACHER_PART) else "teacher"
    return arm + students_suffix(run)


@dataclass(frozen=True)
class Study:
    """The input of a report.

    Attributes:
        name: title of the report.
        students: finished distillation runs, those of the arm finetune included.
        teachers: finished fine-tuning jobs, and the scores of teachers that existed before.
        caches: finished teacher passes.
        failed: failed runs of any kind that no later run replaced.
        baseline: the arm that the others are compared with.
        questions: the contrasts named before the run.
        notes: remarks on how the records were read.
        exports: records of exports in the folders.
        certificates: files of evidence in the folders and beside the exports.
    """

    name: str
    students: list[Run]
    teachers: list[Run]
    caches: list[Run]
    failed: list[Run]
    baseline: str
    questions: list[Question]
    notes: list[str] = field(default_factory=list)
    exports: Found = field(default_factory=list)
    certificates: Found = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """Every finished run."""
        return [*self.teachers, *self.caches, *self.students]


def read(folders: Sequence[str | Path], baseline: str | None = None) -> Study:
    """Read every record of the folders.

    A folder without records, a record or grid that cannot be read, and an unknown baseline raise `RailkdError`.

    Args:
        folders: output folders of ``railkd bench``, or folders that contain run folders.
        baseline: the arm that the others are compared with. Default: the baseline of the grid, else kd, else
            finetune, else the first arm.

    Returns:
        The study.
    """
    runs: list[Run] = []
    grids: list[dict[str, Any]] = []
    exports = find_exports(map(Path, folders))
    certificates = find_certificates(map(Path, folders), exports)
    for folder in map(Path, folders):
        ships = any(file.is_relative_to(folder) for file, _ in (*exports, *certificates))
        runs += _read_folder(folder, required=not ships)
        grids += [_read_grid(folder / GRID)] if (folder / GRID).is_file() else []
    latest, notes = _drop_repeats([run for run in runs if run.record.state == "finished"])
    notes += _separate_unlike_sets(latest)
    by_job: dict[str, list[Run]] = defaultdict(list)
    for run in latest:
        by_job[run.record.job].append(run)
    finished = {run.key for run in latest}
    arms = arm_order(run.record.arm for run in by_job["distill"])
    chosen = _choose_baseline(baseline, [str(grid["baseline"]) for grid in grids if grid.get("baseline")], arms)
    return Study(
        name=listed(dict.fromkeys(str(grid["name"]) for grid in grids if grid.get("name")))
        or listed(Path(folder).resolve().name for folder in folders),
        students=by_job["distill"],
        teachers=[*by_job["finetune"], *by_job["evaluate"]],
        caches=by_job["cache"],
        failed=[run for run in runs if run.record.state != "finished" and run.key not in finished],
        baseline=chosen,
        questions=list(dict.fromkeys(question for grid in grids for question in _read_questions(grid, chosen))),
        notes=notes,
        exports=exports,
        certificates=certificates,
    )


def arm_order(arms: Iterable[str]) -> list[str]:
    """Return the arms in the order of a table: finetune, kd, then the others by name.

    Args:
        arms: names of arms, repeats allowed.

    Returns:
        Each name once.

    >>> arm_order(["rail-kd-l", "kd", "alp-kd", "kd"])
    ['kd', 'alp-kd', 'rail-kd-l']
    """
    return sorted(set(arms), key=lambda arm: (_FIRST.index(arm) if arm in _FIRST else len(_FIRST), arm))


def _read_folder(folder: Path, *, required: bool = True) -> list[Run]:
    if not folder.is_dir():
        raise RailkdError(f"There is no folder '{folder}'. Fix: name a folder with {RECORDS_FILE} or with run folders.")
    path = folder / RECORDS_FILE
    try:
        if path.is_file():
            return [Run(record, inside(folder, record.folder, path)) for record in read_lines(path)]
        files = sorted(folder.rglob(RECORD_FILE))
        runs = [Run(RunRecord.read(path := file), file.parent) for file in files]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RailkdError(f"{path}: expected records of railkd, but the file cannot be read: {reason}.") from None
    if not runs and required:
        raise RailkdError(
            f"'{folder}' contains neither {RECORDS_FILE} nor a run folder with {RECORD_FILE}. Fix: name the output "
            "folder of railkd bench, distill or finetune."
        )
    _fill_names(runs)
    return runs


def inside(folder: Path, name: str, where: Path) -> Path:
    """Return a path that a record names, which must lie inside its folder: records may come from elsewhere.

    Args:
        folder: of the records, or of the run.
        name: relative to it.
        where: the file with the record, or the folder of the run, for the message.

    Returns:
        The path. Nothing need exist there.

    Raises:
        RailkdError: the path leads out of the folder, also by a link.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RailkdError(
            f"{where}: expected paths inside of the folder, got {shortened(name)!r}. Fix: move the files into it."
        )
    return path


def _fill_names(runs: list[Run]) -> None:
    """Derive task, student and arm from the settings of runs that do not come from a benchmark."""
    groups: dict[tuple[Any, ...], list[RunRecord]] = defaultdict(list)
    for record in (run.record for run in runs):
        config = record.config
        record.task = record.task or _task_name(_first(config.get("train", "")))
        record.student = record.student or _student_name(record)
        if not record.arm:
            record.arm = record.method or ("teacher" if record.job in ("finetune", "evaluate") else record.job)
            groups[record.job, record.task, record.student, record.arm].append(record)
    for group in groups.values():
        names = {name for record in group for name in record.config} - _NOT_IN_ARM
        varying = [n for n in sorted(names) if len({repr(record.config.get(n)) for record in group}) > 1]
        for record in group:
            options = [f"{name}={record.config[name]}" for name in varying if name in record.config]
            record.arm = " ".join([record.arm, *options])


def _first(value: Any) -> Any:
    """Return the first of several values, or the only one."""
    return value[0] if isinstance(value, list) and value else value


def _task_name(source: Any) -> str:
    """Return ``movie`` for ``data/movie/train.tsv`` and for ``data/movie.tsv``."""
    path = Path(str(source))
    stem = path.name.split(".")[0]
    return (path.parent.name if stem in ("train", "") else stem) or "task"


def _student_name(record: RunRecord) -> str:
    if record.job != "distill":
        return ""
    config = record.config
    layers = config.get("student_layers")
    parts = [Path(str(config["student"])).name] if config.get("student") else []
    return " ".join(parts + ([f"{layers} blocks"] if layers else [])) or "student"


def _drop_repeats(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Keep the run that started last of each key and job. Return the runs, and a note if there were repeats."""
    by_key: dict[Any, Run] = {}
    for run in sorted(runs, key=lambda run: run.record.started):
        where = run.record.folder if run.record.job == "cache" else ""  # one task may have passes of several teachers
        by_key[run.record.job, run.key, where] = run
    repeats = len(runs) - len(by_key)
    note = (
        f"{repeats} run{' repeats' if repeats == 1 else 's repeat'} another of the same task, student, arm and seed. "
    )
    return list(by_key.values()), [note + "Only the run that started last counts."] if repeats else []


def _separate_unlike_sets(runs: Sequence[Run]) -> list[str]:
    """Give test sets of one name and unlike rows names of their own, so that no table mixes them. Return the notes."""
    known: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for record in (run.record for run in runs):
        for name in record.metrics:
            if digest := record.contents.get(f"test {name}"):
                known[record.task, name][digest] = None
    notes = []
    for (task, name), digests in known.items():
        if len(digests) < 2:
            continue
        for record in (run.record for run in runs if run.record.task == task):
            new = f"{name} ({record.contents.get(f'test {name}', 'unknown')[:6]})"
            fields: list[dict[str, Any]] = [record.metrics, record.domains, record.predictions]
            for held in fields:
                if name in held:
                    held[new] = held.pop(name)
        notes.append(
            f"The runs of {task} were scored on {len(digests)} test sets of the name {name}, whose rows differ. Each "
            "has a column of its own, and nothing is averaged over them."
        )
    return notes


def _read_grid(path: Path) -> dict[str, Any]:
    try:
        grid = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RailkdError(f"{path}: expected a grid of railkd bench, got {str(error)[:80]}.") from None
    if not isinstance(grid, dict):
        raise RailkdError(f"{path}: expected the mapping of a grid of railkd bench, got {type(grid).__name__}.")
    return grid


def _read_questions(grid: dict[str, Any], baseline: str) -> list[Question]:
    questions = []
    for entry in grid.get("contrasts") or []:
        if not isinstance(entry, dict) or not entry.get("arm"):
            raise RailkdError(f"{GRID}: expected a contrast with name, arm and baseline, got {entry!r}.")
        arm, base = str(entry["arm"]), str(entry.get("baseline") or baseline)
        domain = str(entry.get("domain") or "in")
        if domain not in ("in", "out"):
            raise RailkdError(f"{GRID}: expected the domain of a contrast to be in or out, got '{domain}'.")
        questions.append(Question(str(entry.get("name") or f"{arm} against {base}"), arm, base, domain))
    return questions


def _choose_baseline(baseline: str | None, grid_baselines: list[str], arms: list[str]) -> str:
    if baseline and baseline not in arms:
        raise RailkdError(
            f"--baseline: there is no finished run of the arm '{baseline}'. "
            + (f"Fix: choose one of {', '.join(arms)}." if arms else "No run has finished.")
        )
    candidates = [baseline or "", *grid_baselines, "kd", "finetune", *arms]
    return next((arm for arm in candidates if arm in arms), "")
