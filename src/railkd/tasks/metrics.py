"""Metrics as GLUE defines them: names -> numbers, from scikit-learn and scipy.

But: a correlation with a constant is 0.0, not nan (a model that always says the same has learned nothing, and a best
epoch must be found among numbers); rows without a label do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


def chosen(task: str, names: Sequence[str]) -> list[Metric]:
    """Return the metrics of these names.

    Args:
        task: name of the kind of task that they must score.
        names: of the metrics, in the order wanted.

    Raises:
        RailkdError: a name that is none, or that scores another kind of task.

    >>> [metric.name for metric in chosen("regression", ["mse"])]
    ['mse']
    """
    fitting = [row.name for row in METRICS.values() if row.task == task]
    for name in names:
        if name not in fitting:
            near = did_you_mean(name, fitting)
            raise RailkdError(f"no metric {name!r} for {task}; wanted one of {', '.join(fitting)}.{near}")
    return [METRICS[name] for name in names]


def scorable(outputs: np.ndarray, labels: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the outputs and labels of the labelled rows.

    Args:
        outputs: (N, C). labels: N of them. labelled: (N,) bool.

    Raises:
        RailkdError: no row has a label, or outputs of a labelled row are not finite.
    """
    import numpy as np

    outputs, labels = outputs[labelled], labels[labelled]
    if len(labels) == 0:
        raise RailkdError("no row has a label, so there is nothing to score; wanted labelled rows.")
    if not np.isfinite(outputs).all():
        # argmax would call nan a class and a correlation would hide it: neither is a score.
        bad = int((~np.isfinite(outputs)).any(axis=1).sum())
        raise RailkdError(
            f"the model's outputs are not finite in {bad} of {len(labels)} rows; lower the learning rate."
        )
    return outputs, labels


def shapes_differ(outputs: np.ndarray, labels: np.ndarray, wanted: str) -> RailkdError:
    """Return the error for outputs and labels whose shapes do not go together; ``wanted`` says which would."""
    return RailkdError(f"got logits of shape {outputs.shape} and labels of shape {labels.shape}; wanted {wanted}.")


def greater_is_better(metric: str) -> bool:
    """Whether the best epoch has the highest value of a metric: True but for errors such as mse."""
    return metric not in METRICS or METRICS[metric].greater_is_better
