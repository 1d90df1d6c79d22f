"""The folder of a run: the names of its files, how a run claims it, and how a run leaves it.

Light: the early checks look into a folder before torch is imported.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from railkd.errors import RailkdError
from railkd.jobs import settings
from railkd.jobs.options import RunOptions
from railkd.jobs.request import Request
from railkd.models.checkpoints import OBJECTIVE_FILE
from railkd.records import RECORD_FILE, RunRecord
from railkd.runtime.files import is_temporary, temporary_beside, write_json, write_text

if TYPE_CHECKING:
    from railkd.models.distiller import Distiller

#: Settings that change nothing of what training computes: a resumed run may have others.
_FREE_ON_RESUME = {
    "test",
    "ood",
    "cache",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "allow_weak_teacher",
    "keep_predictions",
}


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, each by its name.

    =========================  ============================================================================
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

    @property
    def config(self) -> Path:
        """The settings of the run."""
        return self.path / "config.yaml"

    @property
    def record(self) -> Path:
        """The record of a finished run."""
        return self.path / RECORD_FILE

    @property
    def draws(self) -> Path:
        """The draws of teacher blocks."""
        return self.path / "draws.json"

    @property
    def gauges(self) -> Path:
        """Collapse readings and block similarities."""
        return self.path / "gauges.json"

    @property
    def objective(self) -> Path:
        """The weights of the objective."""
        return self.path / OBJECTIVE_FILE

    @property
    def cache(self) -> Path:
        """The teacher cache of this run alone."""
        return self.path / "cache"

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints of training, complete or not."""
        return sorted(self.path.glob("checkpoint-*"))

    def model(self, job: str) -> Path:
        """The model that a job makes: of ``"distill"`` or ``"finetune"``."""
        return self.path / self.MODELS[job]

    def predictions(self, name: str) -> Path:
        """What the model says of the rows of the set ``name``."""
        return self.path / "predictions" / f"{name}.tsv"

    def is_run(self) -> bool:
        """Return whether a job of railkd wrote here."""
        return self.config.exists() or self.record.exists() or bool(self.checkpoints)

    def holds_other_files(self) -> bool:
        """Return whether a folder that is no run holds files. A cache is none: a job that died left it for the next."""
        return any(path != self.cache for path in self.path.iterdir())

    def settings(self) -> dict[str, Any]:
        """Read the settings that the run was started with; empty without a config file."""
        return settings.load(self.config) if self.config.is_file() else {}

    def can_go_on(self, config: dict[str, Any]) -> bool:
        """Return whether the folder holds checkpoints of a run with exactly these settings."""
        return bool(self.checkpoints) and self.config.is_file() and self.settings() == config

    # ---- a run -------------------------------------------------------------------------------------

    def claim(self, request: Request[RunOptions]) -> None:
        """Make the folder that of this run: clear what stands there, or refuse to resume it.

        Args:
            request: what the run was asked.

        Raises:
            RailkdError: a run to resume that is finished, or was started with other settings.
        """
        from railkd.runtime import ranks

        if self.path.is_dir() and ranks.is_main_process():
            clear_unfinished(self.path)
            if request.options.overwrite:
                self._clear()
        ranks.barrier()
        if not request.options.resume:
            return
        if self.record.is_file():
            raise RailkdError(
                f"the run in '{self.path}' is finished, nothing is left to resume; --overwrite runs it again"
            )
        self._refuse_other_settings(request.as_dict())

    def write_settings(self, request: Request[RunOptions]) -> None:
        """Write the settings of a run that starts."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.config, request.dump())

    def leave(self, record: RunRecord, distiller: Distiller, tokenizer: Any) -> None:
        """Write the trained model, the weights of the objective, gauges and draws, and last the record.

        Args:
            record: of the run; receives the size of the model on disk.
            distiller: holds the trained model and the objective.
            tokenizer: saved beside the model.
        """
        from railkd.training.checkpoint import save_model

        model = self.model(record.job)
        fresh = temporary_beside(model)
        fresh.mkdir(parents=True)
        save_model(distiller, fresh, tokenizer)
        if (fresh / OBJECTIVE_FILE).exists():
            (fresh / OBJECTIVE_FILE).replace(self.objective)
        shutil.rmtree(model, ignore_errors=True)
        fresh.rename(model)  # a model folder is complete or absent
        record.sizes["bytes"] = sum(file.stat().st_size for file in model.glob("*.safetensors"))
        if record.gauges:
            write_json(self.gauges, record.gauges)
        if (draws := distiller.objective.draws) is not None and record.draws:
            drawn = {"redraw": draws.redraw, "draws": record.draws, "coverage": record.coverage}
            write_json(self.draws, drawn, indent=None)
        record.write(self.record)

    def drop_checkpoints(self) -> None:
        """Delete the checkpoints of training."""
        for folder in self.checkpoints:
            shutil.rmtree(folder)

    def _clear(self) -> None:
        """Delete the files of an earlier run; its cache stays."""
        for folder in (*self.checkpoints, *map(self.model, self.MODELS), self.predictions("any").parent):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.record, self.draws, self.gauges, self.objective, self.config):
            file.unlink(missing_ok=True)

    def _refuse_other_settings(self, now: dict[str, Any]) -> None:
        if not self.config.is_file():
            return
        before = self.settings()
        other = [
            f"{name} was {before.get(name, 'not given')}, is {now.get(name, 'not given')}"
            for name in sorted(set(before) | set(now))
            if before.get(name) != now.get(name) and name not in _FREE_ON_RESUME
        ]
        if other:
            raise RailkdError(
                f"the run in '{self.path}' was started with other settings: {'; '.join(other)}; resume with those, "
                "or start anew with --overwrite"
            )


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
