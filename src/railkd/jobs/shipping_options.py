"""The options of the jobs that use or ship a finished model: predict, export, certify, calibrate.

See `railkd.jobs.options`.
"""

from __future__ import annotations

from dataclasses import dataclass

from railkd.jobs.deciding_options import DeferOptions
from railkd.jobs.options import PRIVATE, DataOptions, DeviceOptions, ModelOptions, option


@dataclass
class PredictOptions(DeferOptions, DeviceOptions, ModelOptions, DataOptions):
    """Options of ``railkd predict``: label, score and logits for each row, in the order of the file."""

    model: str | None = option(
        "model: a folder, a name on the hub, or an ONNX file", metavar="MODEL", group="models", required=True
    )
    test: list[str] = option(
        "file with the rows to label", [], metavar="FILE", group="data", required=True, single=True
    )
    batch_size: int = option("rows per batch", 64, metavar="N")
    output: str | None = option(
        "file for the predictions: .tsv, .csv or .jsonl (default: standard output)", metavar="FILE"
    )
    probabilities: bool = option(
        "write the probability of each class too: prob_NAME, or a mapping in jsonl; the file can teach a student", False
    )
    glue_submission: bool = option(
        "read a GLUE folder as --test and write the files of GLUE's leaderboard into the folder --output", False
    )
    quiet: bool = option("print the results only", False)


@dataclass
class ExportOptions(ModelOptions, DataOptions):
    """Options of ``railkd export``: what to write, and the gates that it must pass."""

    model: str | None = option(
        "run folder of distill or finetune, or model folder", metavar="RUN", group="models", required=True
    )
    output: str | None = option("folder to ship", metavar="DIR", required=True)
    onnx: bool = option("write onnx/model.onnx", False)
    int8: bool = option("write onnx/model_quantized.onnx too", False)
    vocabulary: str | None = option(
        "keep so many word pieces, the most frequent of the training rows, or all that occur there: from-data",
        metavar="N",
    )
    eval: list[str] = option(
        "labelled rows for the gates; may be repeated (default: the sets that the run was scored on)",
        [],
        metavar="[NAME=]FILE",
        group="gates",
    )
    max_drop: float = option("accuracy that int8 may lose, in points", 1.0, metavar="POINTS", group="gates")
    max_class_drop: float = option(
        "share of its rows that a class may lose, in points", 3.0, metavar="POINTS", group="gates"
    )
    per_op: bool = option(
        "if a gate fails, leave the most sensitive operators in float32 until it passes", False, group="gates"
    )
    push: str | None = option("upload the folder to this repository of the hub", metavar="NAME")
    private: bool | None = option(PRIVATE)
    overwrite: bool = option("replace an earlier export in the output folder", False)
    quiet: bool = option("print the results only", False)


@dataclass
class CertifyOptions(DeviceOptions, ModelOptions, DataOptions):
    """Options of ``railkd certify``: which models to compare, on which rows, with which margin."""

    model: str | None = option(
        "candidate: a folder, a name on the hub, an ONNX file, or a file of predictions for the rows of --test",
        metavar="MODEL",
        group="models",
        required=True,
    )
    against: str | None = option("reference, given like --model", metavar="MODEL", group="models", required=True)
    test: list[str] = option(
        "labelled rows; may be repeated", [], metavar="[NAME=]FILE", group="data", required="--ood"
    )
    ood: list[str] = option(
        "out-of-domain rows, judged like --test; may be repeated", [], metavar="[NAME=]FILE", group="data"
    )
    margin: float = option("accuracy that the candidate may lose, in points", 1.0, metavar="POINTS")
    class_margin: float = option(
        "share of its rows that a class or a range of lengths may lose, in points", 3.0, metavar="POINTS"
    )
    flips: int = option("rows with another verdict to print", 5, metavar="N")
    flipped: str | None = option(
        "write all rows with another verdict to this file: .tsv, .csv or .jsonl", metavar="FILE"
    )
    batch_size: int = option("rows per batch", 64, metavar="N")
    output: str | None = option("write the evidence to this JSON file", metavar="FILE")
    quiet: bool = option("print the results only", False)


@dataclass
class CalibrateOptions(DeviceOptions, ModelOptions, DataOptions):
    """Options of ``railkd calibrate``: which model, on which rows, for which goal."""

    model: str | None = option(
        "model: a folder, a name on the hub, or an ONNX file", metavar="MODEL", group="models", required=True
    )
    eval: str | None = option(
        "labelled rows that neither trained the model nor chose its epoch",
        metavar="FILE",
        group="data",
        required=True,
    )
    goal: str = option(
        'what the threshold of each class is chosen for: best-f1, "precision>=P" or "recall>=R", in quotes',
        "best-f1",
        metavar="GOAL",
    )
    positive: str | None = option(
        "of two classes, the one whose threshold is chosen (default: the second)", metavar="CLASS"
    )
    batch_size: int = option("rows per batch", 64, metavar="N")
    output: str | None = option("file to write (default: thresholds.json beside the model)", metavar="FILE")
    quiet: bool = option("print the results only", False)
