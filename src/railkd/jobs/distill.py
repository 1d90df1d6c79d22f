"""Distils a teacher into a student: reads the data, runs the teacher or its cache, trains and scores the student."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed

from railkd.data.reader import Table
from railkd.errors import RailkdError
from railkd.jobs import check
from railkd.jobs.arguments import training_arguments
from railkd.jobs.given_teacher import GivenTeacher
from railkd.jobs.given_teachers import GivenTeachers
from railkd.jobs.imbalance import weigh_classes
from railkd.jobs.options import DistillOptions, FinetuneOptions, Say
from railkd.jobs.request import Request, on_its_device
from railkd.jobs.rescaling import check_rescaling, fit_on_training_rows
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.splits import Splits
from railkd.jobs.train import Trainee, fit, reserved
from railkd.jobs.trimming import Pieces
from railkd.models.checkpoints import Checkpoint
from railkd.models.limits import truncation_line
from railkd.models.loading import on_device
from railkd.models.named_teachers import named_teachers
from railkd.models.starts import Keep, blocks_to_keep
from railkd.models.student import describe_student, make_student
from railkd.objectives import MethodSpec, method_spec
from railkd.objectives.base import normalised_weights
from railkd.records import RunRecord
from railkd.runtime.addresses import is_address
from railkd.runtime.progress import bar
from railkd.signals import NO_POOLING, BlockShape, checked_poolings
from railkd.tasks.metrics import check_choice
from railkd.tasks.target import Target
from railkd.teacher import LiveTeacher, StoredTeacher, TeacherCache
from railkd.teacher.components import check_dim
from railkd.teacher.identity import content_of
from railkd.training import DistillationTrainingArguments
from railkd.training.arguments import Shapes
from railkd.training.pairing import check_components


@on_its_device
def distill(request: Request[DistillOptions], say: Say, callbacks: Sequence[Any] = ()) -> RunRecord:
    """Distil a teacher, or the cache of one, into a student: a `railkd.jobs.train.TrainingJob`."""
    options = request.options
    spec = method_spec(request.training.get("method", "rail-kd-l"))
    teacher = GivenTeachers.find(options, say)
    splits = _read(request, teacher, spec.needs_teacher, say)
    if options.rescale_teacher:
        check_rescaling(teacher.target.task, needs_teacher=spec.needs_teacher)
    start = _starts_from(options, teacher.checkpoint)
    lengths, shapes = teacher.max_lengths(options.max_length, say), _shapes(options, start, teacher.lead.shape)
    max_length = lengths[teacher.states]
    _check_dim(options, spec, teacher.lead)
    copied = _start(options, start)
    up = splits.greater_is_better
    asked = _asked(request, copied)
    args = training_arguments(asked, len(splits.train), splits.metric, say, max_length, shapes, greater=up)
    _mix(args, splits, say)
    weigh_classes(options, args, splits, say)
    make = _student_plan(options, splits.target, start, args.blocks)
    if options.student:  # before the teacher runs
        start.check_weights(new_head=True)
    teacher.check_caches(options.max_length, spec, lengths)
    pieces = Pieces.choose(options.vocabulary, start.tokenizer, splits.texts(), say)
    splits.check_lengths(start.config, pieces.tokenizer, args.max_length, "the student")
    say(truncation_line(splits.train.rows, pieces.tokenizer, args.max_length))
    record = RunRecord("distill", spec.name, args.seed, config=request.as_dict(), start=copied | pieces.note())
    record.paper = spec.paper
    record.contents = splits.contents | teacher.contents | _other_contents(options, start, spec)
    signals: LiveTeacher | StoredTeacher | None = None
    with ExitStack() as run:
        # The check and the teacher pass share one model, which is released before the student is made.
        with teacher.sharing():
            if spec.needs_teacher and not options.resume:  # skip the check on resume: it passed when the run began
                check.before_distilling(options, splits, teacher, lengths, say)
            run.enter_context(reserved(request, record, say))
            if spec.needs_teacher and options.live:
                signals = _live(teacher.checkpoint, args, spec.pooling)
            elif spec.needs_teacher:
                with record.phase("teacher pass"):
                    signals = _stored(options, teacher, splits.texts(), args, spec.pooling, lengths, say)
        if isinstance(signals, StoredTeacher) and spec.pooling:
            record.start |= _states_note(signals.parts[teacher.states])
        if signals is not None and options.rescale_teacher:
            _rescale(signals, splits.train, args, record, say)
        set_seed(args.seed)
        student = pieces.fit(make())
        say(f"student: {describe_student(start, student)}{_start_line(record.start)}")
        if spec.recipe:
            say(_recipe_line(args, record.start, splits))
        return fit(Trainee(args, student, pieces.tokenizer, signals, splits), request, record, say, callbacks)


def _read(request: Request[DistillOptions], teacher: GivenTeachers, teaches: bool, say: Say) -> Splits:
    """Read the tables, and leave out texts without labels where only labels teach: they would use up its steps."""
    splits = Splits.read(request.options, lambda table: teacher.target, say, teacher.trained)
    if splits.unlabelled is not None and not teaches:
        say(f"finetune: leaves out {len(splits.unlabelled):,} texts without labels, from which it would learn nothing")
        splits = replace(splits, unlabelled=None, mixture=None)
    if teaches:
        splits = teacher.leave_out_unanswered(splits, say)
    return splits.choosing_by(request.training.get("metric_for_best_model"))


def _mix(args: DistillationTrainingArguments, splits: Splits, say: Say) -> None:
    """Set the share of every batch that each source has, and say it."""
    if splits.mixture is not None and (found := splits.mixture.of_batches(len(splits.train))):
        args.source_rows, args.source_shares = found[:2]
        say(splits.mixture.describe(len(splits.train)))


def _rescale(
    teacher: LiveTeacher | StoredTeacher, train: Table, args: DistillationTrainingArguments, record: RunRecord, say: Say
) -> None:
    """Fit the line that puts the teacher's outputs on the scale of the labels, for the training and the record."""
    line, rows = fit_on_training_rows(teacher, train, args.max_length)
    args.teacher_line = record.teacher_line = [line.slope, line.offset]
    say(f"teacher: its outputs x become {line}, fitted on {rows:,} training rows (--rescale-teacher)")


