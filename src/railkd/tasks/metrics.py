"""Metrics as GLUE defines them: names -> numbers, from scikit-learn and scipy.

But: a correlation with a constant is 0.0, not nan (a model that always says the same has learned nothing, and a best
epoch must be found among numbers); rows without a label do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from railkd.data.labels import MISSING
from railkd.errors import RailkdError, did_you_mean

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Metric:
    """``compute(predictions (N,), labels (N,), positive class or None)``."""

    name: str
    compute: Callable[[Any, Any, int | None], float]
    regression: bool
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


METRICS: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric("accuracy", _accuracy, regression=False),
        Metric("f1", _f1, regression=False),
        Metric("matthews", _matthews, regression=False),
        Metric("pearson", _pearson, regression=True),
        Metric("spearman", _spearman, regression=True),
        Metric("mse", _mse, regression=True, greater_is_better=False),
    )
}
DEFAULT_METRICS = {False: ("accuracy", "f1"), True: ("pearson", "spearman", "mse")}  # by regression


def score(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    regression: bool,
    metrics: Sequence[str] | None = None,
    positive: int = 1,
) -> dict[str, float]:
    """The metrics of logits (N, C) against labels (N,), in the order asked for.

    f1 is that of class ``positive`` when C = 2, macro over classes otherwise. Regression takes (N, 1) or (N,).
    Labels -100 or nan are rows without a label and are left out.

    >>> import numpy as np
    >>> score(np.array([[2., 1.], [0., 3.], [0., 1.]]), np.array([0, 1, -100]), regression=False)
    {'accuracy': 1.0, 'f1': 1.0}
    """
    import numpy as np

    rows = _rows(regression, metrics)
    logits = np.asarray(logits, dtype=np.float64)
    if regression and logits.ndim == 1:
        logits = logits[:, None]
    labels = np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or (regression and logits.shape[1] != 1):
        raise RailkdError(
            f"got logits of shape {logits.shape} and labels of shape {labels.shape}; "
            f"wanted (N, {'1' if regression else 'C'}) and (N,)."
        )
    labelled = ~np.isnan(labels) if regression else labels != MISSING
    logits, labels = logits[labelled], labels[labelled]
    if len(labels) == 0:
        raise RailkdError("no row has a label, so there is nothing to score; wanted labelled rows.")
    if not np.isfinite(logits).all():
        # argmax would call nan a class and a correlation would hide it: neither is a score.
        bad = int((~np.isfinite(logits)).any(axis=1).sum())
        raise RailkdError(
            f"the model's outputs are not finite in {bad} of {len(labels)} rows; lower the learning rate."
        )
    predicted = logits[:, 0] if regression else logits.argmax(axis=1)
    which = positive if not regression and logits.shape[1] == 2 else None
    return {row.name: row.compute(predicted, labels, which) for row in rows}


def primary_metric(regression: bool, metrics: Sequence[str] | None = None) -> str:
    """The metric that selects the best epoch: the first one.

    >>> primary_metric(False), primary_metric(False, ["matthews", "accuracy"])
    ('accuracy', 'matthews')
    """
    return _rows(regression, metrics)[0].name


def greater_is_better(metric: str) -> bool:
    """Whether the best epoch has the highest value of a metric (all but mse)."""
    return metric not in METRICS or METRICS[metric].greater_is_better  # those of several labels a row all rise


def _rows(regression: bool, metrics: Sequence[str] | None) -> list[Metric]:
    fitting = [row.name for row in METRICS.values() if row.regression == regression]
    for name in metrics or ():
        if name not in fitting:
            kind = "regression" if regression else "classification"
            near = did_you_mean(name, fitting)
            raise RailkdError(f"no metric {name!r} for {kind}; wanted one of {', '.join(fitting)}.{near}")
    return [METRICS[name] for name in metrics or DEFAULT_METRICS[regression]]
