"""``railkd distill``: from data and a teacher to a student, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from railkd.cli.verb import ALL_TRAINING, Verb, speaks, talker
from railkd.errors import did_you_mean
from railkd.jobs.options import DistillOptions
from railkd.jobs.validation import (
    Problems,
    check_data,
    check_method,
    check_model,
    check_run_folder,
    check_training,
    depth_of,
)

_KEEP = ("even", "first", "last")


def check(options: DistillOptions, training: dict[str, Any]) -> None:
    """What needs no torch to be seen; the name of the method comes last, because its table does."""
    problems = Problems()
    problems.required(options, "train", "output")
    if not options.teacher and not options.cache:
        problems.add("got neither --teacher nor --cache; wanted a fine-tuned teacher, or the cache of one")
    if options.cache and options.live:
        problems.add("got --cache and --live; wanted one of them: stored states, or the teacher at every step")
    if options.cache and not options.teacher:
        if not options.student:
            problems.add("--cache without --teacher needs --student: the checkpoint to start from")
        if not Path(options.cache).is_dir():
            problems.add(f"no teacher cache at '{options.cache}'; check the path, or name the --teacher to build it")
    elif options.cache and Path(options.cache).is_file():
        problems.add(f"--cache '{options.cache}' is a file, wanted a folder")
    if not options.student and options.student_layers is None:
        problems.add("got neither --student-layers nor --student; wanted the number of blocks, or a checkpoint")
    check_training(problems, training)
    check_data(problems, options)
    _check_blocks(problems, options)
    inputs = {
        "--teacher": options.teacher,
        "--student": options.student,
        "--train": options.train,
        "--eval": options.eval,
        "--unlabelled": options.unlabelled,
    }
    check_run_folder(problems, options, inputs)
    problems.report()
    check_method(training, training.get("method", "rail-kd-l"))
    if options.pooling:
        from railkd.signals import checked_poolings

        checked_poolings(options.pooling)


def _check_blocks(problems: Problems, options: DistillOptions) -> None:
    """The student's depth against what it is cut from, as far as config.json tells."""
    teacher = check_model(problems, options.teacher, "--teacher")
    student = check_model(problems, options.student, "--student")
    origin, layers = student if options.student else teacher, options.student_layers
    depth = depth_of(origin)
    if layers is not None and layers < 1:
        problems.add(f"--student-layers: got {layers}, wanted at least 1")
    elif layers is not None and depth is not None and layers > depth:
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


def run(options: DistillOptions, training: dict[str, Any]) -> None:
    """Train and print the results."""
    from railkd.jobs import distill

    record = distill.distill(options, training, talker(options.quiet))
    if speaks():
        print(record.summary())


VERB = Verb(
    name="distill",
    about="Distil a fine-tuned teacher, or the cache of one, into a small student.",
    example=(
        "railkd distill --teacher runs/teacher/model --student-layers 3 --train train.tsv --eval dev.tsv "
        "--method rail-kd-l --output runs/student"
    ),
    options=DistillOptions,
    check=check,
    run=run,
    training=ALL_TRAINING,
)
