"""Reads the gauges of `railkd.objectives.collapse` on a fixed probe set while training runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from railkd.objectives import collapse
from railkd.training.probe import Probed

logger = logging.getLogger(__name__)
#: What a reading of a drawing method holds; logged with ``gauge_`` before the name.
READ = ("rank", "target_rank", "variance", "term")


class Gauging(TrainerCallback):
    """Logs effective rank and variance of the projections at every epoch, warns of a collapse once, and keeps the
    similarity of blocks.

    The probe: training rows spread evenly over the set, the same at every reading. Reading draws no random numbers and
    leaves the model in the mode it was in, so a gauged run has the weights of an ungauged one.

    Args:
        probe: reads student and teacher on the probe rows; None where there is nothing to read.
        log: receives the values of a reading, with ``gauge_`` before their names.
        warn: told the warning; None: it goes to the log. May be set later.

    Attributes:
        readings: one a reading: epoch; effective rank of the student's projections and of their targets, variance of
            the student's, each the least over the matches; term.
        similarity: ``before`` and ``after`` training: CKA of every student block (rows) with every teacher block.
        warning: the words of the collapse warning, or None.
    """

    def __init__(
        self,
        probe: Callable[[], Probed | None],
        log: Callable[[dict[str, float]], None],
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._probe, self._log, self.warn = probe, log, warn
        self.readings: list[dict[str, float]] = []
        self.similarity: dict[str, list[list[float]]] = {}
        self.warning: str | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Called by Trainer: the reading before the first step.

        A resumed run takes over the readings of its log; its student at the start is gone, and with it ``before``.
        """
        told = [entry for entry in state.log_history if "gauge_term" in entry]
        self.readings = [{"epoch": e["epoch"]} | {name: e[f"gauge_{name}"] for name in READ} for e in told]
        if state.global_step == 0:
            self._read(args.seed, state, "before")

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Called by Trainer."""
        self._read(args.seed, state, "after")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"readings": self.readings, "similarity": self.similarity, "warning": self.warning}

    def restore(self, held: dict[str, Any]) -> None:
        """Continue from what `as_dict` returned."""
        for name, value in held.items():
            setattr(self, name, value)

    def _read(self, seed: int, state: TrainerState, moment: str) -> None:
        probed = self._probe()
        if probed is None:
            return
        objective, student, teacher = probed
        assert student.states is not None and teacher.states is not None
        self.similarity[moment] = collapse.similarity(student.states, teacher.states)
        # The draw of the last step, not of the next: maps that were not drawn yet would read as if nothing was learned.
        epoch = max(0, math.ceil(float(state.epoch or 0) - 1e-6) - 1)
        draw = objective.draw(seed, epoch=epoch, step=max(0, state.global_step - 1))
        with torch.no_grad():
            projected = objective.projected(student, teacher, draw)
            if projected is None:
                return
            a, b = (x.flatten(1, -2) for x in projected)  # (P, pairs, u)
            term = float(objective.intermediate(student, teacher, draw))
        read = {
            "rank": min(collapse.effective_rank(x) for x in a.unbind(1)),
            "target_rank": min(collapse.effective_rank(x) for x in b.unbind(1)),
            "variance": min(collapse.component_variance(x) for x in a.unbind(1)),
            "term": term,
        }
        self.readings.append({"epoch": float(state.epoch or 0)} | read)
        self._log({f"gauge_{name}": value for name, value in read.items()})
        first = self.readings[0]
        # A collapse is an agreement on nothing, so both sides must have it: a student that has not learned to follow
        # targets of many dimensions yet is no such case.
        now, then = (max(reading["rank"], reading["target_rank"]) for reading in (read, first))
        warning = collapse.collapse_warning(now, term, first["term"], first_rank=then)
        if moment == "after" and warning and self.warning is None:
            self.warning = warning
            (self.warn or logger.warning)(warning)
