"""The training arguments that distillation adds to those of Trainer. This module needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from railkd.errors import RailkdError
from railkd.runtime.words import shortened

#: Fields that have no effect without a teacher.
NEED_TEACHER = frozenset(
    {
        "method",
        "weights",
        "temperature",
        "intermediate_schedule",
        "projection_learning_rate",
        "gauges",
        "teacher_blocks",
        "teacher_line",
        "source_rows",
        "source_shares",
        "states_on_device",
        "class_weights_on_logits",
        "method_options",
    }
)
#: Fields that options of a job replace on the command line.
REPLACED_BY_OPTIONS = frozenset(
    {"text_columns", "label_column", "key_column", "max_length", "teacher_line", "class_weights", "method_options"}
    | {"source_rows", "source_shares"}
)
#: How the rows of an epoch are chosen.
SAMPLINGS = ("all", "balanced")
_NO_UPLOAD = "Nothing is uploaded while it trains. Fix: --push-to-hub NAME uploads the model when the run ends"
_NO_SHARDS = "Every rank holds the whole model. Fix: start the run with torchrun"
#: Fields of Trainer that would have no effect, or could not work, and what to do instead.
WITHOUT_EFFECT = {
    "label_smoothing_factor": "The teacher's logits serve as soft labels",
    "train_sampling_strategy": "Fix: --length-groups pools (default), split or none decides the order of the rows",
    "length_column_name": "The lengths of rows are counted in tokens",
    "label_names": "The labels of a row are its column 'labels'",
    "average_tokens_across_devices": "The loss is always the mean over the rows of all ranks",
    "use_liger_kernel": "Its kernels replace parts of language models, which a classifier does not use",
    "liger_kernel_config": "Its kernels replace parts of language models, which a classifier does not use",
    "debug": "A run always stops at the first value that is not finite, and names it",
    "fsdp": _NO_SHARDS,
    "fsdp_config": _NO_SHARDS,
    "deepspeed": _NO_SHARDS,
    "parallelism_config": _NO_SHARDS,
    **dict.fromkeys(
        (
            "push_to_hub",
            "hub_model_id",
            "hub_strategy",
            "hub_token",
            "hub_private_repo",
            "hub_always_push",
            "hub_revision",
        ),
        _NO_UPLOAD,
    ),
}
#: Fields that were switches once, or whose words YAML reads as such: field -> its value for on and for off.
SWITCHES = {"length_groups": ("pools", "none"), "states_on_device": ("yes", "no")}


def switched(name: str, value: Any) -> Any:
    """Return the value of a field; on and off of a field of `SWITCHES` are its words."""
    return SWITCHES[name][not value] if name in SWITCHES and isinstance(value, bool) else value


#: Heading of ``--help`` -> the fields under it. Others stand under "method options".
GROUPS = {
    "training": (
        *("gauges", "skip_nonfinite", "average_last", "freeze_embeddings", "keep_freed_memory", "length_groups"),
        *("sampling", "class_weights_on_logits", "states_on_device"),
    ),
    "models": ("blocks", "teacher_blocks"),
}


def check_sampling(sampling: str, *, weighted: bool) -> None:
    """Check how the rows of an epoch are chosen.

    Args:
        sampling: one of `SAMPLINGS`.
        weighted: the run has class weights.

    Raises:
        RailkdError: the name is unknown, or class weights would correct the imbalance a second time.
    """
    if sampling not in SAMPLINGS:
        raise RailkdError(f"Expected {' or '.join(SAMPLINGS)} as sampling, got {shortened(sampling)!r}.")
    if sampling == "balanced" and weighted:
        raise RailkdError(
            "Balanced sampling and class weights both correct the imbalance of the classes. Fix: give one of them."
        )


def check_shares(rows: list[int] | None, shares: list[float] | None) -> None:
    """Check the numbers of rows of sources, and their shares of every batch.

    Args:
        rows: of the sources; None: there is one source.
        shares: of the sources; None: there is one source.

    Raises:
        RailkdError: they do not fit each other.
    """
    if rows is None and shares is None:
        return
    if rows is None or shares is None or len(rows) != len(shares) or min(rows, default=0) < 1:
        raise RailkdError("Expected source_rows, at least 1 each, and as many source_shares. Fix: give both.")
    if not (all(0 < share <= 1 for share in shares) and abs(sum(shares) - 1) < 1e-6):
        raise RailkdError(f"Expected source_shares above 0 with a sum of 1, got {', '.join(map(str, shares))}.")


def _field(help: str, default: Any = None, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help, **metadata})


@dataclass
class DistillationFields:
    """Hold the fields that `DistillationTrainingArguments` adds to those of `transformers.TrainingArguments`."""

    method: str = _field("distillation method; 'railkd methods' lists them", "rail-kd-l")
    method_options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "options of the method: name -> value (each is a flag of its own)"}
    )
    weights: list[float] | None = _field(
        "weights of [CE, KD, intermediate], scaled to a sum of 1 (default: the method's own)"
    )
    temperature: float = _field("temperature of the logit term", 1.0)
    intermediate_schedule: str = _field(
        "weight of the intermediate term over training: constant, linear (down to 0), or a fraction of training after "
        "which it is 0",
        "constant",
        metavar="SCHEDULE",
    )
    projection_learning_rate: float | None = _field(
        "learning rate of the projections (default: that of the student)", metavar="RATE"
    )
    gauges: bool = _field("measure the intermediate term at each epoch and warn of a collapse", True)
    skip_nonfinite: bool = _field("skip a batch whose loss or gradient is not finite, instead of stopping", False)
    average_last: float | None = _field(
        "keep the mean of the weights over this many last epochs (1, or 0.5) instead of the best or last ones",
        metavar="EPOCHS",
    )
    freeze: list[str] | None = _field(
        "parts that are not trained: embeddings (the module of the word embeddings, in most models of positions too) "
        "or block numbers; they need no gradient and no optimizer state",
        metavar="PART",
    )
    freeze_embeddings: bool = _field(
        "do not train the table of word embeddings; --freeze embeddings freezes more", False
    )
    keep_freed_memory: bool = _field("on a CPU with glibc: keep freed memory of the process for the next step", True)
    length_groups: Literal["pools", "split", "none"] = _field(
        "how to pad less: batches of texts of similar length (pools), random batches that the student reads in parts "
        "of similar length (split), or none",
        "pools",
        metavar="{pools,split,none}",
    )
    states_on_device: Literal["auto", "yes", "no"] = _field(
        "keep the teacher's states of all training rows on the device: where they take a quarter of its free memory at "
        "most (auto; on a CPU they are always read from the cache), yes, or no",
        "auto",
        metavar="{auto,yes,no}",
    )
    sampling: str = _field(
        "rows of an epoch: all of them once, or balanced: as many, drawn with replacement so that every class is "
        "equally likely",
        "all",
        metavar="NAME",
    )
    class_weights: list[float] | None = _field(
        "factor of the rows of each class in the task term, in the order of the outputs (default: 1)"
    )
    class_weights_on_logits: bool = _field("the class weights count in the logit term too", False)
    text_columns: list[str] | None = _field("text column, or two for pairs (default: columns with common names)")
    label_column: str | None = _field("label column (default: a column with a common name)")
    key_column: str = _field("column of the keys, for rows that are tokenised already", "example_key")
    max_length: int = _field("cut texts after this many tokens", 128)
    blocks: str | None = _field(
        "regular expression for the names of the student's blocks, for models whose blocks are not found",
        metavar="REGEX",
    )
    teacher_blocks: str | None = _field("the same for a teacher without a cache", metavar="REGEX")
    teacher_line: list[float] | None = _field(
        "slope and offset that are put on the outputs of a regression teacher (default: 1 and 0)"
    )
    source_rows: list[int] | None = _field(
        "numbers of rows of several sources, which lie one after the other in the training rows"
    )
    source_shares: list[float] | None = _field(
        "share of every batch that each of the sources has; their sum is 1 (default: every row once an epoch)"
    )
