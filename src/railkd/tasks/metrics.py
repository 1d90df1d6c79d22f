"""The table of metrics, and the lookup of a metric by its name. The formulas are in `railkd.tasks.measures`.

A metric of one class against the others may not be defined for every class of a set. `compute` leaves out a metric that
no class allows, so that no NaN is shown, and `describe_gaps` says what is left out.

Letters: N labelled rows, K classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from railkd.errors import RailkdError, did_you_mean
from railkd.runtime.words import listed, shortened
from railkd.tasks import measures
from railkd.tasks.measures import on_both_sides, that_occur
from railkd.tasks.scored import Scored

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as records write it; users may write hyphens for underscores.
        compute: takes the labelled rows, returns the value.
        tasks: names of the kinds of task that it scores.
        source: where its definition comes from.
        greater_is_better: False for errors.
        probabilities: it reads probabilities. Otherwise it reads answers.
        classes: returns (K,) bool, the classes that it is the mean over; None: it is no mean over classes, or is
            defined for every class.
    """

    name: str
    compute: Callable[[Scored], float]
    tasks: tuple[str, ...]
    source: str
    greater_is_better: bool = True
    probabilities: bool = False
    classes: Callable[[Scored], np.ndarray] | None = None

    def is_defined(self, rows: Scored) -> bool:
        """Return whether the labels of some rows define the metric, for one class at least."""
        return self.classes is None or bool(self.classes(rows).any())


_CLASSES, _LABELS, _NUMBERS = "classification", "multi-label", "regression"
_BOTH = (_LABELS, _CLASSES)
_GUO = "Guo et al. 2017 (arXiv 1706.04599), 15 bins of equal width"

#: A metric of several kinds of task names first the kind that has it among its usual ones.
METRICS: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric("accuracy", measures.accuracy, (_CLASSES,), "sklearn.metrics.accuracy_score"),
        Metric("f1", measures.f1, (_CLASSES,), "sklearn.metrics.f1_score"),
        Metric("matthews", measures.matthews, (_CLASSES,), "sklearn.metrics.matthews_corrcoef"),
        Metric("pearson", partial(measures.correlation, kind="pearsonr"), (_NUMBERS,), "scipy.stats.pearsonr"),
        Metric("spearman", partial(measures.correlation, kind="spearmanr"), (_NUMBERS,), "scipy.stats.spearmanr"),
        Metric("mse", measures.mse, (_NUMBERS,), "mean squared error", greater_is_better=False),
        Metric("micro_f1", partial(measures.f1_over_classes, average="micro"), (_LABELS,), "sklearn.metrics.f1_score"),
        Metric("macro_f1", partial(measures.f1_over_classes, average="macro"), _BOTH, "sklearn.metrics.f1_score"),
        Metric("weighted_f1", partial(measures.f1_over_classes, average="weighted"), _BOTH, "sklearn.metrics.f1_score"),
        Metric("subset_accuracy", measures.subset_accuracy, (_LABELS,), "all labels of the row are right"),
        Metric(
            "balanced_accuracy",
            measures.balanced_accuracy,
            (_CLASSES,),
            "sklearn.metrics.balanced_accuracy_score",
            classes=that_occur,
        ),
        Metric("auroc", measures.auroc, _BOTH, "sklearn.metrics.roc_auc_score", True, True, on_both_sides),
        Metric("auprc", measures.auprc, _BOTH, "sklearn.metrics.average_precision_score", True, True, on_both_sides),
        Metric("log_loss", measures.log_loss, _BOTH, "sklearn.metrics.log_loss", False, True),
        Metric("brier", measures.brier, _BOTH, "Brier 1950, Monthly Weather Review 78(1)", False, True),
        Metric("ece", measures.ece, _BOTH, _GUO, False, True),
    )
}
#: The metric that has a number in its name.
RECALL_AT = "recall@fpr=RATE"
_RATE = re.compile(r"recall@fpr=(.*)")

#: The loss of the evaluation, which chooses the best epoch if the user says so.
LOSS = "loss"


