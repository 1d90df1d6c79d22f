"""Weighs rare classes in a training run: the numbers of ``--class-weights``, and what balanced sampling draws from."""

from __future__ import annotations

import numpy as np

from railkd.errors import RailkdError
from railkd.jobs.class_weights import parse_class_weights, weights_in_order
from railkd.jobs.options import RunOptions, Say
from railkd.jobs.splits import Splits
from railkd.objectives import method_spec
from railkd.objectives.base import normalised_weights
from railkd.objectives.class_weights import balanced, checked_class_weights, normalised
from railkd.runtime.words import named, shortened
from railkd.training import DistillationTrainingArguments
from railkd.training.fields import check_sampling

#: Of more classes, a line names the smallest and the largest weight alone.
_MOST_SHOWN = 20


def weigh_classes(options: RunOptions, args: DistillationTrainingArguments, splits: Splits, say: Say) -> None:
    """Set the class weights of a run, and say what they or balanced sampling do to its labelled training rows.

    Args:
        options: of the job.
        args: of the training; receive the weights in the order of the outputs.
        splits: the rows and the classes.
        say: receives lines for the user.

    Raises:
        RailkdError: the task has no classes, balanced sampling finds several a row, or the weights do not fit.
    """
    task, names = splits.target.task, splits.target.space.names
    labels = np.asarray(splits.train.rows["label"])
    check_sampling(args.sampling, weighted=options.class_weights is not None)
    if args.sampling == "balanced":
        if not task.one_class:
            raise RailkdError(f"--sampling balanced needs one class a row, got {task.name}. Fix: leave it out.")
        say(_sampling_line(labels, splits))
    if options.class_weights is None:
        if args.class_weights_on_logits:
            raise RailkdError("--class-weights-on-logits has no effect without --class-weights. Fix: give both.")
        return
    if not names:
        raise RailkdError(f"--class-weights: {task.name} has no classes. Fix: leave the flag out.")
    given = parse_class_weights(options.class_weights)
    found = balanced(labels, len(names)) if isinstance(given, str) else weights_in_order(given, names)
    args.class_weights = normalised(found, labels) if task.one_class else found
    terms_of_loss = normalised_weights(args.weights, method_spec(args.method).objective.terms)
    checked_class_weights(args.class_weights, args.class_weights_on_logits, terms_of_loss, task.problem_type)
    counts = np.bincount(labels, minlength=len(names)) if task.one_class else labels.sum(axis=0)
    terms = "the task and logit terms" if args.class_weights_on_logits else "the task term"
    mean = "; their mean over the training rows is 1" if task.one_class else ", where the label applies"
    shown = [f"{shortened(name)} {weight:.4g}" for name, weight in zip(names, args.class_weights, strict=True)]
    if len(shown) > _MOST_SHOWN:
        shown = [f"{min(args.class_weights):.4g} to {max(args.class_weights):.4g} over {len(shown):,} classes"]
    say(f"class weights in {terms}: {', '.join(shown)}{mean}")
    if absent := [name for name, count in zip(names, counts, strict=True) if not count]:
        say(f"class weights: no training row has {named(absent)}, so that the weight has no effect")


def _sampling_line(labels: np.ndarray, splits: Splits) -> str:
    occurring, extra = len(np.unique(labels)), ""
    if splits.mixture is not None and splits.mixture.of_batches(len(labels)) is not None:
        drawn = f"labelled rows are drawn with replacement, each of the {occurring} classes equally likely"
        return f"sampling balanced: {drawn}"
    if splits.unlabelled is not None:
        extra = f"; the {len(splits.unlabelled):,} rows without labels come once each"
    return (
        f"sampling balanced: each epoch draws {len(labels):,} labelled rows with replacement, each of the {occurring} "
        f"classes equally likely{extra}"
    )
