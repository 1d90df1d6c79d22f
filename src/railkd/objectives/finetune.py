"""Fine-tuning without a teacher, the baseline of every comparison.

Equation: ``loss = CE``, the cross-entropy with the labels (or the task's own loss, see `railkd.functional.task_loss`).
"""

from __future__ import annotations

from railkd.objectives.base import Objective


class Finetune(Objective):
    """``loss = CE``."""

    terms = ("ce",)
