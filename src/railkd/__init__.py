"""railkd: compress a fine-tuned transformer into a small, fast student.

The names a user needs; each is imported when it is first used, so that ``import railkd`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'railkd' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
