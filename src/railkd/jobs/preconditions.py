"""Check what each job requires of its options, before anything heavy is imported.

Each function collects all problems and raises them as one error, so that a user corrects a command once.
"""

from __future__ import annotations

from pathlib import Path

from railkd.errors import did_you_mean
from railkd.jobs.options import (
    CacheOptions,
    CheckOptions,
    DistillOptions,
    EvaluateOptions,
    FinetuneOptions,
    PredictOptions,
)
from railkd.jobs.request import Request
from railkd.jobs.validation import (
    Problems,
    check_data,
    check_method,
    check_model,
    check_run_folder,
    check_target,
    check_training,
    depth_of,
)

_KEEP = ("even", "first", "last")


def check_finetune(request: Request[FinetuneOptions]) -> None:
    """Check the options of ``railkd finetune``.

    Args:
        request: options and training arguments of the job.

    Raises:
        RailkdError: names all problems.
    """
    options = request.options
    problems = Problems()
    problems.require(options, "model", "train", "output")
    check_training(problems, request.training)
    check_data(problems, options)
    check_model(problems, options.model, "--model")
    _check_output(problems, options, "model", "train", "eval")
    problems.report()


def check_distill(request: Request[DistillOptions]) -> None:
    """Check the options of ``railkd distill``; see `check_finetune`. The method comes last: its table needs torch."""
    options = request.options
    problems = Problems()
    problems.require(options, "train", "output")
    _check_origin(problems, options)
    if options.cache and options.live:
        problems.add("got --cache and --live; wanted one of them: stored states, or the teacher at every step")
    if options.cache and not options.teacher and not options.student:
        problems.add("--cache without --teacher needs --student: the checkpoint to start from")
    elif options.cache and options.teacher and Path(options.cache).is_file():
        problems.add(f"--cache '{options.cache}' is a file, wanted a folder")
    if not options.student and options.student_layers is None:
        problems.add("got neither --student-layers nor --student; wanted the number of blocks, or a checkpoint")
    check_training(problems, request.training)
    check_data(problems, options)
    _check_blocks(problems, options)
    _check_output(problems, options, "teacher", "student", "train", "eval", "unlabelled")
    problems.report()
    check_method(request.training, request.training.get("method", "rail-kd-l"))
    _check_poolings(options)


def check_cache(request: Request[CacheOptions]) -> None:
    """Check the options of ``railkd cache``; see `check_finetune`."""
    options = request.options
    problems = Problems()
    problems.require(options, *(("cache",) if options.verify else ("teacher", "train", "cache")))
    check_data(problems, options)
    check_model(problems, options.teacher, "--teacher")
    if options.cache:
        path = Path(options.cache)
        if path.is_file():
            problems.add(f"--cache '{path}' is a file, wanted a folder")
        elif options.verify and not path.is_dir():
            problems.add(f"--cache '{path}': no such folder; wanted a cache to verify")
    if options.verify and options.overwrite:
        problems.add("got --verify and --overwrite; wanted one of them: read the cache, or build it anew")
    problems.report()
    _check_poolings(options)


def check_evaluate(request: Request[EvaluateOptions]) -> None:
    """Check the options of ``railkd evaluate``; see `check_finetune`."""
    options = request.options
    problems = Problems()
    problems.require(options, *(("model",) if options.ood else ("model", "test")))
    check_data(problems, options)
    check_model(problems, options.model, "--model")
    if options.output:
        check_target(problems, Path(options.output), folder=False)
    problems.report()


def check_predict(request: Request[PredictOptions]) -> None:
    """Check the options of ``railkd predict``; see `check_finetune`."""
    options = request.options
    problems = Problems()
    problems.require(options, "model", "test")
    if len(options.test) > 1:
        problems.add(f"--test: got {len(options.test)} files, wanted one: predictions keep the order of one file")
    check_data(problems, options)
    check_model(problems, options.model, "--model")
    if options.glue_submission:
        check_target(problems, Path(options.output or "."))
    elif options.output:
        check_target(problems, Path(options.output), folder=False)
        if Path(options.output).suffix not in (".tsv", ".jsonl"):
            problems.add(f"--output '{options.output}': wanted a name that ends in .tsv or .jsonl")
    problems.report()


def check_check(request: Request[CheckOptions]) -> None:
    """Check the options of ``railkd check``; see `check_finetune`."""
    options = request.options
    problems = Problems()
    problems.require(options, "train")
    _check_origin(problems, options)
    if not options.epochs > 0:
        problems.add(f"--epochs: got {options.epochs:g}, wanted a number above 0")
    _check_student_layers(problems, options.student_layers)
    check_data(problems, options)
    check_model(problems, options.teacher, "--teacher")
    check_model(problems, options.student, "--student")
    problems.report()
    _check_poolings(options)


def _check_origin(problems: Problems, options: DistillOptions | CheckOptions) -> None:
    """Require a teacher or a cache; without a teacher the cache must be there."""
    if options.teacher:
        return
    if not options.cache:
        problems.add("got neither --teacher nor --cache; wanted a fine-tuned teacher, or the cache of one")
    elif not Path(options.cache).is_dir():
        problems.add(f"no teacher cache at '{options.cache}'; check the path, or name the --teacher to build it")


def _check_output(problems: Problems, options: FinetuneOptions | DistillOptions, *inputs: str) -> None:
    check_run_folder(problems, options, {f"--{name}": getattr(options, name) for name in inputs})


def _check_student_layers(problems: Problems, layers: int | None) -> None:
    if layers is not None and layers < 1:
        problems.add(f"--student-layers: got {layers}, wanted at least 1")


def _check_blocks(problems: Problems, options: DistillOptions) -> None:
    """Compare the student's depth with the model it is cut from, as far as config.json tells."""
    teacher = check_model(problems, options.teacher, "--teacher")
    student = check_model(problems, options.student, "--student")
    origin, layers = student if options.student else teacher, options.student_layers
    depth = depth_of(origin)
    _check_student_layers(problems, layers)
    if layers is not None and depth is not None and layers > depth:
        problems.add(
            f"--student-layers: got {layers} blocks out of a model of {depth} ('{origin}'); wanted at most {depth}"
        )
    if options.keep in _KEEP:
        return
    parts = options.keep.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        near = did_you_mean(options.keep, _KEEP)
        problems.add(f"--keep: got '{options.keep}', wanted even, first, last or block numbers such as 1,3,6.{near}")
    elif layers is not None and len(parts) != layers:
        problems.add(f"--keep: got {len(parts)} blocks for a student of {layers}; wanted as many as --student-layers")


def _check_poolings(options: DistillOptions | CacheOptions | CheckOptions) -> None:
    if options.pooling:
        from railkd.signals import checked_poolings

        checked_poolings(options.pooling)
