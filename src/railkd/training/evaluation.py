"""Evaluate the longest rows first, and return all results in the order of the data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from transformers import EvalPrediction, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from railkd.training.samplers import EpochSampler

Metrics = Callable[..., dict[str, float]]


def longest_first(dataset: Any) -> np.ndarray:
    """Return the row order of evaluation, longest first: less padding, and too little memory fails at once."""
    names = getattr(dataset, "column_names", [])
    lengths = [len(ids) for ids in dataset["input_ids"][:]] if "input_ids" in names else [0] * len(dataset)
    return np.argsort(-np.asarray(lengths), kind="stable")


def restored(values: Any, order: np.ndarray | None) -> Any:
    """Return arrays with their rows moved from a given order back into that of the data set.

    Args:
        values: an array with at least one row for each index in ``order``, a tuple of such arrays, or None.
        order: row indices, (rows,). None leaves the values unchanged.

    Returns:
        The arrays, or None.

    Example:
        >>> restored(np.array([30, 10]), np.array([1, 0])).tolist()
        [10, 30]
    """
    if values is None or order is None:
        return values
    if isinstance(values, tuple):
        return tuple(restored(part, order) for part in values)
    values = values[: len(order)]  # losses are repeated for the rows that the last batch lacks
    result = np.empty_like(values)
    result[order] = values
    return result


class Evaluation:
    """The row order of evaluations, and the metrics of a user in the order of the data set.

    Args:
        args: settings of the run. With ``batch_eval_metrics``, or without ``eval_do_concat_batches``, results are those
            of batches, so the rows keep the order of the data set.
        metrics: ``compute_metrics`` of the user, or None.

    Attributes:
        metrics: the function for Trainer, or None.
    """

    def __init__(self, args: TrainingArguments, metrics: Metrics | None) -> None:
        self._by_batch = args.batch_eval_metrics or not args.eval_do_concat_batches
        self._given = metrics
        self._order: np.ndarray | None = None
        self.metrics: Metrics | None = metrics if metrics is None or self._by_batch else self._in_dataset_order

    def sampler(self, dataset: Any) -> EpochSampler | None:
        """Return the order of the rows of a data set, or None for a stream."""
        if not hasattr(dataset, "__len__"):
            return None
        order = self._order_of(dataset)
        return EpochSampler(len(order), lambda _: order, lambda: 0)

    @contextmanager
    def of(self, dataset: Any) -> Iterator[Callable[[EvalLoopOutput], EvalLoopOutput]]:
        """Evaluate a data set in the ``with`` block.

        Args:
            dataset: rows with tokens, or a stream.

        Yields:
            A function that returns the results in the order of the data set.
        """
        order = self._order_of(dataset) if hasattr(dataset, "__len__") and not self._by_batch else None
        self._order = order

        def in_order(output: EvalLoopOutput) -> EvalLoopOutput:
            return output._replace(
                predictions=restored(output.predictions, order), label_ids=restored(output.label_ids, order)
            )

        yield in_order
        self._order = None

    def _order_of(self, dataset: Any) -> np.ndarray:
        return np.arange(len(dataset)) if self._by_batch else longest_first(dataset)

    def _in_dataset_order(self, given: EvalPrediction) -> dict[str, float]:
        assert self._given is not None
        parts = {"predictions": given.predictions, "label_ids": given.label_ids}
        parts |= {"inputs": given.inputs, "losses": given.losses}
        return self._given(EvalPrediction(**{name: restored(part, self._order) for name, part in parts.items()}))