def check_settings(request: Request[FinetuneOptions | DistillOptions], teacher: Checkpoint | None) -> None:
    """Check settings and model configs before a run starts, without reading a row.

    Settings that do not fit each other or the models raise `railkd.errors.RailkdError`.

    Args:
        request: options and training arguments of the run.
        teacher: checkpoint of the teacher; None if it is on the hub, which is not contacted.
    """
    options = request.options
    name = request.training.get("metric_for_best_model") or "accuracy"
    own = [name.removeprefix("eval_")] if any(map(is_address, options.metrics)) else []  # what a function may compute
    chosen = check_choice(name, own=own)
    metric = chosen if options.eval or options.eval_share else None
    if isinstance(options, FinetuneOptions):
        training_arguments(request.with_training(method="finetune"), 1, metric, lambda line: None, 1)
        return
    shapes = None
    if teacher is not None and (options.student is None or Path(options.student).is_dir()):
        shapes = _shapes(options, _starts_from(options, teacher), teacher.shape)
    training_arguments(request, 1, metric, lambda line: None, 1, shapes)


def _check_dim(options: DistillOptions, spec: MethodSpec, teacher: GivenTeacher) -> None:
    """Refuse principal components that the method or the teacher does not fit, before the teacher runs."""
    if spec.pooling:
        check_components(spec.name, spec.objective, options.states_dim or teacher.states_dim)
    if teacher.checkpoint is not None:
        poolings = [*(options.pooling or []), *([spec.pooling] if spec.pooling else [])]
        check_dim(options.states_dim, teacher.checkpoint.shape.width, poolings)


