"""The main job: data -> teacher -> cache -> student -> metrics -> record. Command line and demo both call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed

from railkd.errors import RailkdError
from railkd.jobs import check
from railkd.jobs.cache import cache_line
from railkd.jobs.given_teacher import GivenTeacher
from railkd.jobs.options import DistillOptions, FinetuneOptions, Say
from railkd.jobs.request import Request
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.splits import Splits
from railkd.jobs.train import Trainee, fit, training_arguments
from railkd.models.checkpoints import Checkpoint
from railkd.models.limits import truncation_line
from railkd.models.student import blocks_to_keep, describe_student, make_student
from railkd.objectives import method_spec
from railkd.records import RunRecord
from railkd.runtime.progress import bar
from railkd.signals import BlockShape, checked_poolings
from railkd.tasks.target import Target
from railkd.teacher import LiveTeacher, TeacherCache
from railkd.training import DistillationTrainingArguments
from railkd.training.arguments import Shapes


def distill(request: Request[DistillOptions], say: Say, callbacks: Sequence[Any] = ()) -> RunRecord:
    """Distil a teacher, or the cache of one, into a student.

    Args:
        request: what the run was asked.
        say: receives lines for the user.
        callbacks: as transformers' Trainer takes them.

    Returns:
        The record of the run; its files are in the run folder.

    Raises:
        RailkdError: rows, models or settings that do not fit each other.
    """
    options = request.options
    spec = method_spec(request.training.get("method", "rail-kd-l"))
    teacher = GivenTeacher.find(options)
    splits = Splits.read(options, lambda table: teacher.target, say)
    start = _starts_from(options, teacher.checkpoint)
    args = training_arguments(
        request, len(splits.train), splits.metric, say, teacher.cache, _shapes(options, start, teacher.shape)
    )
    make = _student_plan(options, splits.target, start, args.blocks)
    teacher.check_max_length(options.max_length)
    splits.check_lengths(start, args.max_length, "the student")
    say(truncation_line(splits.train.rows, start.tokenizer, args.max_length))
    record = RunRecord("distill", spec.name, args.seed, config=request.as_dict())
    signals: LiveTeacher | TeacherCache | None = None
    # The check of the teacher and its pass read one model, which is released before the student is made.
    with teacher.sharing():
        if spec.needs_teacher and not options.resume:  # a resumed run has passed
            check.before_distilling(options, splits, teacher, args.max_length, say)
        if spec.needs_teacher and options.live:
            signals = _live(teacher.checkpoint, args, spec.pooling)
        elif spec.needs_teacher:
            with record.phase("teacher pass"):
                signals = _cache(options, teacher, splits.texts(), args, spec.pooling, say)
    set_seed(args.seed)
    student = make()
    say(f"student: {describe_student(start, student)}")
    return fit(Trainee(args, student, start.tokenizer, signals, splits), request, record, say, callbacks)


def check_settings(request: Request[FinetuneOptions | DistillOptions], teacher: Checkpoint | None) -> None:
    """Refuse what a run would refuse once it has started, as far as settings and configs tell; no row is read.

    Args:
        request: what the run is asked.
        teacher: its checkpoint; None: it is on the hub, and is not asked for.

    Raises:
        RailkdError: settings that do not fit each other or the models.
    """
    options = request.options
    metric = "accuracy" if options.eval or options.eval_share else None
    if isinstance(options, FinetuneOptions):
        training_arguments(request.with_training(method="finetune"), 1, metric, lambda line: None)
        return
    shapes = None
    if teacher is not None and (options.student is None or Path(options.student).is_dir()):
        shapes = _shapes(options, _starts_from(options, teacher), teacher.shape)
    training_arguments(request, 1, metric, lambda line: None, shapes=shapes)


def _cache(
    options: DistillOptions,
    teacher: GivenTeacher,
    texts: Dataset,
    args: DistillationTrainingArguments,
    pooling: str | None,
    say: Say,
) -> TeacherCache:
    """The cache of this run: as it is when no teacher was named, otherwise checked, and built where it lacks rows."""
    stored = teacher.cache
    if stored is not None and pooling is not None:
        stored.check_pooling(pooling)
    if teacher.checkpoint is None:
        assert stored is not None
        say(cache_line(stored))
        return stored
    # What the user did not ask for is taken from the cache that is there: it need not be built again for a default.
    needed = [pooling] if pooling else list(stored.poolings) if stored else ["mean"]
    own = options.cache is None  # a part of the run: replaced with it
    with bar("teacher pass", "rows", quiet=options.quiet) as advance:
        cache = TeacherCache.build(
            teacher.checkpoint,
            texts,
            options.cache or RunFolder(Path(str(args.output_dir))).cache,
            max_length=args.max_length,
            pooling=checked_poolings([*needed, *(options.pooling or ())]),
            dtype=stored.identity.states_dtype if stored else "float16",
            bf16=stored.identity.precision == "bfloat16" if stored else args.bf16,
            blocks=args.teacher_blocks or (stored.identity.blocks if stored else None),
            overwrite=own and options.overwrite,
            on_progress=advance,
        )
    say(cache_line(cache))
    return cache


def _live(teacher: Checkpoint | None, args: DistillationTrainingArguments, pooling: str | None) -> LiveTeacher:
    """The teacher that runs at every step."""
    if teacher is None:
        raise RailkdError("--live runs the teacher at every step; name it with --teacher")
    model, poolings = teacher.frozen().to(args.device), (pooling or "mean",)
    options: dict[str, Any] = {"max_length": args.max_length, "bf16": args.bf16, "blocks": args.teacher_blocks}
    return LiveTeacher(model, teacher.tokenizer, poolings=poolings, **options)


def _shapes(options: DistillOptions, start: Checkpoint, teacher: BlockShape) -> Shapes:
    """Blocks and widths of student and teacher: settings that do not fit them are refused before the teacher runs."""
    return BlockShape(options.student_layers or start.shape.blocks, start.shape.width), teacher


def _student_plan(options: DistillOptions, target: Target, start: Checkpoint, blocks: str | None) -> Callable[[], Any]:
    """Return a function that makes the student; bad layer counts are refused before anything long starts."""
    keep = options.keep if not options.keep[:1].isdigit() else [int(block) for block in options.keep.split(",")]
    head = target.head if options.student else {}
    layers = options.student_layers
    if layers is None and not options.student:
        raise RailkdError(
            "got neither --student-layers nor --student; wanted the number of student blocks, or a checkpoint"
        )
    if layers is None:  # a head of another task's size is made anew
        return lambda: start.model(**head)
    blocks_to_keep(layers, start.shape.blocks, keep)
    return lambda: make_student(start, layers, keep, blocks=blocks, **head)


def _starts_from(options: DistillOptions, teacher: Checkpoint | None) -> Checkpoint:
    """The checkpoint that the student's weights come from."""
    if options.student:
        return Checkpoint.find(options.student, trust=options.trust_remote_code)
    if teacher is None:
        raise RailkdError("--cache without --teacher needs --student: the checkpoint to start from")
    return teacher
