"""The formulas of the metrics: each takes the labelled rows of a set and returns a number.

Two differences to scikit-learn and scipy: rows without a label do not count, and a correlation with a constant is 0.0
instead of NaN. A model that gives one answer to all rows has learned nothing, and the best epoch is chosen among
numbers.

Macro F1 over more than two classes is the mean over the classes that occur in labels or answers. Over several labels a
row it is the mean over all labels, and one that occurs nowhere counts as 0. A metric of one class against the others is
the mean over the classes that have rows on both sides; of two classes it is that of the positive one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from railkd.tasks.scored import Scored

if TYPE_CHECKING:
    import numpy as np


def accuracy(rows: Scored) -> float:
    """Return the share of right answers."""
    return float((rows.answers == rows.labels).mean())


def subset_accuracy(rows: Scored) -> float:
    """Return the share of the rows of which every label is right."""
    return float((rows.given == rows.members).all(axis=1).mean())


def f1(rows: Scored) -> float:
    """Return F1 of the positive one of two classes, or macro F1."""
    from sklearn.metrics import f1_score

    if rows.positive is None:
        return f1_over_classes(rows, "macro")
    return float(f1_score(rows.labels == rows.positive, rows.answers == rows.positive, zero_division=0.0))


def f1_over_classes(rows: Scored, average: str) -> float:
    """Return F1 over all classes.

    Args:
        rows: labelled ones.
        average: "micro", "macro" or "weighted" by the number of rows.
    """
    from sklearn.metrics import f1_score

    # As indices, classes that occur in neither labels nor answers are left out.
    pair = (rows.members, rows.given) if rows.labels.ndim == 2 else (rows.labels, rows.answers)
    return float(f1_score(*pair, average=average, zero_division=0.0))


def matthews(rows: Scored) -> float:
    """Return the Matthews correlation."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(rows.labels, rows.answers))


def balanced_accuracy(rows: Scored) -> float:
    """Return the mean recall over the classes that occur in the labels."""
    import numpy as np
    from sklearn.metrics import recall_score

    return float(recall_score(rows.labels, rows.answers, labels=np.unique(rows.labels), average="macro"))


def correlation(rows: Scored, kind: str) -> float:
    """Return a correlation; with a constant it is 0.

    Args:
        rows: labelled ones.
        kind: function of scipy.stats.
    """
    from scipy import stats

    given, labels = rows.answers, rows.labels
    if len(labels) < 2 or (given == given[0]).all() or (labels == labels[0]).all():
        return 0.0
    return float(getattr(stats, kind)(given, labels).statistic)


def mse(rows: Scored) -> float:
    """Return the mean squared error."""
    return float(((rows.answers - rows.labels) ** 2).mean())


def log_loss(rows: Scored) -> float:
    """Return the mean of minus the logarithm of the label's probability, over rows and their labels."""
    import numpy as np
    from sklearn import metrics

    shares = _shares(rows)
    if rows.labels.ndim == 1:
        return float(metrics.log_loss(rows.labels, shares, labels=range(shares.shape[1])))
    pairs = zip(rows.members.T, shares.T, strict=True)
    return float(np.mean([metrics.log_loss(has, share, labels=[False, True]) for has, share in pairs]))


def brier(rows: Scored) -> float:
    """Return the mean squared difference of probabilities and labels.

    It is summed over classes. Of two classes and of each of several labels, one probability decides the other, and it
    counts once.
    """
    squares = (_shares(rows) - rows.members) ** 2  # (N, K)
    if rows.labels.ndim == 2:
        return float(squares.mean())
    return float(squares.sum(axis=1).mean() / (2 if squares.shape[1] == 2 else 1))


def ece(rows: Scored) -> float:
    """Return the expected calibration error of the answers; each of several labels a row is an answer of its own."""
    import numpy as np

    from railkd.statistics import reliability

    shares = _shares(rows)
    if rows.labels.ndim == 2:
        sure, right = np.where(rows.given, shares, 1 - shares).ravel(), (rows.given == rows.members).ravel()
    else:
        sure, right = shares[np.arange(len(shares)), rows.answers], rows.answers == rows.labels
    return float(reliability(sure, right)[0])


def auroc(rows: Scored) -> float:
    """Return the area under the curve of true against false positives, by the probability of the class."""
    from sklearn.metrics import roc_auc_score

    return _over_classes(rows, roc_auc_score)


def auprc(rows: Scored) -> float:
    """Return the average precision, the area under the curve of precision against recall without interpolation."""
    from sklearn.metrics import average_precision_score

    return _over_classes(rows, average_precision_score)


def recall_at(rows: Scored, rate: float) -> float:
    """Return the highest recall of the thresholds whose false-positive rate is at most a given one.

    Args:
        rows: labelled ones.
        rate: between 0 and 1.
    """
    from sklearn.metrics import roc_curve

    def of_one(has: Any, share: Any) -> float:
        false, true, _ = roc_curve(has, share, drop_intermediate=False)  # a point on a line may be the best one allowed
        return float(true[false <= rate].max())

    return _over_classes(rows, of_one)


def that_occur(rows: Scored) -> np.ndarray:
    """Return (K,) bool: which classes have a row."""
    import numpy as np

    return np.asarray(rows.members.any(axis=0))


def on_both_sides(rows: Scored) -> np.ndarray:
    """Return (K,) bool: which classes have a row, and a row of another class."""
    import numpy as np

    return np.asarray(rows.members.any(axis=0) & ~rows.members.all(axis=0))


def _over_classes(rows: Scored, of_one: Callable[[Any, Any], float]) -> float:
    """Return the mean of a metric of one class against the others; of two classes, that of the positive one."""
    import numpy as np

    which = np.flatnonzero(on_both_sides(rows)) if rows.positive is None else [rows.positive]
    return float(np.mean([of_one(rows.members[:, index], _shares(rows)[:, index]) for index in which]))


def _shares(rows: Scored) -> np.ndarray:
    assert rows.shares is not None  # metrics of probabilities are not for kinds of task without them
    return rows.shares
