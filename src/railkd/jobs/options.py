"""The options of each job, as plain dataclasses. The command line or a YAML file fills them and the jobs read them.

The training arguments (learning rate, epochs, method, ...) are not here: they are the fields of
``DistillationTrainingArguments`` and travel beside these options as a plain mapping. This module needs no torch, so the
command line can check its words before heavy imports.
"""

from __future__ import annotations

from dataclasses import dataclass

from railkd.jobs.cache_options import NewCacheOptions, PassOptions
from railkd.jobs.deciding_options import SuspectOptions, ThresholdOptions
from railkd.jobs.option import DEFAULT_MAX_LENGTH as DEFAULT_MAX_LENGTH
from railkd.jobs.option import Say as Say
from railkd.jobs.option import option as option
from railkd.jobs.option import required as required
from railkd.jobs.teacher_options import AnswerOptions, GivenTeacherOptions, TeacherOptions
from railkd.jobs.teacher_options import ModelOptions as ModelOptions
from railkd.jobs.text_options import UNLABELLED, TextOptions
from railkd.models.starts import KEEP_WORDS
from railkd.tasks import TASKS

TRUST_METHODS = "run the code of methods and metrics that a --config or grid file names, such as FILE.py:NAME"
PRIVATE = "make the repository private if this upload creates it (default: public, or as its organisation sets)"


@dataclass
class DataOptions(TextOptions):
    """How the columns and labels of a file are read."""

    label_column: list[str] | None = option(
        "column that holds the label; several columns of 0 and 1 are one class each (default: a column with a common "
        "name)",
        metavar="NAME",
        group="data",
    )
    label_map: list[str] | None = option(
        "rename labels in all files, e.g. 0=negative 1=positive", metavar="OLD=NEW", group="data"
    )
    problem_type: str | None = option(
        "kind of the labels (default: decided by the labels)",
        choices=[task.name for task in TASKS.values()],
        group="data",
    )
    max_length: int | None = option(
        f"cut texts after this many tokens (default: as in the training of the model, or {DEFAULT_MAX_LENGTH})",
        metavar="N",
        group="data",
    )


@dataclass
class DeviceOptions:
    """Where the models of a job run."""

    device: str | None = option(
        "where models run: cpu, cuda, xpu or mps (default: the accelerator of this machine, otherwise its CPU)",
        choices=["cpu", "cuda", "xpu", "mps"],
        group="models",
    )


@dataclass
class TrainingDataOptions(DataOptions):
    """The files of a training job."""

    train: str | list[str] | None = option(
        "training rows: a file, a folder of splits, a pattern, a slice, an address, - or a name on the hub; may be "
        "repeated (docs/data.md)",
        metavar="FILE",
        group="data",
        required=True,
        repeats=True,
    )
    max_train_rows: int | None = option(
        "train on so many rows of --train, drawn by their text: the same ones each time, and some of those of a larger "
        "number",
        metavar="N",
        group="data",
    )
    eval: str | None = option("rows that select the best epoch", metavar="FILE", group="data")
    test: list[str] = option(
        "rows to score once, after training; may be repeated", [], metavar="[NAME=]FILE", group="data"
    )
    ood: list[str] = option(
        "out-of-domain rows, scored like --test; may be repeated", [], metavar="[NAME=]FILE", group="data"
    )


@dataclass
class ScoreOptions:
    """Metrics to score beside those of the task."""

    metrics: list[str] = option(
        "metrics beside those of the task, e.g. macro_f1 auroc (docs/metrics.md), or functions of your own, "
        "FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION",
        [],
        metavar="NAME",
        group="data",
    )
    trust_methods: bool = option(TRUST_METHODS, False, group="data")


@dataclass
class RunFolderOptions:
    """Where a run writes, and what it does with a run that is already there."""

    output: str | None = option("folder for the student, its scores and its settings", metavar="DIR", required=True)
    overwrite: bool = option("replace the run in the output folder", False)
    resume: bool = option("continue from the newest checkpoint in the output folder", False)
    rehearse: bool = option(
        "run everything small in a temporary folder, with a tiny copy of each model and two steps, and stop", False
    )
    quiet: bool = option("print the results only", False)


@dataclass
class RunOptions(DeviceOptions, ModelOptions, RunFolderOptions, ScoreOptions, TrainingDataOptions):
    """The options of every training run."""

    eval_share: float | None = option(
        "hold out this share of the training rows and select the best epoch on them", metavar="P", group="data"
    )
    eval_seed: int = option("which rows --eval-share holds out", 0, metavar="N", group="data")
    vocabulary: str | None = option(
        "trim the vocabulary before training to so many word pieces, the most frequent of the training texts, or to "
        "all that occur there: from-data",
        metavar="N",
        group="models",
    )
    class_weights: list[str] | None = option(
        "weights of classes in the task term: balanced, 1,5 or NAME=5", metavar="W", group="training"
    )
    patience: int | None = option(
        "end the training after this many evaluations without a better one; needs --eval or --eval-share",
        metavar="N",
        group="training",
    )
    keep_predictions: str | None = option(
        "write the prediction for each scored row into the output folder, without or with its text",
        choices=["answers", "texts"],
    )
    push_to_hub: str | None = option(
        "upload the model with its card to this repository of the hub when the run ends", metavar="NAME"
    )
    private: bool | None = option(PRIVATE)


