"""railkd: compress a fine-tuned transformer into a small, fast student.

The names a user needs; each is imported when it is first used, so that ``import railkd`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from railkd.runtime.faces import lazy

__version__ = "0.1.0"


if TYPE_CHECKING:
    from railkd.errors import RailkdError
    from railkd.models.distiller import Distiller
    from railkd.models.student import make_student
    from railkd.teacher import TeacherCache
    from railkd.training import DistillationTrainer, DistillationTrainingArguments

_HOMES = {
    "DistillationTrainer": "railkd.training",
    "DistillationTrainingArguments": "railkd.training",
    "Distiller": "railkd.models.distiller",
    "RailkdError": "railkd.errors",
    "TeacherCache": "railkd.teacher",
    "make_student": "railkd.models.student",
}

__all__ = [
    "DistillationTrainer",
    "DistillationTrainingArguments",
    "Distiller",
    "RailkdError",
    "TeacherCache",
    "__version__",
    "make_student",
]

__getattr__, __dir__ = lazy(__name__, _HOMES)
