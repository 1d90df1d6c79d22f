"""Check what each job requires of its options, before anything heavy is imported.

Each function collects all problems and raises them as one error, so that a user corrects a command once.
"""

from __future__ import annotations

from pathlib import Path

from railkd.data.shares import split_share
from railkd.errors import RailkdError, did_you_mean
from railkd.jobs.class_weights import parse_class_weights
from railkd.jobs.deciding_checks import check_suspects
from railkd.jobs.options import (
    CacheOptions,
    CheckOptions,
    DistillOptions,
    EvaluateOptions,
    FinetuneOptions,
    RunOptions,
    ScoreOptions,
)
from railkd.jobs.paths import compare
from railkd.jobs.request import Request
from railkd.jobs.text_options import AugmentOptions
from railkd.jobs.validation import (
    Problems,
    check_at_least,
    check_cache_folder,
    check_data,
    check_device,
    check_effect,
    check_method,
    check_model,
    check_output_table,
    check_push_target,
    check_run_folder,
    check_target,
    check_training,
    check_vocabulary,
    depth_of,
)
from railkd.models.named_teachers import as_list, check_once, check_teachers, check_weights, start_model
from railkd.models.starts import KEEP_WORDS, RULES
from railkd.runtime.addresses import is_address
from railkd.tasks.metrics import find_metric
from railkd.tasks.own_metrics import OwnMetrics

#: Options of a teacher pass, which verifying a cache does not make.
_OF_A_PASS = (
    *("teacher", "train", "pooling", "teacher_dtype", "teacher_device_map", "device"),
    *("dtype", "states_dim", "from_labels"),
)
#: Options of a model that a file of answers stands in for.
_OF_A_MODEL = {
    "teacher_labels": ("cache_dtype", "states_dim", "live", "pooling"),
    "from_labels": (
        "teacher",
        "train",
        "pooling",
        "dtype",
        "states_dim",
        "batch_size",
        "batch_tokens",
        "bf16",
        "blocks",
        "max_length",
    ),
}


def check_finetune(request: Request[FinetuneOptions]) -> None:
    """Check the options of ``railkd finetune``.

    One `RailkdError` names all problems.

    Args:
        request: options and training arguments of the job.
    """
    options = request.options
    problems = Problems()
    problems.require(options, "model", "train", "output")
    check_training(problems, request.training)
    check_data(problems, options)
    check_model(problems, options.model, "--model")
    check_vocabulary(problems, options)
    _check_metrics(problems, options)
    check_run_folder(problems, options)
    check_push_target(problems, options, "push_to_hub")
    problems.report()


def check_distill(request: Request[DistillOptions]) -> None:
    """Check the options of ``railkd distill``; see `check_finetune`. The method comes last: its table needs torch."""
    options = request.options
    problems = Problems()
    problems.require(options, "train", "output")
    _check_origin(problems, options)
    check_teachers(problems, options)
    if options.cache and options.live:
        problems.add(
            "--cache and --live exclude each other. Fix: --cache reads stored states, --live runs the teacher at every "
            "step"
        )
    if (options.cache or options.teacher_labels) and not options.teacher and not options.student:
        flag = "--teacher-labels" if options.teacher_labels else "--cache"
        problems.add(f"{flag} without --teacher needs --student, the checkpoint that the student starts from")
    else:
        _check_caches(problems, options)
    if options.live:
        check_effect(problems, options, "with --live, which stores nothing", "pooling", "cache_dtype", "states_dim")
    if options.student and options.student_layers is None:
        check_effect(problems, options, "without --student-layers", "keep")
    if not options.student and options.student_layers is None:
        problems.add(
            "--student-layers and --student are both missing. Fix: give the number of blocks, or a checkpoint for the "
            "student"
        )
    check_training(problems, request.training)
    check_data(problems, options)
    _check_blocks(problems, options)
    check_vocabulary(problems, options)
    _check_metrics(problems, options)
    check_run_folder(problems, options)
    check_push_target(problems, options, "push_to_hub")
    problems.report()
    method = request.training.get("method", "rail-kd-l")
    check_method(request.training, method)
    _check_poolings(options)
    _check_states(options, method)