@dataclass
class FinetuneOptions(RunOptions):
    """Options of ``railkd finetune``: any checkpoint into a labelled classifier or regressor."""

    output: str | None = option("folder for the model, its scores and its settings", metavar="DIR", required=True)
    model: str | None = option(
        "checkpoint to fine-tune: a folder, or a name on the hub", metavar="MODEL", group="models", required=True
    )


@dataclass
class DistillOptions(NewCacheOptions, GivenTeacherOptions, RunOptions):
    """Options of ``railkd distill``: a teacher into a student."""

    student_layers: int | None = option(
        "number of blocks of the student", metavar="N", group="models", required="--student"
    )
    student: str | None = option(
        "start the student from this checkpoint instead of the teacher's blocks", metavar="MODEL", group="models"
    )
    keep: str = option(
        f"which blocks the student copies: {KEEP_WORDS}",
        "even",
        metavar="BLOCKS",
        group="models",
    )
    unlabelled: str | list[str] | None = option(UNLABELLED, metavar="FILE[:SHARE]", group="data", repeats=True)
    pooling: list[str] | None = option(
        "pooled states that a new cache stores: mean, cls, or none for outputs alone (default: what the method reads)",
        metavar="POOLING",
        group="teacher cache",
    )
    live: bool = option("run the teacher at every step and cache nothing", False, group="teacher cache")
    allow_weak_teacher: bool = option(
        "continue with a teacher that is no better than the majority class", False, group="models"
    )


@dataclass
class CacheOptions(PassOptions, AnswerOptions, DeviceOptions, TeacherOptions, DataOptions):
    """Options of ``railkd cache``: run the teacher once and store its logits and pooled states."""

    teacher: str | None = option(
        "fine-tuned teacher: a folder, or a name on the hub",
        metavar="MODEL",
        group="models",
        required="--verify or --from-labels",
    )
    from_labels: str | None = option(
        "store the answers of this file, in place of a pass of the teacher", metavar="FILE", group="data"
    )
    train: list[str] = option(
        "rows for the teacher; labels are not needed; may be repeated",
        [],
        metavar="FILE",
        group="data",
        required="--verify or --from-labels",
    )
    cache: str | None = option("folder of the cache", metavar="DIR", required=True)
    pooling: list[str] | None = option(
        "pooled states to store: mean, cls, or none for outputs alone (default: mean)", metavar="POOLING"
    )
    blocks: str | None = option(
        "regular expression for the names of the teacher's blocks, for models whose blocks are not found",
        metavar="REGEX",
        group="models",
    )
    verify: bool = option("read the whole cache, compare all checksums, and stop", False)
    overwrite: bool = option("replace the cache of another teacher", False)
    quiet: bool = option("print the results only", False)


@dataclass
class EvaluateOptions(ThresholdOptions, DeviceOptions, ModelOptions, ScoreOptions, DataOptions):
    """Options of ``railkd evaluate``: score a model on labelled rows."""

    model: str | list[str] | None = option(
        "model: a folder, a name on the hub, or an ONNX file; may be repeated: the mean of the models is scored",
        metavar="MODEL",
        group="models",
        required=True,
        repeats=True,
    )
    model_weights: list[float] | None = option(
        "weights of several models, e.g. 0.7,0.3 (default: equal)", metavar="W", group="models"
    )
    train: str | list[str] | None = option(
        "rows that the model was trained on; they decide the metrics, and which test rows are out of domain",
        metavar="FILE",
        group="data",
        repeats=True,
    )
    test: list[str] = option(
        "labelled rows; may be repeated", [], metavar="[NAME=]FILE", group="data", required="--ood"
    )
    ood: list[str] = option(
        "out-of-domain rows, scored like --test; may be repeated", [], metavar="[NAME=]FILE", group="data"
    )
    batch_size: int = option("rows per batch", 64, metavar="N")
    teacher: str | None = option(
        "score and time this model too; agreement and ratios compare with it", metavar="MODEL", group="models"
    )
    latency: list[str] = option(
        "score and time these models too: folders, hub names, or ONNX files", [], metavar="MODEL", group="models"
    )
    output: str | None = option("write the scores, and the table of several models, to this JSON file", metavar="FILE")
    quiet: bool = option("print the results only", False)

    def __post_init__(self) -> None:
        if self.model is None:  # alone, --teacher names the model to score
            self.model, self.teacher = self.teacher, None


@dataclass
class CheckOptions(SuspectOptions, NewCacheOptions, GivenTeacherOptions, DeviceOptions, TrainingDataOptions):
    """Options of ``railkd check``: look for problems before a run starts."""

    student: str | None = option(
        "checkpoint that the student starts from (default: the teacher)", metavar="MODEL", group="models"
    )
    unlabelled: str | list[str] | None = option(UNLABELLED, metavar="FILE[:SHARE]", group="data", repeats=True)
    student_layers: int | None = option("number of blocks of the student", metavar="N", group="models")
    vocabulary: str | None = option(
        "word pieces of the student, as distill --vocabulary takes them", metavar="N", group="models"
    )
    pooling: list[str] | None = option(
        "pooled states that the cache will store: mean, cls, none (default: mean)",
        metavar="POOLING",
        group="teacher cache",
    )
    epochs: float = option("passes over the training rows, for the estimate of the time", 3.0, metavar="N")
    max_steps: int | None = option("steps of 32 rows in place of --epochs, for the estimate of the time", metavar="N")
    full: bool = option("read all rows instead of a sample", False)
    allow_weak_teacher: bool = option(
        "report a teacher that is no better than the majority class as a warning", False, group="models"
    )
    json: bool = option("print the findings as JSON", False)
    quiet: bool = option("print the results only", False)
