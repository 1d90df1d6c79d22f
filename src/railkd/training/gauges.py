"""Measure the gauges of `railkd.objectives.collapse` on a fixed set of rows during training."""

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
#: Values of a reading of a method with projections. The log adds the prefix ``gauge_`` to their names.
READ = ("rank", "target_rank", "variance", "term")


class Gauging(TrainerCallback):
    """Log effective rank and variance of the projections at each epoch, and warn once of a collapse.

    The probe rows are spread evenly over the training rows, and are the same at each reading. A reading draws no random
    numbers and restores the mode of the model, so the weights do not depend on whether gauges are on.

    Args:
        probe: runs student and teacher on the probe rows. It returns None if there is nothing to measure.
        log: receives the values of a reading. Their names have the prefix ``gauge_``.
        warn: receives the warning. None sends it to the log. It may be set later.

    Attributes:
        readings: a dict for each reading, with ``epoch``, ``rank`` (effective rank of the student's projections),
            ``target_rank`` (that of their targets), ``variance`` (of the student's projections) and ``term``. Ranks and
            variance are minima over the matches.
        similarity: "before" and "after" training -> CKA of each student block (rows) with each teacher block.
        warning: text of the collapse warning, or None.
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
        """Take the first reading, before the first step (called by Trainer).

        A resumed run takes the readings so far from its log. It does not measure "before" because its student is
        already trained.
        """
        told = [entry for entry in state.log_history if "gauge_term" in entry]
        self.readings = [{"epoch": e["epoch"]} | {name: e[f"gauge_{name}"] for name in READ} for e in told]
        if state.global_step == 0:
            self._read(args.seed, state, "before")

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Take a reading (called by Trainer)."""
        self._read(args.seed, state, "after")

    def as_dict(self) -> dict[str, Any]:
        """Return the readings, the similarity and the warning, ready for JSON."""
        return {"readings": self.readings, "similarity": self.similarity, "warning": self.warning}

    def restore(self, held: dict[str, Any]) -> None:
        """Restore the attributes from a dict that `as_dict` returned."""
        self.readings, self.similarity = held["readings"], held["similarity"]
        self.warning = held["warning"]

    def _read(self, seed: int, state: TrainerState, moment: str) -> None:
        probed = self._probe()
        if probed is None:
            return
        objective, student, teacher = probed
        assert student.states is not None and teacher.states is not None
        self.similarity[moment] = collapse.similarity(student.states, teacher.states)
        # Use the draw of the last step. The next draw may hold blocks whose maps are not trained yet.
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
        # Warn only if the projections of both models have low rank. A low rank of the student alone means that it has
        # not learned yet.
        now, then = (max(reading["rank"], reading["target_rank"]) for reading in (read, first))
        warning = collapse.collapse_warning(now, term, first["term"], first_rank=then)
        if moment == "after" and warning and self.warning is None:
            self.warning = warning
            (self.warn or logger.warning)(warning)
