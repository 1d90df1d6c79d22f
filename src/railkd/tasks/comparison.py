"""Compares the scores of a set with those of the best answer that needs no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from railkd.data.reader import Table
from railkd.records import Baseline
from railkd.runtime.words import named
from railkd.tasks import task_of
from railkd.tasks.metrics import greater_is_better
from railkd.tasks.own_metrics import compute_own
from railkd.tasks.scored import index_of_positive, scored_rows
from railkd.tasks.target import Target

if TYPE_CHECKING:
    import numpy as np

#: Answers whose spread is a smaller share of the spread of the labels are as good as one number.
_LEAST_SPREAD = 0.01


def compare(target: Target, table: Table, outputs: np.ndarray, scores: Mapping[str, float]) -> Baseline:
    """Score the answer that needs no model on a set, and say what that makes of the model's scores.

    Args:
        target: task and classes of the model.
        table: N rows with encoded labels.
        outputs: (N, C) of the model, in the order of the table.
        scores: metric -> value, of the model.

    Returns:
        The scores of the commonest class or classes, or of the mean, and a remark if the model is no better.
    """
    import numpy as np

    task, space = task_of(target.task.problem_type), table.space or target.space  # without a cut
    labels = np.asarray(table.rows["label"])
    known = task.labelled(labels)
    answer = task.constant(labels[known], task.width or len(space.names))[None]
    metrics = task.baseline(labels, space, table.metrics, table.positive)
    if target.own:
        rows = scored_rows(task, np.tile(answer, (len(labels), 1)), labels, space, table.positive)
        metrics |= compute_own(target.own, rows.without_model()).values
    words = _in_words(task.in_words(task.decide(answer), space)[0])
    names = space.fold.names if space.fold else space.names
    two = task.one_class and len(names) == 2 and "f1" in metrics
    positive = names[index_of_positive(names, table.positive)] if two else ""
    remark = _describe_monotony(target, table, outputs, known) or _compare_scores(scores, metrics, words)
    return Baseline(words, metrics, positive, remark)


def _in_words(answer: Any) -> str:
    """Return one answer for a sentence: a name, names or a number."""
    if isinstance(answer, list):
        return named(map(str, answer)) if answer else "no class"
    return f"{answer:.4g}" if isinstance(answer, float) else named([str(answer)])


def _compare_scores(scores: Mapping[str, float], baseline: Mapping[str, float], answer: str) -> str:
    """Return a remark if the main metric is no better than that of the constant answer."""
    metric, value = next(iter(scores.items()))
    lead = value - baseline[metric]
    if (lead if greater_is_better(metric) else -lead) > 0:
        return ""
    return f"{metric} is no better than that of the answer {answer} to every row"


def _describe_monotony(target: Target, table: Table, outputs: np.ndarray, known: np.ndarray) -> str:
    """Return a remark if a model gives one answer to all labelled rows although their labels differ."""
    import numpy as np

    gold, given = (
        [answer for answer, there in zip(answers, known, strict=True) if there]
        for answers in target.answers(table, outputs)
    )
    if len(set(map(str, gold))) < 2:
        return ""
    if target.task.points:
        return f"every answer is {_in_words(given[0])}" if len(set(map(str, given))) == 1 else ""
    if np.std(given) > _LEAST_SPREAD * np.std(gold):
        return ""
    return (
        f"the answers hardly differ: they lie between {min(given):.4g} and {max(given):.4g}, the labels between "
        f"{min(gold):.4g} and {max(gold):.4g}"
    )
