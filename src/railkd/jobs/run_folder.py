"""The folder of a run: the names of its files, how a run claims it, and how a run leaves it.

Light: the early checks look into a folder before torch is imported.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from railkd.data.sources import parse_named
from railkd.errors import RailkdError
from railkd.jobs import settings
from railkd.jobs.contents import UNSEEN, Beginning, Noted, changed_settings
from railkd.jobs.options import RunOptions
from railkd.jobs.request import Request
from railkd.jobs.unmarked import written_without_mark
from railkd.models.checkpoints import OBJECTIVE_FILE
from railkd.records import RECORD_FILE, RunRecord
from railkd.runtime.disk import told
from railkd.runtime.files import is_temporary, temporary_beside, write_json, write_text
from railkd.runtime.ownership import LOCK, MARK, Ledger, hold
from railkd.training.checkpoint_folders import checkpoints_in, foreign_files, own_files, remove_checkpoint

if TYPE_CHECKING:
    from railkd.models.distiller import Distiller


class _Place:
    """A file or folder of a run folder, by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: RunFolder, owner: type[RunFolder]) -> Path:
        return folder.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, each by its name.

    =========================  ============================================================================
    ``files.json``             the mark of railkd: the list of the files that it wrote here, and nothing else is touched
    ``.lock``                  held by the run while it writes
    ``config.yaml``            the settings; written when the run starts, and read by ``--config``
    ``cache/``                 a teacher cache that belongs to this run alone
    ``checkpoint-N/``          checkpoints of training; deleted at the end unless the user asked for them
    ``predictions/SET.tsv``    what the model says of every row of a set, if it is kept
    ``student/``, ``model/``   the trained model, of ``distill`` and of ``finetune``
    ``objective.safetensors``  the weights of the objective, if it has any
    ``gauges.json``            collapse readings and block similarities, if the method has them
    ``draws.json``             the draws of teacher blocks, if the method draws
    ``metrics.json``           the record; written last, so it marks a run as finished
    =========================  ============================================================================

    Attributes:
        path: of the folder; it need not exist.
    """

    path: Path

    #: Job -> folder of the model that it makes.
    MODELS: ClassVar[dict[str, str]] = {"distill": "student", "finetune": "model"}

    config = _Place("config.yaml")
    record = _Place(RECORD_FILE)
    draws = _Place("draws.json")
    gauges = _Place("gauges.json")
    objective = _Place(OBJECTIVE_FILE)
    cache = _Place("cache")

    @property
    def ledger(self) -> Ledger:
        """The list of the files that railkd wrote here."""
        return Ledger(self.path)

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints of training that railkd wrote, complete or not."""
        return [path for path in checkpoints_in(self.path) if own_files(path)]

    def model(self, job: str) -> Path:
        """Return the folder of the model that a job makes, ``"distill"`` or ``"finetune"``."""
        return self.path / self.MODELS[job]

    def predictions(self, name: str) -> Path:
        """Return the file with the predictions for the rows of the set ``name``."""
        return self.path / "predictions" / f"{name}.tsv"

    def replaced(self) -> list[Path]:
        """Return the places of files and folders that a run replaces or deletes, but for those of its cache."""
        files = [self.config, self.record, self.draws, self.gauges, self.objective, self.predictions("any").parent]
        return [*files, *map(self.model, self.MODELS), *checkpoints_in(self.path)]

    def is_run(self) -> bool:
        """Return whether a job of railkd wrote here. Only the mark counts, or files that railkd 0.1.0 left."""
        return self.ledger.exists() or bool(written_without_mark(self.path))

    def holds_other_files(self) -> bool:
        """Return whether a folder that is no run holds files. A cache is none: a job that died left it for the next."""
        return any(path.name not in (self.cache.name, LOCK) for path in self.path.iterdir())

    def settings(self) -> dict[str, Any]:
        """Read the settings that the run was started with; empty without a config file."""
        return settings.load(self.config) if self.config.is_file() else {}

    def can_go_on(self, config: dict[str, Any]) -> bool:
        """Return whether the folder holds checkpoints of a run with these settings. Contents are compared later."""
        if not (self.checkpoints and self.config.is_file()):
            return False
        return not changed_settings(self.settings(), config, UNSEEN, self.contents())

    def own(self, *paths: Path) -> None:
        """Put files on the list of those that railkd wrote. Call it before they are written.

        Args:
            paths: in this folder.

        Raises:
            RailkdError: a file of this name stands there that railkd did not write.
        """
        for path in self.ledger.foreign(paths)[:1]:
            raise RailkdError(f"'{path}' was not written by railkd and would be replaced. Fix: move it elsewhere")
        self.ledger.add(*(path.relative_to(self.path).as_posix() for path in paths))

    # ---- a run -------------------------------------------------------------------------------------

    @contextmanager
    def reserve(self, options: RunOptions) -> Iterator[None]:
        """Hold the folder for one run, from its first file to its last.

        `RailkdError` is raised if another run holds the folder, or if something stands where this run writes.

        Args:
            options: of the run.

        Yields:
            Nothing.
        """
        from railkd.runtime import ranks

        ranks.initialize()
        self._refuse_obstacles(options)
        busy = f"another run is writing to '{self.path}'. Fix: wait until it ends, or name another --output"
        with ranks.first_alone(lambda: hold(self.path, busy)):
            self._refuse_obstacles(options)  # another run may have ended here since
            yield

    def find_obstacles(self, options: RunOptions) -> list[str]:
        """Look for what would make a run fail when it writes its files. Nothing is touched.

        Args:
            options: of the run, whose folder this is.

        Returns:
            Problems in words.
        """
        files = [self.config, self.record, self.draws, self.gauges, self.objective]
        if options.keep_predictions:
            files += map(self.predictions, ["eval", *parse_named([*options.test, *options.ood])])
        problems = [problem for file in files if (problem := _cannot_be_named(file))]
        if problems or not self.path.is_dir():
            return problems
        if self.is_run() and not (options.overwrite or options.resume):
            problems.append(
                f"--output: '{self.path}' holds another run. Fix: name another folder, or give --resume to continue "
                "the run or --overwrite to replace it"
            )
        own = self.ledger if self.ledger.exists() else _Unmarked(self.path)
        foreign = own.foreign([*files, *map(self.model, self.MODELS)])
        foreign += [path for folder in checkpoints_in(self.path) for path in foreign_files(folder)]
        for path in foreign[:1]:
            what = "is a link" if path.is_symlink() else "was not written by railkd"
            more = f", like {len(foreign) - 1} more" if foreign[1:] else ""
            problems.append(
                f"'{path}' {what}{more}, and the run would write there. Fix: move it elsewhere or name another --output"
            )
        folders = (self.path, self.predictions("any").parent, *map(self.model, self.MODELS))
        closed = [folder for folder in folders if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK)]
        problems += [f"'{folder}' cannot be written: its permissions do not allow it" for folder in closed]
        return problems

    def claim(self, request: Request[RunOptions]) -> None:
        """Make the folder that of this run, and clear what stands there if it is replaced.

        Args:
            request: what the run was asked.
        """
        from railkd.runtime import ranks

        if ranks.is_main_process():
            self.path.mkdir(parents=True, exist_ok=True)
            clear_unfinished(self.path)
            if request.options.overwrite:
                self.clear()
            self._adopt()
        ranks.barrier()

    def check_resumed(self, request: Request[RunOptions], contents: Mapping[str, str], threads: int) -> list[str]:
        """Refuse to resume a run that is finished, or that began with other settings, rows or models.

        Args:
            request: what the run was asked.
            contents: part -> digest of what it reads.
            threads: of this process.

        Returns:
            Lines for the user.

        Raises:
            RailkdError: the message says what differs.
        """
        if self.record.is_file():
            raise RailkdError(
                f"the run in '{self.path}' is finished, nothing is left to resume; --overwrite runs it again"
            )
        if not self.config.is_file():
            return []
        noted = self._noted()
        began_with = threads if noted.threads is None else noted.threads
        before = Beginning(self.settings(), noted.contents, began_with)
        return before.compare(Beginning(request.as_dict(), contents, threads), f"the run in '{self.path}'")

    def contents(self) -> dict[str, str]:
        """Return part -> digest of what the run read when it began; empty if it was not noted."""
        return self._noted().contents

    def _noted(self) -> Noted:
        return Noted.of(self.ledger.facts(), str(self.path / MARK))

    def write_settings(self, request: Request[RunOptions], contents: Mapping[str, str], threads: int) -> None:
        """Write the settings of a run that starts or goes on, and note what it reads."""
        self.own(self.config)
        self.ledger.note({"threads": threads, **self.ledger.facts(), "contents": dict(contents)})
        write_text(self.config, request.dump())

    def leave(self, record: RunRecord, distiller: Distiller, tokenizer: Any) -> None:
        """Write the trained model, the weights of the objective, gauges and draws, and last the record.

        Args:
            record: of the run; receives the size of the model on disk.
            distiller: holds the trained model and the objective.
            tokenizer: saved beside the model.

        Raises:
            RailkdError: something that railkd did not write was put in the place of the model while it trained.
        """
        from railkd.export.card import model_card
        from railkd.export.layout import CARD_FILE
        from railkd.training.checkpoint import save_model

        model = self.model(record.job)
        fresh = temporary_beside(model)
        fresh.mkdir(parents=True)
        weights = list(distiller.parameters())
        with told(self.path, "the model", lambda: sum(part.numel() * part.element_size() for part in weights)):
            save_model(distiller, fresh, tokenizer)
        write_text(fresh / CARD_FILE, model_card(record, distiller.student.config))
        for path in self.ledger.foreign([model])[:1]:
            raise RailkdError(
                f"'{path}' was not written by railkd, and the model must be saved there. Fix: move it elsewhere, and "
                "repeat the command with --resume"
            )
        self.own(self.record, *(model / path.name for path in fresh.iterdir() if path.name != OBJECTIVE_FILE))
        if (fresh / OBJECTIVE_FILE).exists():
            self.own(self.objective)
            (fresh / OBJECTIVE_FILE).replace(self.objective)
        shutil.rmtree(model, ignore_errors=True)
        fresh.rename(model)  # a model folder is complete or absent
        record.sizes["bytes"] = sum(file.stat().st_size for file in model.glob("*.safetensors"))
        if record.gauges:
            self.own(self.gauges)
            write_json(self.gauges, record.gauges)
        if (draws := distiller.objective.draws) is not None and record.draws:
            self.own(self.draws)
            drawn = {"redraw": draws.redraw, "draws": record.draws, "coverage": record.coverage}
            write_json(self.draws, drawn, indent=None)
        record.write(self.record)

    def drop_checkpoints(self) -> None:
        """Delete the checkpoints of training."""
        for folder in self.checkpoints:
            remove_checkpoint(folder)

    def clear(self) -> None:
        """Delete the files of an earlier run, the record first; its cache stays, and what railkd did not write."""
        self._adopt()
        if self.ledger.owns(self.record):
            self.record.unlink()
        self.drop_checkpoints()
        self.ledger.remove()

    def _adopt(self) -> None:
        """Give a folder of railkd 0.1.0 the mark."""
        if not self.ledger.exists() and (names := written_without_mark(self.path)):
            self.ledger.add(*names)

    def _refuse_obstacles(self, options: RunOptions) -> None:
        for problem in self.find_obstacles(options)[:1]:
            raise RailkdError(problem)


def clear_unfinished(folder: Path) -> None:
    """Delete what a run that was killed left half written under temporary names.

    Args:
        folder: of the run. Files of others stay, whatever their names end with.
    """
    for path in filter(is_temporary, folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


class _Unmarked(Ledger):
    """The list of a run folder of railkd 0.1.0, which has none: what it must have written."""

    def names(self) -> set[str]:
        return written_without_mark(self.folder)


def _cannot_be_named(path: Path) -> str | None:
    """Why the system takes no file of this name, in words."""
    above = next(parent for parent in path.absolute().parents if os.path.isdir(parent))
    for place in (above / path.name, path, path.parent / ("." * 90)):  # temporary names have up to 80 letters
        try:
            os.lstat(place)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return (
                    f"'{path.name[:60]}' is the start of a name that is too long for a file in '{path.parent}'. Fix: "
                    "name test sets NAME=FILE, or name another --output"
                )
    return None
