"""What can be known to be wrong before anything heavy is imported, built or written.

Problems are collected and said together: a user corrects a command once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from railkd.data.labels import parse_label_map
from railkd.data.sources import Source, parse_named
from railkd.errors import Problems as Problems
from railkd.errors import RailkdError, did_you_mean
from railkd.jobs.options import DataOptions, RunFolderOptions
from railkd.jobs.run_folder import RunFolder
from railkd.jobs.settings import TRAINING
from railkd.models.checkpoints import Checkpoint

_FLAGS = {setting.field: setting.flag for setting in TRAINING}
_DEPTH_KEYS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")


def check_data(problems: Problems, options: DataOptions) -> None:
    """Columns, label map, length and files."""
    if options.max_length is not None and options.max_length < 1:
        problems.add(f"--max-length: got {options.max_length}, wanted at least 1")
    if options.text_column is not None and len(options.text_column) > 2:
        problems.add(f"--text-column: got {len(options.text_column)} columns, wanted one, or two for pairs")
    if getattr(options, "batch_size", 1) < 1:
        problems.add(f"--batch-size: got {options.batch_size}, wanted at least 1")  # type: ignore[attr-defined]
    with problems.collect():
        parse_label_map(options.label_map or [])
    share = getattr(options, "eval_share", None)
    if share is not None and not 0 < share < 1:
        problems.add(f"--eval-share: got {share:g}, wanted a share between 0 and 1, such as 0.1")
    if share is not None and getattr(options, "eval", None):
        problems.add("got --eval and --eval-share; wanted one of them to choose the epoch: a file, or a share")
    for name in ("train", "eval", "unlabelled"):
        value = getattr(options, name, None)
        for text in value if isinstance(value, list) else [value] if value else []:
            check_source(problems, Source.parse(text), f"--{name}")
    with problems.collect():
        # Both at once: a name is given once, whichever flag it came by.
        flags = {"--test": getattr(options, "test", []), "--ood": getattr(options, "ood", [])}
        parse_named([*flags["--test"], *flags["--ood"]])
        for flag, specs in flags.items():
            for source in parse_named(specs).values():
                check_source(problems, source, flag)


def check_source(problems: Problems, source: Source, flag: str) -> None:
    """A file or folder must exist; what can only be a hub name is left to the hub."""
    try:
        source.check()
    except RailkdError as error:
        problems.add(f"{flag} {error}")


def check_model(problems: Problems, name: str | None, flag: str) -> Path | None:
    """A local model folder is looked into; a hub name is left to the hub."""
    if name is None:
        return None
    path = Path(name)
    if not path.exists() and name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.parent.is_dir():
        return None
    if not path.exists() and "/" not in name and name != "~":
        return None
    try:
        if not path.exists():  # its parent is there, or no hub name looks like this
            beside = os.listdir(path.parent) if path.parent.is_dir() else []
            raise RailkdError(f"no model at '{name}': no such folder.{did_you_mean(path.name, beside)}")
        return Checkpoint.find(path).folder
    except RailkdError as error:
        problems.add(f"{flag}: {error}")
        return None


def depth_of(folder: Path | None) -> int | None:
    """Blocks of a local checkpoint by its config.json; None where that is not plain to see."""
    if folder is None:
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = next((config[key] for key in _DEPTH_KEYS if key in config), None)
    except (OSError, ValueError, TypeError):
        return None  # the loader says what is wrong with it
    return found if isinstance(found, int) else None


def check_training(problems: Problems, training: Mapping[str, Any]) -> None:
    """Numbers among the training arguments."""
    for field, value in training.items():
        flag = _FLAGS.get(field, field)
        if field in ("temperature", "num_train_epochs", "learning_rate") and not (math.isfinite(value) and value > 0):
            problems.add(f"{flag}: got {value:g}, wanted a finite number above 0")
        if field in ("per_device_train_batch_size", "save_steps") and value < 1:
            problems.add(f"{flag}: got {value}, wanted at least 1")
        if field == "seed" and not 0 <= value < 2**32:
            problems.add(f"{flag}: got {value}, wanted a number from 0 to {2**32 - 1}")
        if field == "weights" and (not all(math.isfinite(w) and w >= 0 for w in value) or not any(value)):
            problems.add(f"{flag}: got {' '.join(f'{w:g}' for w in value)}, wanted 3 numbers >= 0, not all 0")


def check_run_folder(problems: Problems, options: RunFolderOptions, inputs: Mapping[str, str | None]) -> None:
    """The output folder: new, empty, or a run that may be replaced or resumed. Nothing is touched here.

    Args:
        inputs: flag -> path that the job reads, and that --overwrite must not take away.
    """
    if options.overwrite and options.resume:
        problems.add("got --overwrite and --resume; wanted one of them: replace the run, or go on with it")
    if options.output is None:
        return
    folder = Path(options.output)
    check_target(problems, folder)
    if not folder.is_dir():
        return
    run = RunFolder(folder)
    if not run.is_run():
        if run.holds_other_files():
            problems.add(f"--output '{folder}' holds files that are no run of railkd; name another folder, or empty it")
    elif not (options.overwrite or options.resume):
        problems.add(f"--output '{folder}' holds another run; name another folder, or give --overwrite or --resume")
    elif options.overwrite:
        for flag, path in inputs.items():
            if (
                path
                and Path(path).exists()
                and folder.resolve() in (Path(path).resolve(), *Path(path).resolve().parents)
            ):
                problems.add(f"{flag} '{path}' lies inside --output, which --overwrite clears; name another --output")


def check_target(problems: Problems, path: Path, *, folder: bool = True) -> None:
    """Something can be written here."""
    if folder and path.exists() and not path.is_dir():
        problems.add(f"--output '{path}' is a file, wanted a folder")
        return
    if not folder and path.is_dir():
        problems.add(f"--output '{path}' is a folder, wanted the name of a file")
        return
    above = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if above.is_file() and above != path:
        problems.add(f"--output '{path}' cannot be made: '{above}' is a file")
    elif not os.access(above, os.W_OK):
        problems.add(f"--output '{path}' cannot be written: no permission for '{above}'")
    elif not folder and not path.absolute().parent.is_dir():
        problems.add(f"--output '{path}' cannot be written: there is no folder '{path.parent}'; make it first")


def check_method(training: Mapping[str, Any], method: str) -> None:
    """The method by name, and weights that leave it a term. Imports torch: last of the checks."""
    from railkd.objectives import method_spec
    from railkd.objectives.base import normalised_weights

    normalised_weights(training.get("weights"), method_spec(method).objective.terms)
