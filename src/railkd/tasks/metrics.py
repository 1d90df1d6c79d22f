"""Metrics as GLUE defines them, from scikit-learn and scipy.

Two differences: rows without a label do not count, and a correlation with a constant is 0.0 instead of NaN. A model
that gives one answer to all rows has learned nothing, and the best epoch is chosen among numbers.

Macro F1 over more than two classes is the mean over the classes that occur in labels or answers. A class that occurs in
neither is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from railkd.data.label_names import normalize
from railkd.errors import RailkdError, did_you_mean

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Metric:
    """One metric of one kind of task.

    Attributes:
        name: as users and records write it.
        compute: ``compute(predictions, labels, positive class or None)``; both arrays as the task encodes labels.
        task: name of the kind of task that it scores.
        greater_is_better: False for errors.
    """

    name: str
    compute: Callable[[Any, Any, int | None], float]
    task: str
    greater_is_better: bool = True


def _accuracy(predicted: Any, labels: Any, positive: int | None) -> float:
    return float((predicted == labels).mean())


def _f1(predicted: Any, labels: Any, positive: int | None) -> float:
    from sklearn.metrics import f1_score

    if positive is None:
        return float(f1_score(labels, predicted, average="macro", zero_division=0.0))
    return float(f1_score(labels == positive, predicted == positive, zero_division=0.0))


def _matthews(predicted: Any, labels: Any, positive: int | None) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predicted))


def _correlation(predicted: Any, labels: Any, kind: str) -> float:
    from scipy import stats

    if len(labels) < 2 or (predicted == predicted[0]).all() or (labels == labels[0]).all():
        return 0.0
    return float(getattr(stats, kind)(predicted, labels).statistic)


def _pearson(predicted: Any, labels: Any, positive: int | None) -> float:
    return _correlation(predicted, labels, "pearsonr")


def _spearman(predicted: Any, labels: Any, positive: int | None) -> float:
    return _correlation(predicted, labels, "spearmanr")


def _mse(predicted: Any, labels: Any, positive: int | None) -> float:
    return float(((predicted - labels) ** 2).mean())


def _f1_of_labels(predicted: Any, labels: Any, average: str) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels > 0.5, predicted > 0.5, average=average, zero_division=0.0))


def _micro_f1(predicted: Any, labels: Any, positive: int | None) -> float:
    return _f1_of_labels(predicted, labels, "micro")


def _macro_f1(predicted: Any, labels: Any, positive: int | None) -> float:
    return _f1_of_labels(predicted, labels, "macro")


def _subset_accuracy(predicted: Any, labels: Any, positive: int | None) -> float:
    return float(((predicted > 0.5) == (labels > 0.5)).all(axis=1).mean())


METRICS: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric("accuracy", _accuracy, "classification"),
        Metric("f1", _f1, "classification"),
        Metric("matthews", _matthews, "classification"),
        Metric("pearson", _pearson, "regression"),
        Metric("spearman", _spearman, "regression"),
        Metric("mse", _mse, "regression", greater_is_better=False),
        Metric("micro_f1", _micro_f1, "multi-label"),
        Metric("macro_f1", _macro_f1, "multi-label"),
        Metric("subset_accuracy", _subset_accuracy, "multi-label"),
    )
}


#: The loss of the evaluation, which chooses the best epoch if the user says so.
LOSS = "loss"
NO_LABELS = "no row has a label, so that there is nothing to score. Fix: give labelled rows."


def select_metrics(task: str, names: Sequence[str]) -> list[Metric]:
    """Return the metrics of these names.

    Args:
        task: name of the kind of task that they must score.
        names: of the metrics, in the order wanted.

    Raises:
        RailkdError: a name is unknown, or its metric scores another kind of task.

    Example:
        >>> [metric.name for metric in select_metrics("regression", ["mse"])]
        ['mse']
    """
    fitting = [row.name for row in METRICS.values() if row.task == task]
    for name in names:
        if name not in fitting:
            near = did_you_mean(name, fitting)
            raise RailkdError(f"no metric {name!r} for {task}. Expected one of {', '.join(fitting)}.{near}")
    return [METRICS[name] for name in names]


def check_shapes(outputs: tuple[int, ...], labels: tuple[int, ...], width: int | None, several: bool) -> None:
    """Refuse outputs and labels whose shapes do not fit each other.

    Args:
        outputs: shape of the outputs, (N, C).
        labels: shape of the encoded labels: (N, C) if a row has several, else (N,).
        width: C; None: any.
        several: any number of classes may apply to a row.

    Raises:
        RailkdError: they do not fit.
    """
    if len(outputs) != 2 or labels != (outputs if several else outputs[:1]) or width not in (None, outputs[1]):
        wanted = "both of shape (N, C)" if several else f"of shapes (N, {width or 'C'}) and (N,)"
        raise RailkdError(f"expected logits and labels {wanted}, got {outputs} and {labels}.")


def select_labelled(outputs: np.ndarray, labels: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the outputs and labels of the labelled rows.

    Args:
        outputs: (N, C).
        labels: N of them.
        labelled: (N,) bool.

    Raises:
        RailkdError: no row has a label, or outputs of a labelled row are not finite.
    """
    import numpy as np

    outputs, labels = outputs[labelled], labels[labelled]
    if len(labels) == 0:
        raise RailkdError(NO_LABELS)
    if not np.isfinite(outputs).all():
        # argmax would take NaN for a class, and a correlation would hide it.
        bad = int((~np.isfinite(outputs)).any(axis=1).sum())
        raise RailkdError(
            f"the model's outputs are not finite in {bad} of {len(labels)} rows. Fix: lower the learning rate."
        )
    return outputs, labels


def index_of_positive(names: Sequence[str], positive: str | None) -> int:
    """Return the index of the class whose F1 is meant.

    Args:
        names: of the two classes; empty: not known.
        positive: the class; None or unknown: the second.
    """
    found = [normalize(name) for name in names]
    return found.index(normalize(positive)) if positive is not None and normalize(positive) in found else 1


def greater_is_better(metric: str) -> bool:
    """Return True if the best epoch has the highest value of a metric: False for the loss and for mse."""
    return metric != LOSS and (metric not in METRICS or METRICS[metric].greater_is_better)


def check_choice(name: str, task: str | None = None) -> str:
    """Check the name of the metric that chooses the best epoch: a metric of the task, or the loss.

    Args:
        name: as a user writes it, with or without Trainer's prefix ``eval_``.
        task: name of the kind of task; None allows the metrics of every kind.

    Returns:
        The name without the prefix.

    Raises:
        RailkdError: the task has no such metric.

    Example:
        >>> check_choice("eval_mse", "regression"), check_choice("loss")
        ('mse', 'loss')
    """
    metric = name.removeprefix("eval_")
    fitting = [row.name for row in METRICS.values() if task in (None, row.task)] + [LOSS]
    if metric not in fitting:
        where = f" for {task}" if task else ""
        wanted = f"expected one of {', '.join(fitting)}{where}"
        raise RailkdError(f"--metric-for-best-model: {wanted}, got {name!r}.{did_you_mean(metric, fitting)}")
    return metric
