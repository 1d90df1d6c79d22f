"""Build the parts of `DistillationTrainer`: student, teacher, distiller, negatives and the optimizer's groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import set_seed

from railkd.errors import RailkdError
from railkd.models.checkpoints import Checkpoint
from railkd.models.distiller import Distiller
from railkd.models.freezing import freeze
from railkd.models.loading import on_device
from railkd.objectives import MethodSpec, Objective, method_spec
from railkd.runtime.words import listed
from railkd.teacher import LiveTeacher, StoredTeacher, Teacher, TeacherCache
from railkd.training import pairing
from railkd.training.arguments import DistillationTrainingArguments
from railkd.training.negatives import Negatives

#: Settings that build an objective, beside the method and its options.
_OF_OBJECTIVES = ("weights", "temperature", "class_weights", "class_weights_on_logits")
StudentLike = str | Path | Checkpoint | nn.Module
ObjectiveLike = Objective | type[Objective]
TeacherLike = str | Path | Checkpoint | nn.Module | Teacher


def load_student(source: str | Path | Checkpoint, seed: int, tokenizer: Any = None) -> tuple[nn.Module, Any]:
    """Load a student and its tokenizer.

    Args:
        source: folder, hub name or `Checkpoint`.
        seed: random seed for a new classification head.
        tokenizer: used instead of the one in the student's folder.

    Returns:
        The student and its tokenizer.
    """
    checkpoint = Checkpoint.find(source)
    tokenizer = tokenizer or checkpoint.tokenizer
    set_seed(seed)
    return checkpoint.model(new_head=True), tokenizer


def call_init(model_init: Callable[..., nn.Module] | None, model: Any) -> Any:
    """Return the student, which a function builds if one is given.

    Args:
        model_init: takes no argument, or the trial of a hyperparameter search, which is None here.
        model: the student without such a function.

    Raises:
        RailkdError: neither is given.
    """
    if model_init is not None:
        return model_init(None) if inspect.signature(model_init).parameters else model_init()
    if model is None:
        raise RailkdError("got no student; pass model= (a model, folder or hub name) or model_init=")
    return model


def make_teacher(
    given: TeacherLike | None, spec: MethodSpec, args: DistillationTrainingArguments, tokenizer: Any
) -> Teacher | None:
    """Open a teacher cache or load a live teacher.

    Args:
        given: a folder or hub name (of a model or a cache), a `Checkpoint`, a module, or a `Teacher`.
        spec: the method of the run.
        args: settings of the run.
        tokenizer: tokenizer of the teacher if ``given`` is a module.

    Returns:
        The teacher, or None if the method uses no teacher.

    Raises:
        RailkdError: the method needs a teacher and ``given`` is None.
    """
    if not spec.needs_teacher:
        return None
    if given is None:
        raise RailkdError(
            f"method '{spec.name}' learns from a teacher, got none; pass teacher_model= (a folder, a module or a cache)"
        )
    options: dict[str, Any] = {
        "max_length": args.max_length,
        "poolings": (spec.pooling or "mean",),
        "blocks": args.teacher_blocks,
    }
    if isinstance(given, (str, Path)) and TeacherCache.is_built(given):
        given = TeacherCache.open(given)
    if isinstance(given, StoredTeacher):
        if given.gaps and spec.pooling:
            given.check_pooling(spec.pooling)  # before a loss is built on states that there are not
        return given
    if isinstance(given, (str, Path, Checkpoint)):
        checkpoint = given if isinstance(given, Checkpoint) else Checkpoint.find(given).loaded_as()
        return LiveTeacher(on_device(checkpoint.frozen(), args.device), checkpoint.tokenizer, **options)
    if isinstance(given, nn.Module):
        return LiveTeacher(given.to(args.device), tokenizer, **options)
    return given


def find_method(
    objective: ObjectiveLike | None, args: DistillationTrainingArguments
) -> tuple[MethodSpec, Objective | None]:
    """Return the row of the method of a run, and its objective if that is built already.

    Args:
        objective: a class or an instance of one, in place of the method that ``args`` names.
        args: settings of the run.

    Raises:
        RailkdError: ``args`` names a method too, or options of one.
    """
    if objective is None:
        return method_spec(args.method), None
    if args.method != "rail-kd-l" or args.method_options:
        raise RailkdError(
            f"objective= and method='{args.method}' or its options exclude each other. Fix: leave the method out of "
            "the arguments, and give an instance if the objective has options."
        )
    if isinstance(objective, type):
        return MethodSpec.of(objective), None
    ready = MethodSpec.of(type(objective))
    _refuse_ready("an objective that is built", args, _OF_OBJECTIVES, ready)
    return ready, objective


def _refuse_ready(what: str, args: DistillationTrainingArguments, names: Sequence[str], spec: MethodSpec) -> None:
    """Refuse settings that would have no effect, because what they are for is built already.

    What the recipe of the method sets was not given by the user, and is let through.

    Raises:
        RailkdError: it names the settings.
    """
    usual = {field.name: [field.default] for field in fields(args)}
    for name, value in spec.recipe.items():
        usual[name].append(list(value))
    given = [name for name in names if getattr(args, name) not in usual[name]]
    if given:
        raise RailkdError(
            f"{listed(given)}: {what} keeps its own. Fix: give them to it, and leave them out of the arguments."
        )


def make_distiller(
    student: nn.Module,
    teacher: Teacher | None,
    spec: MethodSpec,
    args: DistillationTrainingArguments,
    objective: Objective | None = None,
) -> Distiller:
    """Wrap a student in a `Distiller` with the objective of the method.

    Args:
        student: the model to train. A `Distiller` is returned unchanged.
        teacher: live or a cache, or None.
        spec: the method of the run.
        args: settings of the run.
        objective: built for this student and teacher; None builds one.

    Returns:
        The distiller.

    Raises:
        RailkdError: the labels of student and teacher differ, or the method fits its targets on a teacher cache and
            got a live teacher.
    """
    if isinstance(student, Distiller):
        _refuse_ready("a Distiller", args, (*_OF_OBJECTIVES, "freeze", "freeze_embeddings"), spec)
        student.splits_batches = student.splits_batches or args.length_groups == "split"
        return student
    shape = None
    if teacher is not None:
        pairing.check_labels(student.config, teacher.info)
        shape = teacher.info.shape
    freeze(student, args.freeze or (), blocks=args.blocks)
    if args.freeze_embeddings:
        student.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
    set_seed(args.seed)  # for the initial weights of the projections
    if objective is not None:
        pooling = spec.pooling if objective.weights.get("intermediate") else None
        distiller = Distiller(student, objective, pooling=pooling, blocks=args.blocks)
    else:
        options = args.objective_options()
        distiller = Distiller.from_method(spec, student, shape, blocks_pattern=args.blocks, **options)
    distiller.splits_batches = args.length_groups == "split"
    if isinstance(teacher, StoredTeacher) and distiller.pooling:
        pairing.check_components(spec.name, distiller.objective, teacher.identity.states_dim)
    distiller.objective.checks_draws = False  # they come from the objective, and reading them would make a step wait
    if distiller.objective.needs_fit and distiller.pooling:  # a term without weight reads no states
        if not isinstance(teacher, StoredTeacher):
            raise RailkdError(
                f"{spec.name} fits its targets on a teacher cache, got a live teacher; "
                "build a cache (TeacherCache.build, or drop --live)"
            )
        distiller.objective.fit(teacher.moments(distiller.pooling))
    return distiller


def make_negatives(
    distiller: Distiller,
    teacher: Teacher | None,
    method: str,
    seed: int,
    dataset: Any,
    keys: np.ndarray | None,
) -> Negatives | None:
    """Return the sampler of negative rows for a contrastive method.

    Args:
        distiller: its objective sets the number of negative rows.
        teacher: must be a cache for a contrastive method.
        method: its name, for messages.
        seed: of the run.
        dataset: the prepared training rows.
        keys: example keys of these rows, (N, 2). None for a stream.

    Returns:
        The sampler, or None if the method is not contrastive.

    Raises:
        RailkdError: the method is contrastive, and the rows are a stream or the teacher is not a cache.
    """
    count = distiller.objective.negatives
    if count and keys is None and dataset is not None:
        raise RailkdError(f"{method} draws rows to contrast with, which a stream does not let; wanted a Dataset")
    if not count or distiller.pooling is None or keys is None:
        return None
    if not isinstance(teacher, StoredTeacher):
        raise RailkdError(
            f"{method} contrasts with other rows of a teacher cache, got a live teacher; "
            "build a cache (TeacherCache.build, or drop --live)"
        )
    by_class = distiller.objective.negatives_by_class and "labels" in dataset.column_names
    labels = dataset["labels"] if by_class else None
    return Negatives(teacher, keys, labels, pooling=distiller.pooling, count=count, seed=seed)


def separate_groups(optimizer: torch.optim.Optimizer, module: nn.Module, rate: float | None) -> None:
    """Move the parameters of a module into new groups of the optimizer.

    Args:
        optimizer: changed in place.
        module: its parameters are moved.
        rate: learning rate of the new groups; None moves nothing.
    """
    if rate is None:
        return
    theirs = {id(parameter) for parameter in module.parameters()}
    for group in list(optimizer.param_groups):
        moved = [parameter for parameter in group["params"] if id(parameter) in theirs]
        if moved:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in theirs]
            optimizer.add_param_group({**group, "params": moved, "lr": rate})
