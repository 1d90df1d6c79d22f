"""The file of thresholds beside a model: how ``railkd calibrate`` writes it, and how answers follow it.

===============  ======================================================================================
``version``      of this format, 1
``problem_type`` of the model, as transformers writes it
``model``        digest of the weights, config and tokenizer, or of the ONNX file
``temperature``  divides the logits
``goal``         best-f1, precision>=P or recall>=R
``thresholds``   class -> threshold on its probability
``unreached``    classes that miss the goal on these rows; theirs are 0.5
``fitted_on``    the rows: ``source``, ``rows`` (how many), ``digest``, and ``texts`` (digest without labels)
``on_these_rows``  figures on the rows that it was fitted on: ``before`` (temperature 1, thresholds 0.5) and ``after``
===============  ======================================================================================

The probabilities are those of the logits divided by the temperature. Where any number of classes applies, a class is
answered if its probability is above its threshold. Where one class applies, the answer is the class with the highest
ratio of probability to threshold. So of two classes, whose thresholds add up to 1, the second is answered if its
probability is above its threshold. Of more, a class wins over others that pass theirs by less, and if none passes, the
nearest is answered. A tie goes to the first class.
"""

from __future__ import annotations

import json
import math
from copy import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from railkd.data.reader import Table
from railkd.errors import RailkdError
from railkd.jobs.options import Say
from railkd.jobs.scorer import Scorer
from railkd.runtime import typed
from railkd.runtime.files import write_json
from railkd.runtime.ownership import Ledger
from railkd.runtime.words import listed
from railkd.tasks import Task
from railkd.tasks.cut import Cut

#: Its name in the folder of the model.
FILE = "thresholds.json"
VERSION = 1
#: Without any reason for another one. Equal thresholds of all classes change no answer.
USUAL = 0.5


@dataclass(frozen=True)
class FittedOn:
    """The rows that thresholds were fitted on.

    Attributes:
        source: as the user named it.
        rows: how many.
        digest: of their texts and labels.
        texts: digest of their texts alone.
    """

    source: str
    rows: int
    digest: str
    texts: str = ""

    @classmethod
    def of(cls, table: Table) -> FittedOn:
        """Return what is noted of a table."""
        return cls(table.source.text, len(table), table.digest, table.texts_digest)

    def holds(self, table: Table) -> bool:
        """Return whether these are the rows of a table, with or without their labels."""
        return table.digest == self.digest or table.texts_digest in (self.digest, self.texts)

    def __str__(self) -> str:
        return f"{self.rows:,} rows of {self.source}"


@dataclass(frozen=True)
class Thresholds:
    """A temperature and a threshold for each class. The module describes the fields."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    version: int
    problem_type: str
    model: str
    temperature: float
    goal: str
    thresholds: dict[str, float]
    unreached: list[str]
    fitted_on: FittedOn
    on_these_rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> Thresholds:
        """Read a file of thresholds.

        Args:
            path: of the file, or of the folder that it lies in.

        Returns:
            The thresholds.

        Raises:
            RailkdError: the file is missing, or its content is not that of thresholds.
        """
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RailkdError(f"--thresholds: cannot read '{file}': {reason}. Fix: run railkd calibrate.") from None
        except UnicodeDecodeError:
            text = ""
        try:
            version = typed.from_json(dict[str, Any], text).get("version")
            newer = isinstance(version, int) and version > VERSION
            found: Thresholds | None = None if newer else typed.from_json(cls, text)
        except ValueError as error:
            raise RailkdError(f"--thresholds: '{file}' is not a file of railkd calibrate ({error}).") from None
        if found is None:
            raise RailkdError(f"'{file}' has version {version}, this railkd reads {VERSION}. Fix: update railkd.")
        shares = found.thresholds.values()
        if not all(0 < value < 1 for value in shares) or not 0 < found.temperature < math.inf:
            raise RailkdError(
                f"--thresholds: '{file}': expected numbers between 0 and 1, and a temperature above 0. Fix: run railkd "
                "calibrate again."
            )
        return found

    def write(self, path: Path) -> None:
        """Write the file, and put it on the list of a folder that railkd wrote, so that it can be replaced with it.

        Args:
            path: of the file.
        """
        for folder in list(path.absolute().parents)[:2]:
            if (ledger := Ledger(folder)).exists():
                ledger.add(path.absolute().relative_to(folder).as_posix())
                break
        write_json(path, asdict(self))

    @classmethod
    def asked(cls, path: str | None, model: Scorer, name: str, say: Say) -> Thresholds | None:
        """Return the thresholds that a user named; None: none are named.

        Args:
            path: as for `read`, or None.
            model: whose answers follow them.
            name: of the model, as the user named it.
            say: receives a warning if they were fitted for another model with these classes.

        Raises:
            RailkdError: they are those of other classes.
        """
        if path is None:
            return None
        found, labels, task = cls.read(path), model.checkpoint.labels, model.checkpoint.task
        if found.problem_type != task.problem_type or tuple(found.thresholds) != tuple(labels):
            raise RailkdError(
                f"--thresholds: expected those of the classes of '{name}', {listed(labels, 20)} ({task.name}), got "
                f"those of {listed(found.thresholds, 20)}. Fix: fit them with railkd calibrate --model {name}."
            )
        if found.model != model.content():
            say(f"warning: --thresholds: they were fitted for another model than '{name}'. Fix: railkd calibrate.")
        say(f"thresholds for {found.goal}, fitted on {found.fitted_on}")
        return found

    def shown_on(self, name: str, table: Table, say: Say) -> dict[str, Any]:
        """Return which rows the thresholds were fitted on, for the figures of a table; warn if it holds these rows.

        Args:
            name: of the table.
            table: with labels.
            say: receives the warning.
        """
        same = self.fitted_on.holds(table)
        if same:
            say(f"warning: {name}: shown on the rows that the thresholds were fitted on, so its scores are too good")
        return {"goal": self.goal, "fitted_on": asdict(self.fitted_on), "same_rows": same}

    def apply(self, task: Task) -> Task:
        """Return a task whose answers follow the thresholds, and whose probabilities are calibrated.

        Args:
            task: of the model.
        """
        found = copy(task)
        found.cut = Cut(self.temperature, tuple(self.thresholds.values()))
        return found


def is_ours(path: Path) -> bool:
    """Return whether a file is one of thresholds, so that it may be replaced.

    Args:
        path: of any file.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"version", "temperature", "thresholds"} <= found.keys()