def _stored(
    options: DistillOptions,
    teacher: GivenTeachers,
    texts: Dataset,
    args: DistillationTrainingArguments,
    pooling: str | None,
    lengths: Sequence[int],
    say: Say,
) -> StoredTeacher:
    """Return the stored answers for this run, each teacher in a cache of its own. One of them gives the states."""
    own, named = RunFolder(Path(str(args.output_dir))).cache, named_teachers(options)
    found = []
    for number, (member, one, length) in enumerate(zip(teacher.members, named, lengths, strict=True), 1):
        path = one.cache or str(own / str(number) if named[1:] else own)
        asked = replace(options, cache=one.cache)
        reads = pooling if number - 1 == teacher.states else None
        found.append(_cache(asked, member, path, texts, args, (reads, length), say))
    return teacher.join(found)


def _cache(
    options: DistillOptions,
    teacher: GivenTeacher,
    path: str,
    texts: Dataset,
    args: DistillationTrainingArguments,
    reads: tuple[str | None, int],
    say: Say,
) -> StoredTeacher:
    """Return the stored answers of one teacher. If it can run, check its cache and add the rows that it lacks.

    ``reads`` holds the pooling of the states that are read, if any, and the length at which texts are cut.
    """
    stored, (pooling, max_length) = teacher.cache, reads
    if teacher.checkpoint is None:
        assert stored is not None
        say(stored.described)
        return stored
    assert stored is None or isinstance(stored, TeacherCache)
    if stored is not None and pooling is not None and not stored.poolings:
        cost = stored.cost_of_states(pooling, options.cache_dtype, options.states_dim)
        say(f"teacher cache: {stored.path} holds outputs alone; {cost}")
    # Settings that the user leaves out come from the existing cache, so that a default does not rebuild it.
    wanted = {pooling} if pooling else set(stored.poolings if stored else ())
    wanted |= set(checked_poolings(options.pooling or [NO_POOLING]))
    own = options.cache is None  # a cache in the run folder is replaced together with the run
    with bar("teacher pass", "rows", quiet=options.quiet) as advance:
        cache = TeacherCache.build(
            teacher.checkpoint,
            texts,
            path,
            max_length=max_length,
            pooling=sorted(wanted) or NO_POOLING,
            states_dim=(options.states_dim or teacher.states_dim) if wanted else None,
            dtype=options.cache_dtype or (stored.identity.states_dtype if stored else "float16"),
            bf16=stored.identity.precision == "bfloat16" if stored else args.bf16,
            blocks=args.teacher_blocks or (stored.identity.blocks if stored else None),
            overwrite=own and options.overwrite,
            on_progress=advance,
        )
    say(cache.described)
    return cache


def _states_note(cache: StoredTeacher) -> dict[str, Any]:
    """Return how the states are stored, for the record; empty for whole states in float16, the default."""
    dtype, dim = cache.identity.states_dtype, cache.identity.states_dim
    if not isinstance(cache, TeacherCache) or (dtype == "float16" and not dim):
        return {}
    return {"states": {"dtype": dtype, "row_bytes": cache.row_bytes} | ({"dim": dim} if dim else {})}


def _live(teacher: Checkpoint | None, args: DistillationTrainingArguments, pooling: str | None) -> LiveTeacher:
    """Return a teacher that runs at every step."""
    if teacher is None:
        raise RailkdError(
            "Expected --teacher beside --live, which runs the teacher at every step, got none. Fix: give --teacher DIR."
        )
    model, poolings = on_device(teacher.frozen(), args.device), (pooling or "mean",)
    bf16 = args.bf16 and teacher.precision == "float32"
    options: dict[str, Any] = {"max_length": args.max_length, "bf16": bf16, "blocks": args.teacher_blocks}
    return LiveTeacher(model, teacher.tokenizer, poolings=poolings, **options)


def _shapes(options: DistillOptions, start: Checkpoint, teacher: BlockShape) -> Shapes:
    """Return blocks and width of student and teacher, so that settings are checked before the teacher runs."""
    teacher = BlockShape(teacher.blocks, min(options.states_dim or teacher.width, teacher.width))
    return BlockShape(options.student_layers or start.shape.blocks, start.shape.width), teacher


