"""Makes what `DistillationTrainer` trains with: the student, the teacher, the distiller, the negatives, the groups of
the optimizer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import set_seed

from railkd.errors import RailkdError
from railkd.models.checkpoints import Checkpoint
from railkd.models.distiller import Distiller
from railkd.objectives import method_spec
from railkd.teacher import LiveTeacher, Teacher, TeacherCache
from railkd.training import pairing
from railkd.training.arguments import DistillationTrainingArguments
from railkd.training.negatives import Negatives

StudentLike = str | Path | Checkpoint | nn.Module
TeacherLike = str | Path | Checkpoint | nn.Module | Teacher


def load_student(source: str | Path | Checkpoint, seed: int, tokenizer: Any = None) -> tuple[nn.Module, Any]:
    """Load a student and, where none is given, its tokenizer.

    Args:
        source: folder, hub name or `Checkpoint`.
        seed: a new head is drawn from it.
        tokenizer: used instead of the one beside the student.
    """
    checkpoint = Checkpoint.find(source)
    tokenizer = tokenizer or checkpoint.tokenizer
    set_seed(seed)
    return checkpoint.model(new_head=True), tokenizer


def call_init(model_init: Callable[..., nn.Module]) -> nn.Module:
    """Make a student by a function that may, as Trainer's, take the trial of a search or nothing."""
    return model_init(None) if inspect.signature(model_init).parameters else model_init()


def make_teacher(given: TeacherLike | None, args: DistillationTrainingArguments, tokenizer: Any) -> Teacher | None:
    """Open a cache, load a live teacher, or return None for a method that learns from none.

    Args:
        given: a folder or hub name (of a model or a cache), a `Checkpoint`, a module, or a teacher that is ready.
        args: of the run.
        tokenizer: of a module.

    Raises:
        RailkdError: the method wants a teacher and there is none.
    """
    spec = method_spec(args.method)
    if not spec.needs_teacher:
        return None
    if given is None:
        raise RailkdError(
            f"method '{args.method}' learns from a teacher, got none; pass teacher_model= (a folder, a module or a "
            "cache)"
        )
    options: dict[str, Any] = {
        "max_length": args.max_length,
        "poolings": (spec.pooling or "mean",),
        "blocks": args.teacher_blocks,
    }
    if isinstance(given, (str, Path)) and TeacherCache.is_built(given):
        return TeacherCache.open(given)
    if isinstance(given, (str, Path, Checkpoint)):
        checkpoint = Checkpoint.find(given)
        return LiveTeacher(checkpoint.model().to(args.device), checkpoint.tokenizer, **options)
    if isinstance(given, nn.Module):
        return LiveTeacher(given.to(args.device), tokenizer, **options)
    return given


def make_distiller(student: nn.Module, teacher: Teacher | None, args: DistillationTrainingArguments) -> Distiller:
    """Put the objective of the method around a student; a `Distiller` is returned as it is.

    Raises:
        RailkdError: labels that disagree, or a method that fits its targets on a cache and got a live teacher.
    """
    if isinstance(student, Distiller):
        return student
    shape = None
    if teacher is not None:
        pairing.check_labels(student.config, teacher.info)
        shape = teacher.info.shape
    if args.freeze_embeddings:
        student.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
    set_seed(args.seed)  # the projections are drawn from it
    options = args.objective_options()
    distiller = Distiller.from_method(args.method, student, shape, blocks_pattern=args.blocks, **options)
    if distiller.objective.needs_fit:
        if not isinstance(teacher, TeacherCache):
            raise RailkdError(
                f"{args.method} fits its targets on a teacher cache, got a live teacher; "
                "build a cache (TeacherCache.build, or drop --live)"
            )
        distiller.objective.fit(teacher.moments(distiller.pooling or "mean"))
    return distiller


def make_negatives(
    distiller: Distiller,
    teacher: Teacher | None,
    args: DistillationTrainingArguments,
    dataset: Any,
    keys: np.ndarray | None,
) -> Negatives | None:
    """Return the rows that a contrastive method draws from, or None for every other method.

    Args:
        distiller: its objective says how many rows it contrasts with.
        teacher: must be a cache.
        args: of the run.
        dataset: the training rows, prepared.
        keys: (N, 2) of these rows; None for a stream.

    Raises:
        RailkdError: the method contrasts, and the rows are a stream or the teacher is no cache.
    """
    count = distiller.objective.negatives
    if count and keys is None and dataset is not None:
        raise RailkdError(f"{args.method} draws rows to contrast with, which a stream does not let; wanted a Dataset")
    if not count or distiller.pooling is None or keys is None:
        return None
    if not isinstance(teacher, TeacherCache):
        raise RailkdError(
            f"{args.method} contrasts with other rows of a teacher cache, got a live teacher; "
            "build a cache (TeacherCache.build, or drop --live)"
        )
    labels = dataset["labels"] if "labels" in dataset.column_names else None
    return Negatives(teacher, keys, labels, pooling=distiller.pooling, count=count, seed=args.seed)


def separate_groups(optimizer: torch.optim.Optimizer, module: nn.Module, rate: float) -> None:
    """Move the parameters of a module into groups of the optimizer with a learning rate of their own."""
    theirs = {id(parameter) for parameter in module.parameters()}
    for group in list(optimizer.param_groups):
        moved = [parameter for parameter in group["params"] if id(parameter) in theirs]
        if moved:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in theirs]
            optimizer.add_param_group({**group, "params": moved, "lr": rate})
