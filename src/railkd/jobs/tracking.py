"""Tell trackers of experiments (``--report-to``) what a run is, and its final scores."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from railkd.records import RunRecord
from railkd.training import DistillationTrainer

#: Name of the set that chose the weights. Its scores are in the log already, and they are no test.
_SELECTION = "eval"


@contextmanager
def described(group: str, tags: Mapping[str, Any]) -> Iterator[None]:
    """Give group and tags to the trackers of the runs in the ``with`` block.

    Their libraries read them from environment variables. Variables that the user has set stay as they are.

    Args:
        group: what the runs belong to.
        tags: name -> value.

    Yields:
        Nothing.
    """
    plain = {name: str(value) for name, value in tags.items()}
    variables = {
        "WANDB_RUN_GROUP": group,
        "WANDB_TAGS": ",".join(f"{name}: {value}" for name, value in plain.items()),
        "MLFLOW_TAGS": json.dumps({"group": group} | plain),
    }
    ours = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def log_scores(trainer: DistillationTrainer, record: RunRecord) -> None:
    """Send the scores of the test sets to the trackers, as ``test_SET_METRIC``. The record has them elsewhere.

    Args:
        trainer: trainer after training.
        record: holds the scores.
    """
    scores = {
        f"test_{name}_{metric}": value
        for name, metrics in record.metrics.items()
        if name != _SELECTION
        for metric, value in metrics.items()
    }
    if scores:
        trainer.callback_handler.on_log(trainer.args, trainer.state, trainer.control, scores)
