"""Check options, files and folders before anything heavy is imported, built or written.

The functions collect problems and do not raise them, so that a user sees all at once and corrects a command once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from railkd.data.formats import format_of
from railkd.data.label_names import parse_label_map
from railkd.data.predictions import SUFFIX_WORDS, SUFFIXES
from railkd.data.shares import parse_shares
from railkd.data.sources import Source, parse_named
from railkd.errors import Problems as Problems
from railkd.errors import RailkdError, did_you_mean
from railkd.export.layout import FROM_DATA, find_onnx, home_of, require_onnx
from railkd.jobs.options import RunOptions
from railkd.jobs.paths import compare
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.settings import TRAINING
from railkd.jobs.text_options import TextOptions
from railkd.models.checkpoints import Checkpoint
from railkd.models.named_teachers import as_list
from railkd.runtime.ownership import check_may_read, check_writable

_FLAGS = {setting.field: setting.flag for setting in TRAINING}
#: The file that makes a cache complete; `railkd.teacher.manifest` needs torch.
_MANIFEST = "manifest.json"
_DEPTH_KEYS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")


def check_at_least(problems: Problems, options: Any, least: int, *names: str) -> None:
    """Check that numbers are large enough.

    Args:
        problems: collects what is wrong.
        options: of the job.
        least: the smallest permitted value.
        names: of the options to check. Options that the job lacks, or that are None, pass.
    """
    for name in names:
        value = getattr(options, name, None)
        if value is not None and value < least:
            problems.add(f"--{name.replace('_', '-')}: expected at least {least}, got {value}")


def check_effect(problems: Problems, options: Any, reason: str, *names: str) -> None:
    """Refuse options that would have no effect.

    Args:
        problems: collects what is wrong.
        options: of the job.
        reason: why they have none, such as "without --eval-share".
        names: of the options. Those at their defaults pass.
    """
    defaults = type(options)()
    for name in names:
        if getattr(options, name) != getattr(defaults, name):
            problems.add(f"--{name.replace('_', '-')} has no effect {reason}. Fix: leave it out")


def check_data(problems: Problems, options: TextOptions) -> None:
    """Check that the columns, label map and numbers make sense and that the files exist.

    Args:
        problems: collects what is wrong.
        options: of the job.
    """
    check_at_least(
        problems, options, 1, "max_length", "batch_size", "batch_tokens", "patience", "max_train_rows", "states_dim"
    )
    if options.text_column is not None and len(options.text_column) > 2:
        problems.add(f"--text-column: expected one column, or two for pairs of texts, got {len(options.text_column)}")
    with problems.collect():
        parse_label_map(getattr(options, "label_map", None) or [])
    thresholds = getattr(options, "thresholds", None)
    if thresholds and not Path(thresholds).exists():
        problems.add(f"--thresholds: no file '{thresholds}'. Fix: railkd calibrate writes it")
    share = getattr(options, "eval_share", None)
    if share is None and hasattr(options, "eval_seed"):
        check_effect(problems, options, "without --eval-share", "eval_seed")
        if not getattr(options, "eval", None):
            check_effect(problems, options, "without --eval or --eval-share", "patience")
    if share is not None and not 0 < share < 1:
        problems.add(f"--eval-share: expected a share between 0 and 1, such as 0.1, got {share:g}")
    if share is not None and getattr(options, "eval", None):
        problems.add("--eval and --eval-share exclude each other. Fix: select the epoch on a file, or on a share")
    if unlabelled := getattr(options, "unlabelled", None):
        with problems.collect():
            for source, _ in parse_shares([unlabelled] if isinstance(unlabelled, str) else unlabelled):
                check_source(problems, source, "--unlabelled")
    for name in ("train", "eval", "teacher_labels", "from_labels"):
        value = getattr(options, name, None)
        if name == "eval" and isinstance(value, list):
            continue  # of an export: its sets have names
        for text in value if isinstance(value, list) else [value] if value else []:
            check_source(problems, Source.parse(text), f"--{name.replace('_', '-')}")
    with problems.collect():
        # --test and --ood together: no two sets may have the same name.
        flags = {"--test": getattr(options, "test", []), "--ood": getattr(options, "ood", [])}
        parse_named([*flags["--test"], *flags["--ood"]])
        for flag, specs in flags.items():
            for source in parse_named(specs).values():
                check_source(problems, source, flag)


def check_source(problems: Problems, source: Source, flag: str) -> None:
    """Check that a file or folder exists. A name that can only be one of the hub is not looked up.

    Args:
        problems: collects what is wrong.
        source: the file, folder or hub name.
        flag: that named it.
    """
    try:
        source.check()
    except RailkdError as error:
        problems.add(f"{flag} {error}")


def check_model(problems: Problems, name: str | None, flag: str, *, onnx: bool = False) -> Path | None:
    """Check that a local folder holds a model. A name that can only be one of the hub is not looked up.

    Args:
        problems: collects what is wrong.
        name: of the folder or model; None passes.
        flag: that named it.
        onnx: an ONNX file, or a folder with one, is a model too.

    Returns:
        The folder; None if there is no local one.
    """  # noqa: DOC501 - the error is caught here
    if name is None:
        return None
    path = Path(name)
    if not path.exists() and name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.parent.is_dir():
        return None
    if not path.exists() and "/" not in name and name != "~":
        return None
    try:
        if not path.exists():  # the folder above exists, or the name cannot be one of the hub
            beside = os.listdir(path.parent) if path.parent.is_dir() else []
            raise RailkdError(f"no model at '{name}': no such folder.{did_you_mean(path.name, beside)}")
        if onnx and (file := find_onnx(path)):
            require_onnx()
            return home_of(file)
        return Checkpoint.find(path).folder
    except RailkdError as error:
        problems.add(f"{flag}: {error}")
        return None


def check_vocabulary(problems: Problems, options: Any) -> None:
    """Check the number of word pieces that ``--vocabulary`` keeps.

    Args:
        problems: collects what is wrong.
        options: of a training or an export.
    """
    asked = options.vocabulary
    if asked not in (None, FROM_DATA) and not (str(asked).isdecimal() and int(str(asked)) > 0):
        problems.add(f"--vocabulary: expected a number of pieces or {FROM_DATA}, got '{asked}'")


def check_push_target(problems: Problems, options: Any, field: str) -> None:
    """Check that a push to the hub can work.

    Args:
        problems: collects what is wrong.
        options: of the job.
        field: that names the repository; None in it is no push.
    """
    name, flag = getattr(options, field), f"--{field.replace('_', '-')}"
    if name is None:
        check_effect(problems, options, f"without {flag}", "private")
    else:
        from railkd.export.push import check_push

        with problems.collect():
            check_push(name, flag)


def check_device(problems: Problems, options: Any, *models: str | None) -> None:
    """Refuse a device for ONNX files, which run on the CPU.

    Args:
        problems: collects what is wrong.
        options: of the job.
        models: names of its models.
    """
    if options.device not in (None, "cpu") and any(name and find_onnx(name) for name in models):
        check_effect(problems, options, "on an ONNX file, which runs on the CPU", "device")


def is_answer_file(name: str | Path) -> bool:
    """Return whether a name means a file of predictions, not a model."""
    path = Path(name)
    return path.is_file() and format_of(path) is not None


def depth_of(folder: Path | None) -> int | None:
    """Return the number of blocks that the config.json of a checkpoint gives.

    Args:
        folder: of the checkpoint; None if it is not local.

    Returns:
        The number; None if config.json does not tell it under a common name.
    """
    if folder is None:
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = next((config[key] for key in _DEPTH_KEYS if key in config), None)
    except (OSError, ValueError, TypeError, RecursionError):
        return None  # loading the model reports what is wrong
    return found if type(found) is int and found > 0 else None  # True is an int too


def check_training(problems: Problems, training: Mapping[str, Any]) -> None:
    """Check the numbers among the training arguments that have short names.

    Args:
        problems: collects what is wrong.
        training: field of ``DistillationTrainingArguments`` -> value.
    """
    for field, value in training.items():
        flag = _FLAGS.get(field, field)
        if field in ("temperature", "num_train_epochs", "learning_rate") and not (math.isfinite(value) and value > 0):
            problems.add(f"{flag}: expected a finite number above 0, got {value:g}")
        if field in ("per_device_train_batch_size", "save_steps") and value < 1:
            problems.add(f"{flag}: expected at least 1, got {value}")
        if field == "seed" and not 0 <= value < 2**32:
            problems.add(f"{flag}: expected a number from 0 to {2**32 - 1}, got {value}")
        if field == "weights" and (not all(math.isfinite(w) and w >= 0 for w in value) or not any(value)):
            problems.add(f"{flag}: expected 3 numbers >= 0, not all 0, got {' '.join(f'{w:g}' for w in value)}")


def check_run_folder(problems: Problems, options: RunOptions) -> None:
    """Check that the output folder is new or empty, or holds a run that may be replaced or resumed. Write nothing.

    Args:
        problems: collects what is wrong.
        options: of the job. None of its inputs may lie in what the run replaces.
    """
    if options.overwrite and options.resume:
        problems.add("--overwrite and --resume exclude each other. Fix: replace the run, or continue it")
    if options.output is None:
        return
    folder = Path(options.output)
    before = len(problems.messages)
    check_target(problems, folder)
    if len(problems.messages) > before:
        return
    run = RunFolder(folder)
    if folder.is_dir() and not run.is_run() and run.holds_other_files():
        problems.add(f"--output: '{folder}' holds files that railkd did not write. Fix: name another folder")
        return
    with problems.collect():
        for problem in run.find_obstacles(options):
            problems.add(problem)
    caches = as_list(getattr(options, "cache", None))
    flags = ["--cache", *(f"--cache (number {number})" for number in range(2, len(caches) + 1))]
    outputs = {"--output": options.output} | dict(zip(flags, caches, strict=False))
    compare(problems, options, outputs, run.replaced(), kept=flags)
    if options.overwrite:
        compare(problems, options, {"--output": options.output}, [folder])


def check_target(problems: Problems, path: Path, flag: str = "--output", *, folder: bool = True) -> None:
    """Check that something can be written at a path.

    Args:
        problems: collects what is wrong.
        path: of the output.
        flag: that named it.
        folder: whether the output is a folder; otherwise it is a file.
    """
    if folder and path.exists() and not path.is_dir():
        problems.add(f"{flag}: expected a folder, but '{path}' is a file")
        return
    if not folder and path.is_dir():
        problems.add(f"{flag}: expected the name of a file, but '{path}' is a folder")
        return
    above = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if above.is_file() and above != path:
        problems.add(f"{flag}: '{path}' cannot be created, because '{above}' is a file")
    elif not os.access(above, os.W_OK):
        problems.add(f"{flag}: '{path}' cannot be written: no permission for '{above}'")
    elif not folder and not path.absolute().parent.is_dir():
        problems.add(f"{flag}: '{path}' cannot be written: no folder '{path.parent}'. Fix: create it first")


def check_output_table(problems: Problems, options: Any) -> None:
    """Check the file of rows that a job writes to ``--output``.

    Args:
        problems: collects what is wrong.
        options: of the job, with ``output``.
    """
    check_target(problems, Path(options.output), folder=False)
    compare(problems, options, {"--output": options.output})
    if Path(options.output).suffix not in SUFFIXES:
        problems.add(f"--output: expected a name that ends in {SUFFIX_WORDS}, got '{options.output}'")


def check_cache_folder(problems: Problems, cache: str, *, replaced: bool = False, read_only: bool = False) -> None:
    """Check that a teacher cache can be read, and that one that must be built or replaced can be written.

    Args:
        problems: collects what is wrong.
        cache: its folder, which need not exist.
        replaced: the cache is deleted and built again.
        read_only: nothing is written, even if the cache is not complete.
    """
    path = Path(cache)
    if path.is_file():
        problems.add(f"--cache: expected a folder, got the file '{path}'")
        return
    with problems.collect():
        if path.is_dir():
            check_may_read(path, "--cache")
        if not read_only and (replaced or not (path / _MANIFEST).is_file()):
            check_writable(path, "--cache")


def check_method(training: Mapping[str, Any], method: str) -> None:
    """Check the name of the method and the weights of its loss terms. This imports torch.

    An unknown method, and weights that leave it no term, raise `RailkdError`.

    Args:
        training: field of ``DistillationTrainingArguments`` -> value.
        method: its name.
    """
    from railkd.objectives import method_spec
    from railkd.objectives.base import normalised_weights

    normalised_weights(training.get("weights"), method_spec(method).objective.terms)
