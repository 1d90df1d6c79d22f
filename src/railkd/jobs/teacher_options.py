"""Options that name the teachers of a job and say how they are read; see `railkd.jobs.options`."""

from __future__ import annotations

from dataclasses import dataclass

from railkd.jobs.option import option


@dataclass
class ModelOptions:
    """How models are loaded."""

    trust_remote_code: bool = option(
        "run the Python code that comes with a model; without this flag such models are refused", False, group="models"
    )


@dataclass
class TeacherOptions(ModelOptions):
    """How a teacher is loaded."""

    teacher_dtype: str | None = option(
        "precision of the teacher's weights (default: that of the cache, else auto, the one that its checkpoint keeps)",
        choices=["auto", "bfloat16", "float16", "float32"],
        group="models",
    )
    teacher_device_map: str | None = option(
        "auto spreads the teacher over the devices and the CPU with accelerate (default: one device)",
        metavar="MAP",
        group="models",
    )


@dataclass
class AnswerOptions:
    """How a file with the answers of a teacher is read."""

    labels: list[str] | None = option(
        "order of the labels in lists of a file of answers, e.g. negative,positive (default: names in the file)",
        metavar="NAME",
        group="data",
    )
    label_smoothing: float = option(
        "share of each hard label in a file of answers that is spread over all labels", 0.0, metavar="P", group="data"
    )


@dataclass
class GivenTeacherOptions(AnswerOptions, TeacherOptions):
    """The teachers of a distillation: models, caches and files with their answers."""

    teacher: str | list[str] | None = option(
        "fine-tuned teacher: a folder, or a name on the hub; may be repeated: the mean of all teachers teaches",
        metavar="MODEL",
        group="models",
        required="--cache or --teacher-labels",
        repeats=True,
    )
    teacher_labels: str | list[str] | None = option(
        "file with the answers of a teacher: probabilities, logits, votes or labels of texts; may be repeated, and "
        "stand beside --teacher and --cache",
        metavar="FILE",
        group="data",
        repeats=True,
    )
    teacher_weights: list[float] | None = option(
        "weights of several teachers, e.g. 0.7,0.3, in the order of --teacher, then further --cache, then "
        "--teacher-labels (default: equal)",
        metavar="W",
        group="models",
    )
    states_from: str | None = option(
        "which of several teachers gives the states of layer methods, by name or number (default: the first that has "
        "states)",
        metavar="NAME",
        group="models",
    )
    rescale_teacher: bool = option(
        "regression: put the line that fits the labels best on the teacher's outputs", False, group="models"
    )
    cache: str | list[str] | None = option(
        "folder of the teacher cache: read if it matches, built by distill if it is missing; may be repeated: one for "
        "each --teacher in order, and further ones are teachers too",
        metavar="DIR",
        group="teacher cache",
        repeats=True,
    )