def _student_plan(options: DistillOptions, target: Target, start: Checkpoint, blocks: str | None) -> Callable[[], Any]:
    """Return a function that makes the student, and refuse a bad number of layers before the teacher runs."""
    reordered = target.space.names and start.labels != target.space.names  # the states come from a later teacher
    head = target.head if options.student or reordered else {}
    layers = options.student_layers
    if layers is None and not options.student:
        raise RailkdError(
            "Expected --student-layers or --student, got neither. Fix: give the number of student blocks with "
            "--student-layers, or a checkpoint with --student."
        )
    if layers is None:  # a head with another number of outputs is replaced by a new one
        return lambda: start.model(**head)
    blocks_to_keep(layers, start.shape.blocks, _keep(options))
    return lambda: make_student(start, layers, _keep(options), blocks=blocks, **head)


def _keep(options: DistillOptions) -> Keep:
    """Return the rule, or the block numbers, of ``--keep``."""
    return [int(block) for block in options.keep.split(",")] if options.keep[:1].isdigit() else options.keep


def _start(options: DistillOptions, start: Checkpoint) -> dict[str, Any]:
    """Return the rule and the blocks that the student copies, for the record; empty if it takes a whole checkpoint."""
    if options.student_layers is None:
        return {}
    blocks = blocks_to_keep(options.student_layers, start.shape.blocks, _keep(options))
    return {"keep": options.keep, "blocks": list(blocks)}


def _asked(request: Request[DistillOptions], copied: Mapping[str, Any]) -> Request[DistillOptions]:
    """Return the request; of a method that matches all blocks, with the blocks that the student copies as default."""
    options = method_spec(request.training.get("method", "rail-kd-l")).options
    if "taught_by" not in options or not copied or request.options.student or request.training.get("taught_by"):
        return request
    return request.with_training(taught_by=copied["blocks"])


def _recipe_line(args: DistillationTrainingArguments, start: Mapping[str, Any], splits: Splits) -> str:
    """Describe each part of a recipe: start, terms, what is frozen, and text."""
    blocks = (
        f"blocks {', '.join(map(str, start['blocks']))} ({start['keep']})"
        if "blocks" in start
        else "the checkpoint of --student"
    )
    weights = normalised_weights(args.weights, method_spec(args.method).objective.terms)
    terms = " + ".join(f"{weight:g} {name.upper()}" for name, weight in weights.items())
    extra = "no text without labels; --unlabelled FILE adds it, which pays most"
    if splits.unlabelled is not None:
        extra = f"{len(splits.unlabelled):,} texts without labels"
    return (
        f"{args.method}: start from {blocks}; loss {terms} at T {args.temperature:g}; frozen: "
        f"{', '.join(args.freeze or ['nothing'])}; {extra}"
    )


def _start_line(start: Mapping[str, Any]) -> str:
    """Return the end of the line about the student: its blocks, and the rule that chose them."""
    if "blocks" not in start:
        return ""
    return f"; starts from blocks {', '.join(map(str, start['blocks']))} (--keep {start['keep']})"


def _other_contents(options: DistillOptions, start: Checkpoint, spec: MethodSpec) -> dict[str, str]:
    """Return the digests of a checkpoint that is not the teacher, and of the file of a method from outside."""
    found = {"student": content_of(start)} if options.student else {}
    return found | ({"method": spec.digest} if spec.digest else {})


def _starts_from(options: DistillOptions, teacher: Checkpoint | None) -> Checkpoint:
    """Return the checkpoint that the student's weights come from."""
    if options.student:
        return Checkpoint.find(options.student, trust=options.trust_remote_code)
    if teacher is None:
        raise RailkdError(
            "Expected --student beside --cache or --teacher-labels without --teacher, got none. Fix: give --student "
            "with the checkpoint that the student starts from, or give --teacher."
        )
    return teacher