def find_metric(name: str, task: str | None = None) -> Metric:
    """Return the metric of a name. Every name of a metric is read here.

    Args:
        name: as a user or a record writes it; ``recall@fpr=0.01`` states a rate.
        task: name of the kind of task that it must score; None allows every kind.

    Raises:
        RailkdError: the name is unknown, its rate is no number between 0 and 1, or the metric scores other kinds.

    Example:
        >>> find_metric("weighted-f1").name, find_metric("recall@fpr=.010").name
        ('weighted_f1', 'recall@fpr=0.01')
    """
    found = METRICS.get(name.replace("-", "_")) or _with_rate(name)
    if found is None or task not in (None, *found.tasks):
        fitting = [*(row.name for row in METRICS.values() if task in (None, *row.tasks))]
        fitting += [RECALL_AT] if task in (None, *_BOTH) else []
        of = f" for {task}" if task else ""
        near = "" if found else did_you_mean(name.replace("-", "_"), fitting)
        raise RailkdError(f"no metric {shortened(name)!r}{of}. Expected one of {', '.join(fitting)}.{near}")
    return found


def _with_rate(name: str) -> Metric | None:
    """Return the recall at the false-positive rate that a name states; None for another name."""
    given = _RATE.fullmatch(name)
    if given is None:
        return None
    try:
        rate = float(given[1])
    except ValueError:
        rate = math.nan
    if not 0 < rate < 1:
        raise RailkdError(f"Expected a false-positive rate between 0 and 1, such as recall@fpr=0.01, got {name!r}.")
    of_rate = partial(measures.recall_at, rate=rate)
    return Metric(f"recall@fpr={rate:g}", of_rate, _BOTH, "sklearn.metrics.roc_curve", True, True, on_both_sides)


def select_metrics(task: str, names: Sequence[str]) -> list[Metric]:
    """Return the metrics of these names, each once. Refuse those that are unknown or score another kind of task.

    Args:
        task: name of the kind of task that they must score.
        names: of the metrics, in the order wanted.

    Example:
        >>> [metric.name for metric in select_metrics("regression", ["mse"])]
        ['mse']
    """
    found = {metric.name: metric for metric in (find_metric(name, task) for name in names)}
    return list(found.values())


def compute(metrics: Sequence[Metric], rows: Scored) -> dict[str, float]:
    """Return metric -> value, without the metrics that are not defined on the rows.

    Args:
        metrics: in the order wanted.
        rows: labelled ones.
    """
    return {metric.name: metric.compute(rows) for metric in metrics if metric.is_defined(rows)}


def describe_gaps(metrics: Sequence[Metric], rows: Scored) -> dict[str, str]:
    """Describe the metrics that the rows do not define for every class.

    Args:
        metrics: to look at.
        rows: labelled ones.

    Returns:
        Metric -> what its value leaves out, or why it has none, in words.
    """
    found = {}
    for metric in metrics:
        usable = metric.classes(rows) if metric.classes else None
        if usable is None or usable.all():
            continue
        short = [repr(shortened(rows.name(index))) for index, is_usable in enumerate(usable) if not is_usable]
        lack = "no row has" if metric.classes is that_occur else "there are not both rows with and rows without"
        mean = f"it is the mean over the other {usable.sum()} of {len(usable)} classes"
        found[metric.name] = f"{lack} {listed(short, most=5)}: {mean if usable.any() else 'it is not defined'}"
    return found


def greater_is_better(metric: str) -> bool:
    """Return True if the best epoch has the highest value of a metric: False for losses and errors."""
    try:
        return metric != LOSS and find_metric(metric).greater_is_better
    except RailkdError:  # a metric of a later release, in a record
        return True


def check_choice(name: str, task: str | None = None, own: Collection[str] = ()) -> str:
    """Check the name of the metric that chooses the best epoch: a metric of the task or of the user, or the loss.

    Args:
        name: as a user writes it, with or without Trainer's prefix ``eval_``.
        task: name of the kind of task; None allows the metrics of every kind.
        own: names of the metrics of the user's own functions.

    Returns:
        The name as records write it, without the prefix.

    Raises:
        RailkdError: the task has no such metric.

    Example:
        >>> check_choice("eval_mse", "regression"), check_choice("loss"), check_choice("log-loss")
        ('mse', 'loss', 'log_loss')
    """
    metric = name.removeprefix("eval_")
    try:
        return metric if metric == LOSS or metric in own else find_metric(metric, task).name
    except RailkdError as error:
        more = f" Your functions compute {listed(list(own))}." if own else ""
        raise RailkdError(
            f"--metric-for-best-model: {error} The loss of the evaluation is called {LOSS}.{more}"
        ) from None
