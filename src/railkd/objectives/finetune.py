"""Plain fine-tuning: the task loss alone. The baseline every claim is measured against; reads no teacher."""

from __future__ import annotations

from railkd.objectives.base import Objective


class Finetune(Objective):
    """``loss = CE``."""

    terms = ("ce",)
