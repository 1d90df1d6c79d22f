"""Reads the gauges of `railkd.gauges` on a fixed probe set while training runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from railkd import gauges
from railkd.examples import KEY
from railkd.objectives.rail import RailConcatenated, RailLayerwise
from railkd.signals import BlockReader, Signals

if TYPE_CHECKING:
    from railkd.training.trainer import DistillationTrainer

logger = logging.getLogger(__name__)
#: Enough to tell many dimensions from few; a reading costs about as much as a training step.
PROBE_ROWS = 64
#: What a reading of a drawing method holds; logged with ``gauge_`` before the name.
READ = ("rank", "target_rank", "variance", "term")


class Gauging(TrainerCallback):
    """Logs effective rank and variance of the projections at every epoch, warns of a collapse once, and keeps the
    similarity of blocks.

    The probe: training rows spread evenly over the set, the same at every reading. Reading draws no random numbers and
    leaves the model in the mode it was in, so a gauged run has the weights of an ungauged one.

    Args:
        trainer: whose model and teacher are read.
        warn: told the warning; None: it goes to the log. May be set later.

    Attributes:
        readings: one a reading: epoch; effective rank of the student's projections and of their targets, variance of
            the student's, each the least over the matches; term.
        similarity: ``before`` and ``after`` training: CKA of every student block (rows) with every teacher block.
        warning: the words of the collapse warning, or None.
    """

    def __init__(self, trainer: DistillationTrainer, warn: Callable[[str], None] | None = None) -> None:
        self.trainer, self.warn = trainer, warn
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
            self._read(state, "before")

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Called by Trainer."""
        self._read(state, "after")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"readings": self.readings, "similarity": self.similarity, "warning": self.warning}

    def _read(self, state: TrainerState, moment: str) -> None:
        trainer = self.trainer
        if trainer.teacher is None or trainer.model.pooling is None or not hasattr(trainer.train_dataset, "select"):
            return
        student, teacher = self._probe(trainer.model.pooling)
        assert student.states is not None and teacher.states is not None
        self.similarity[moment] = gauges.similarity(student.states, teacher.states)
        objective = trainer.model.objective
        if not isinstance(objective, (RailLayerwise, RailConcatenated)):
            return
        # The draw of the last step, not of the next: maps that were not drawn yet would read as if nothing was learned.
        epoch = max(0, math.ceil(float(state.epoch or 0) - 1e-6) - 1)
        draw = objective.draw(trainer.args.seed, epoch=epoch, step=max(0, state.global_step - 1))
        with torch.no_grad():
            a, b = (x.flatten(1, -2) for x in objective.projected(student, teacher, draw))  # (P, pairs, u)
            term = float(objective.intermediate(student, teacher, draw))
        read = {
            "rank": min(gauges.effective_rank(x) for x in a.unbind(1)),
            "target_rank": min(gauges.effective_rank(x) for x in b.unbind(1)),
            "variance": min(gauges.component_variance(x) for x in a.unbind(1)),
            "term": term,
        }
        self.readings.append({"epoch": float(state.epoch or 0)} | read)
        trainer.log({f"gauge_{name}": value for name, value in read.items()})
        first = self.readings[0]
        # A collapse is an agreement on nothing, so both sides must have it: a student that has not learned to follow
        # targets of many dimensions yet is no such case.
        now, then = (max(reading["rank"], reading["target_rank"]) for reading in (read, first))
        warning = gauges.collapse_warning(now, term, first["term"], first_rank=then)
        if moment == "after" and warning and self.warning is None:
            self.warning = warning
            (self.warn or logger.warning)(warning)

    def _probe(self, pooling: str) -> tuple[Signals, Signals]:
        """The signals of both sides on the probe rows, (P, ...)."""
        trainer = self.trainer
        dataset: Any = trainer.train_dataset
        count = min(PROBE_ROWS, len(dataset))
        rows = dataset.select([i * len(dataset) // count for i in range(count)])
        distiller = trainer.model
        reader = BlockReader(distiller.student, (pooling,), trainer.args.blocks)
        was_training = distiller.training
        distiller.eval()
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        collator: Any = trainer.data_collator
        names = {"input_ids", "attention_mask", "token_type_ids", "labels", KEY} | {
            name for name in rows.column_names if name.startswith("teacher_")
        }
        # By length, in small batches: less padding. In the precision of training: float32 cost four times as much.
        order = np.argsort([len(ids) for ids in rows["input_ids"]], kind="stable").tolist()
        rows = rows.select_columns([name for name in rows.column_names if name in names])
        with torch.no_grad(), trainer.accelerator.autocast():
            for start in range(0, count, 16):
                batch = collator([rows[i] for i in order[start : start + 16]])
                batch = {name: value.to(trainer.args.device) for name, value in batch.items()}
                inputs = {n: v for n, v in trainer._student_inputs(batch).items() if n != "labels"}
                with reader.reading(inputs["attention_mask"]):
                    logits = distiller(**inputs)[0]
                assert trainer.teacher is not None
                theirs = trainer.teacher(batch, pooling)
                assert theirs.states is not None
                parts.append((logits, reader.states()[pooling], theirs.logits, theirs.states))
        distiller.train(was_training)
        ours, states, teachers, teacher_states = (torch.cat([part[i] for part in parts]).float() for i in range(4))
        return Signals(ours, states), Signals(teachers, teacher_states)