def check_cache(request: Request[CacheOptions]) -> None:
    """Check the options of ``railkd cache``; see `check_finetune`."""
    options = request.options
    problems = Problems()
    alone = options.verify or options.from_labels
    problems.require(options, *(("cache",) if alone else ("teacher", "train", "cache")))
    _check_answers(problems, options, "from_labels")
    if options.verify:
        check_effect(problems, options, "with --verify, which reads the cache alone", *_OF_A_PASS)
    check_data(problems, options)
    check_model(problems, options.teacher, "--teacher")
    if options.cache:
        path = Path(options.cache)
        check_cache_folder(problems, options.cache, replaced=options.overwrite, read_only=options.verify)
        if options.verify and not path.exists():
            problems.add(f"--cache: expected a cache to verify, but there is no folder '{path}'")
        compare(problems, options, {"--cache": options.cache})
    if options.verify and options.overwrite:
        problems.add(
            "--verify and --overwrite exclude each other. Fix: --verify reads the cache, --overwrite replaces it"
        )
    problems.report()
    _check_poolings(options)


def check_augment(request: Request[AugmentOptions]) -> None:
    """Check the options of ``railkd augment``; see `check_finetune`."""
    options = request.options
    problems = Problems()
    problems.require(options, *(("output",) if options.unlabelled else ("train", "output")))
    check_data(problems, options)
    check_at_least(problems, options, 1, "copies")
    check_at_least(problems, options, 0, "seed")
    if not 0 < options.rate <= 1:
        problems.add(f"--rate: expected a share above 0 and at most 1, such as 0.3, got {options.rate:g}")
    if options.one_side is not None and not 0 <= options.one_side <= 1:
        problems.add(f"--one-side: expected a share from 0 to 1, such as 0.5, got {options.one_side:g}")
    with problems.collect():
        if any(split_share(text)[1] is not None for text in options.unlabelled):
            problems.add("--unlabelled: a share has no effect here, all rows are read. Fix: leave it out")
    if not options.how or len(set(options.how)) < len(options.how):
        problems.add(f"--how: expected each way once, got {' '.join(options.how) or 'none'}")
    if options.output:
        check_output_table(problems, options)
    problems.report()


def refuse_label_flags(options: CacheOptions) -> None:
    """Refuse flags about labels for a teacher pass, which reads texts alone. A grid gives them to all its jobs.

    Args:
        options: of ``railkd cache``.
    """
    problems = Problems()
    if not options.from_labels:
        reason = "without --from-labels: a teacher pass reads texts alone"
        check_effect(problems, options, reason, "label_column", "label_map", "problem_type")
    problems.report()


def check_evaluate(request: Request[EvaluateOptions]) -> None:
    """Check the options of ``railkd evaluate``; see `check_finetune`."""
    options = request.options
    problems = Problems()
    problems.require(options, *(("model",) if options.ood else ("model", "test")))
    check_data(problems, options)
    models = as_list(options.model)
    for name in models:
        check_model(problems, name, "--model", onnx=True)
    if len(models) > 1:
        check_effect(problems, options, "on the mean of several models", "teacher", "latency", "thresholds")
        check_once(problems, "--model", models, "--model-weights")
        check_weights(problems, "--model-weights", options.model_weights, models)
    else:
        check_effect(problems, options, "on one model", "model_weights")
    _check_metrics(problems, options)
    check_model(problems, options.teacher, "--teacher", onnx=True)
    for name in options.latency:
        check_model(problems, name, "--latency", onnx=True)
    check_device(problems, options, *models)
    if options.output:
        check_target(problems, Path(options.output), folder=False)
        compare(problems, options, {"--output": options.output})
    problems.report()


def check_check(request: Request[CheckOptions]) -> None:
    """Check the options of ``railkd check``; see `check_finetune`."""
    options = request.options
    problems = Problems()
    problems.require(options, "train")
    _check_origin(problems, options)
    if not options.epochs > 0:
        problems.add(f"--epochs: expected a number above 0, got {options.epochs:g}")
    check_at_least(problems, options, 1, "student_layers", "max_steps")
    check_vocabulary(problems, options)
    check_teachers(problems, options)
    _check_caches(problems, options)
    check_data(problems, options)
    for name in as_list(options.teacher):
        check_model(problems, name, "--teacher")
    check_model(problems, options.student, "--student")
    check_suspects(problems, options)
    problems.report()
    _check_poolings(options)


