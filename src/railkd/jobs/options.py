"""What a job can be told, as plain dataclasses: read by the jobs, filled by the command line or by YAML.

Training arguments (learning rate, epochs, method, ...) are not here: they are the fields of
``DistillationTrainingArguments`` and travel beside these options as a plain mapping.
This module is a leaf without torch, so that the command line can check its words before heavy imports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from railkd.errors import RailkdError
from railkd.tasks import TASKS

DEFAULT_MAX_LENGTH = 128
#: Takes a line for the user.
Say = Callable[[str], None]
Words = list[str]  # where a field is called list


def option(help: str, default: Any = None, **metadata: Any) -> Any:
    """A dataclass field with its help text (and choices, metavar) in the metadata, as HfArgumentParser keeps them."""
    metadata["help"] = help
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def required(value: Any, flag: str) -> Any:
    """A value that a job cannot do without."""
    if value in (None, "", []):
        raise RailkdError(f"{flag} is missing; see --help for an example")
    return value


@dataclass
class DataOptions:
    """Where the rows come from and how their columns are read."""

    text_column: list[str] | None = option("text column, or two of them for sentence pairs", metavar="NAME")
    label_column: list[str] | None = option(
        "label column; several columns of 0 and 1 are a class each (multi-label)", metavar="NAME"
    )
    label_map: list[str] | None = option("rename labels of the data, e.g. 0=negative 1=positive", metavar="OLD=NEW")
    problem_type: str | None = option(
        "what the labels are (default: found from the data)", choices=[task.name for task in TASKS.values()]
    )
    max_length: int | None = option(f"longest input in tokens (default: {DEFAULT_MAX_LENGTH})", metavar="N")


@dataclass
class ModelOptions:
    """How models are loaded."""

    trust_remote_code: bool = option(
        "run the Python code that a model brings in its folder or hub repository (such models are refused otherwise)",
        False,
    )


@dataclass
class TrainingDataOptions(DataOptions):
    """The files of a training job."""

    train: str | None = option("training rows: csv, tsv, jsonl, parquet, GLUE folder or hub name", metavar="FILE")
    eval: str | None = option("rows that choose the best epoch", metavar="FILE")
    test: list[str] = option("rows scored once, at the end (repeatable)", [], metavar="[NAME=]FILE")
    ood: list[str] = option("out-of-domain rows, scored like --test (repeatable)", [], metavar="[NAME=]FILE")


@dataclass
class RunFolderOptions:
    """Where a run writes, and what it does when something is there already."""

    output: str | None = option("run folder", metavar="DIR")
    overwrite: bool = option("replace the run that is in the output folder", False)
    resume: bool = option("go on from the newest checkpoint in the output folder", False)
    quiet: bool = option("print results only", False)


@dataclass
class RunOptions(ModelOptions, RunFolderOptions, TrainingDataOptions):
    """What every training run can be told."""

    eval_share: float | None = option("hold out this share of the training rows, to choose the best epoch", metavar="P")
    eval_seed: int = option("which rows --eval-share holds out", 0, metavar="N")
    keep_predictions: str | None = option(
        "keep what the model says of every scored row, with or without its text, in the run folder",
        choices=["answers", "texts"],
    )


@dataclass
class FinetuneOptions(RunOptions):
    """``railkd finetune``: a labelled classifier or regressor out of any checkpoint."""

    model: str | None = option("checkpoint to fine-tune: folder or hub name", metavar="MODEL")


@dataclass
class DistillOptions(RunOptions):
    """``railkd distill``: teacher into student."""

    teacher: str | None = option("fine-tuned teacher: folder or hub name", metavar="MODEL")
    student: str | None = option("start from this checkpoint instead of the teacher's own blocks", metavar="MODEL")
    student_layers: int | None = option("number of student blocks", metavar="N")
    keep: str = option("which blocks to copy: even, first, last, or block numbers such as 1,3,6", "even")
    unlabelled: str | None = option("further rows without labels, for the teacher's terms only", metavar="FILE")
    cache: str | None = option("teacher cache, read when it matches, built when missing", metavar="DIR")
    pooling: list[str] | None = option("poolings a newly built cache stores: mean, cls", metavar="POOLING")
    live: bool = option("run the teacher at every step instead of caching its states", False)
    allow_weak_teacher: bool = option("go on with a teacher that is no better than the majority class", False)


@dataclass
class CacheOptions(ModelOptions, DataOptions):
    """``railkd cache``: run the teacher once over the rows and keep its pooled states and logits."""

    teacher: str | None = option("fine-tuned teacher: folder or hub name", metavar="MODEL")
    train: list[str] = option("rows to run the teacher over (repeatable)", [], metavar="FILE")
    cache: str | None = option("folder of the cache", metavar="DIR")
    pooling: list[str] | None = option("poolings to store: mean (default), cls", metavar="POOLING")
    dtype: str = option("precision of the stored states", "float16", choices=["float16", "float32"])
    batch_size: int = option("rows per teacher batch", 64, metavar="N")
    bf16: bool | None = option("run the teacher in bfloat16 (default: where the machine has it)")
    blocks: str | None = option("regular expression naming the blocks of a model that cannot be read", metavar="REGEX")
    verify: bool = option("read the whole cache, compare every checksum, and stop", False)
    overwrite: bool = option("replace a cache of another teacher", False)
    quiet: bool = option("print results only", False)


@dataclass
class EvaluateOptions(ModelOptions, DataOptions):
    """``railkd evaluate``: score a model on labelled rows."""

    model: str | None = option("model to score: folder or hub name", metavar="MODEL")
    train: str | None = option(
        "rows the model was trained on: they say which metrics count and what is out of domain", metavar="FILE"
    )
    test: list[str] = option("labelled rows (repeatable)", [], metavar="[NAME=]FILE")
    ood: list[str] = option("out-of-domain rows, scored like --test (repeatable)", [], metavar="[NAME=]FILE")
    batch_size: int = option("rows per batch", 64, metavar="N")
    output: str | None = option("write the metrics to this JSON file", metavar="FILE")
    quiet: bool = option("print results only", False)


@dataclass
class PredictOptions(ModelOptions, DataOptions):
    """``railkd predict``: label, score and logits for every row, in the order of the file."""

    model: str | None = option("model that predicts: folder or hub name", metavar="MODEL")
    test: list[str] = option("rows to predict", [], metavar="FILE")
    batch_size: int = option("rows per batch", 64, metavar="N")
    output: str | None = option("write here: .tsv or .jsonl (default: standard output)", metavar="FILE")
    glue_submission: bool = option(
        "write the files of GLUE's leaderboard for the test set(s) of a GLUE folder into the folder --output", False
    )
    quiet: bool = option("print results only", False)


@dataclass
class CheckOptions(ModelOptions, TrainingDataOptions):
    """``railkd check``: what would doom a run, found before it starts."""

    teacher: str | None = option("fine-tuned teacher: folder or hub name", metavar="MODEL")
    student: str | None = option("checkpoint the student starts from (default: the teacher)", metavar="MODEL")
    student_layers: int | None = option("number of student blocks", metavar="N")
    cache: str | None = option("teacher cache: its logits are used where no --teacher is given", metavar="DIR")
    pooling: list[str] | None = option("poolings the cache will store: mean (default), cls", metavar="POOLING")
    epochs: float = option("passes over the training rows, for the estimate of time", 3.0, metavar="N")
    full: bool = option("look at every row instead of a sample", False)
    allow_weak_teacher: bool = option("warn of a teacher that is no better than the majority class", False)
    json: bool = option("findings as JSON", False)
    quiet: bool = option("print results only", False)


@dataclass
class BenchOptions:
    """``railkd bench``: which grid, where to, and on what."""

    grid: str | None = option("grid file", metavar="GRID")
    output: str | None = option("folder of the bench", metavar="DIR")
    list: bool = option("list the grids that come with railkd and their contents", False)
    copy: Words | None = option("write a grid that comes with railkd to a file (default: NAME.yaml)", metavar="NAME")
    dry_run: bool = option("print the number of runs, the size of the caches and the estimated time, and stop", False)
    resume: bool = option("continue the bench in the output folder; finished jobs are not repeated", False)
    overwrite: bool = option("replace the bench in the output folder", False)
    executor: str | None = option("where runs go (default: the grid's, or local)", choices=["local", "ray"])
    processes: int | None = option("runs at a time on this machine (default: the grid's, or 1)", metavar="N")
    threads: int | None = option("threads of each run (default: the cores divided by --processes)", metavar="N")
    address: str | None = option("Ray cluster to use (default: a new one on this machine)", metavar="HOST:PORT")
    retries: int | None = option("how often a run is retried if its process crashes (default: 2)", metavar="N")
    quiet: bool = option("print results only", False)
