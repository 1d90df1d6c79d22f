"""Run student and teacher on a fixed sample of the training rows, without an effect on the training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from railkd.data.keys import KEY
from railkd.data.tokens import TEACHER_PREFIX, student_inputs
from railkd.models.blocks import BlockReader
from railkd.models.distiller import Distiller
from railkd.objectives import Objective
from railkd.signals import Signals
from railkd.teacher import Teacher
from railkd.training.arguments import DistillationTrainingArguments

#: This number suffices to measure the effective rank. A reading costs about as much as a training step.
PROBE_ROWS = 64
BATCH = 16


class Probed(NamedTuple):
    """Hold the signals of student and teacher on the P probe rows, in float32, and the objective.

    Attributes:
        objective: objective of the distiller.
        student: logits (P, C), states (P, s, d_s).
        teacher: logits (P, C), states (P, n, d_t).
    """

    objective: Objective
    student: Signals
    teacher: Signals


def probe(
    distiller: Distiller,
    teacher: Teacher | None,
    dataset: Any,
    collate: Callable[[list[Any]], dict[str, Tensor]],
    args: DistillationTrainingArguments,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Probed | None:
    """Run student and teacher on rows that are spread evenly over a data set.

    This draws no random numbers and restores the mode of the distiller.

    Args:
        distiller: run in evaluation mode.
        teacher: live or a cache, or None.
        dataset: rows with tokens, prepared for training.
        collate: builds a batch from a list of rows.
        args: settings of the run, for the device and the names of the student's blocks.
        autocast: returns a context manager that sets the precision of training.

    Returns:
        The signals. None if there is no teacher, if the method uses logits only, or if the data set is a stream.
    """
    pooling = distiller.pooling
    if teacher is None or pooling is None or not hasattr(dataset, "select"):
        return None
    count = min(PROBE_ROWS, len(dataset))
    rows = dataset.select([i * len(dataset) // count for i in range(count)])
    names = {"input_ids", "attention_mask", "token_type_ids", "labels", KEY} | {
        name for name in rows.column_names if name.startswith(TEACHER_PREFIX)
    }
    # Small batches sorted by length need less padding. The precision of training is used: float32 took 4 times as long.
    order = np.argsort([len(ids) for ids in rows["input_ids"]], kind="stable").tolist()
    rows = rows.select_columns([name for name in rows.column_names if name in names])
    reader = BlockReader(distiller.student, (pooling,), args.blocks)
    was_training = distiller.training
    distiller.eval()
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    with torch.no_grad(), autocast():
        for start in range(0, count, BATCH):
            batch = collate([rows[i] for i in order[start : start + BATCH]])
            batch = {name: value.to(args.device) for name, value in batch.items()}
            inputs = {name: value for name, value in student_inputs(batch).items() if name != "labels"}
            with reader.reading(inputs["attention_mask"]):
                logits = distiller(**inputs)[0]
            theirs = teacher(batch, pooling)
            assert theirs.states is not None
            parts.append((logits, reader.states()[pooling], theirs.logits, theirs.states))
    distiller.train(was_training)
    ours, states, teachers, teacher_states = (torch.cat([part[i] for part in parts]).float() for i in range(4))
    return Probed(distiller.objective, Signals(ours, states), Signals(teachers, teacher_states))