def _check_metrics(problems: Problems, options: ScoreOptions) -> None:
    # Whether metrics and classes fit the task is checked with the rows.
    for name in options.metrics:
        with problems.collect():
            OwnMetrics.load(name) if is_address(name) else find_metric(name)
    if isinstance(options, RunOptions) and options.class_weights is not None:
        with problems.collect():
            parse_class_weights(options.class_weights)


def _check_origin(problems: Problems, options: DistillOptions | CheckOptions) -> None:
    # There must be a teacher, or a cache that stands in for it.
    _check_answers(problems, options, "teacher_labels")
    if options.teacher:
        return
    of_a_pass = "teacher_dtype", "teacher_device_map", "cache_dtype", "states_dim"
    check_effect(problems, options, "without --teacher", *of_a_pass)
    if options.teacher_labels and not options.cache:
        return
    if not options.cache:
        problems.add(
            "--teacher and --cache are both missing. Fix: give a fine-tuned teacher, the cache of one, or a file of "
            "its answers with --teacher-labels"
        )
    elif isinstance(options.cache, str) and not Path(options.cache).is_dir():
        problems.add(f"--cache: no folder '{options.cache}'. Fix: check the path, or give --teacher to build the cache")


def _check_caches(problems: Problems, options: DistillOptions | CheckOptions) -> None:
    for cache in as_list(options.cache):
        check_cache_folder(problems, cache)


def _check_answers(problems: Problems, options: DistillOptions | CheckOptions | CacheOptions, name: str) -> None:
    # A file of answers stands in for the model and its states.
    flag = f"--{name.replace('_', '-')}"
    if not getattr(options, name):
        check_effect(problems, options, f"without {flag}", "labels", "label_smoothing")
        return
    if not 0 <= options.label_smoothing < 1:
        problems.add(f"--label-smoothing: expected a share from 0 to 1, such as 0.1, got {options.label_smoothing:g}")
    alone = name == "from_labels" or not (options.teacher or options.cache)
    unused = [other for other in _OF_A_MODEL[name] if hasattr(options, other) and alone]
    check_effect(problems, options, f"with {flag}, which stands in for the model and its states", *unused)


def _check_blocks(problems: Problems, options: DistillOptions) -> None:
    # Compares the student's depth with that of the model it is cut from, as far as config.json tells.
    given = {name: check_model(problems, name, "--teacher") for name in as_list(options.teacher)}
    teacher = given.get(start_model(options) or "")
    student = check_model(problems, options.student, "--student")
    origin, layers = student if options.student else teacher, options.student_layers
    depth = depth_of(origin)
    check_at_least(problems, options, 1, "student_layers")
    if layers is not None and depth is not None and layers > depth:
        problems.add(f"--student-layers: expected at most {depth}, the blocks of '{origin}', got {layers}")
    if options.keep in RULES:
        return
    parts = options.keep.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        near = did_you_mean(options.keep, RULES)
        problems.add(f"--keep: expected {KEEP_WORDS}, got '{options.keep}'.{near}")
    elif layers is not None and len(parts) != layers:
        problems.add(f"--keep: expected {layers} block numbers, as many as --student-layers, got {len(parts)}")


def _check_states(options: DistillOptions, method: str) -> None:
    """Refuse a cache of outputs alone for a method that reads states."""
    from railkd.objectives import method_spec
    from railkd.signals import checked_poolings

    pooling = method_spec(method).pooling
    if options.teacher_labels and pooling and not (options.teacher or options.cache):
        from railkd.teacher.stored import no_states

        raise RailkdError(f"--method {method}: {no_states(', '.join(as_list(options.teacher_labels)), pooling)}")
    stores = checked_poolings(options.pooling) if options.pooling else pooling
    if options.states_dim and not stores:
        raise RailkdError(
            f"--states-dim has no effect with --method {method}, which stores no states. Fix: leave it out"
        )
    if options.pooling and pooling and not stores:
        raise RailkdError(
            f"--pooling: expected the states that {method} reads, got none. Fix: leave the flag out, or give --pooling "
            f"{pooling}."
        )


def _check_poolings(options: DistillOptions | CacheOptions | CheckOptions) -> None:
    if options.pooling:
        from railkd.signals import checked_poolings

        checked_poolings(options.pooling)
