"""Fits the head of a classifier to its classes, and reads what a config says of a head: class names, kind of task."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from railkd.data.labels import LabelSpace, match_label_space
from railkd.errors import RailkdError
from railkd.models.quiet import quiet_transformers
from railkd.models.weights import check_report, in_head
from railkd.runtime.words import listed, named
from railkd.tasks import Task, task_of

logger = logging.getLogger(__name__)


def head_config(names: Sequence[str], *, problem_type: str | None = None) -> dict[str, Any]:
    """Return the config entries of a head for these classes, in this order.

    Args:
        names: of the classes; none for regression.
        problem_type: as transformers writes it. None means single-label classification, or regression if no name is
            given.

    Returns:
        Name -> value of the config entries.
    """
    return task_of(problem_type, len(names) or 1).head(names)


def task_of_config(config: Any) -> Task:
    """Return the kind of task of a config, by its problem type or, if it has none, by its number of outputs.

    Args:
        config: of the model.

    Returns:
        The row of `railkd.tasks.TASKS`.
    """
    return task_of(config.problem_type, config.num_labels)


def problem_type_of(config: Any) -> str:
    """Return the problem type of a config, also if the config does not name it.

    Args:
        config: of the model.

    Returns:
        The problem type, as transformers writes it.
    """
    return task_of_config(config).problem_type


def label_names(config: Any) -> tuple[str, ...]:
    """Return the class names of a config.

    Args:
        config: of the model.

    Returns:
        The names, in the order of the outputs.

    Raises:
        RailkdError: the classes are not numbered 0, 1, ..., or two have one name.
    """
    numbers = sorted(config.id2label)
    if numbers != list(range(len(numbers))):
        wanted = listed(range(len(numbers)))
        raise RailkdError(
            f"Expected config.json to number its classes {wanted} (id2label), got {listed(numbers, 20)}. "
            "Fix: correct id2label and label2id in config.json."
        )
    names = [str(config.id2label[number]) for number in numbers]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise RailkdError(
            f"Expected config.json to give each class a name of its own (id2label), got several classes named "
            f"{named(twins)}. Fix: correct id2label and label2id in config.json."
        )
    return tuple(names)


def fit_head(
    model: Any,
    report: Mapping[str, Any],
    name: str,
    stored: Any,
    *,
    new_head: bool,
) -> Any:
    """Check that all weights of a model were loaded, and fit the rows of its head to the classes of its config.

    Rows go to the class of the same name. If the names do not match, the last layer of the head is drawn anew from
    torch's global seed. A log line says what was done.

    Args:
        model: as it was loaded, with the config of the wanted classes.
        report: of transformers (``output_loading_info``).
        name: of the checkpoint, for messages.
        stored: config of the checkpoint.
        new_head: training follows, so a head may be drawn anew.

    Returns:
        The model, or another one if its head was drawn anew. Weights that are missing, unexpected or of another shape
        raise `RailkdError`.
    """
    drawn = check_report(model, report, name, new_head=new_head)
    if drawn:
        say(f"The head is new ({listed(drawn, 4)}): '{name}' has none that fits. It must be trained.")
        return model
    order = _order(stored, model.config)
    if order is None:
        last, ours = last_layer(model), ", ".join(label_names(model.config))
        say(f"The head is new ({last}): that of '{name}' has no classes named {ours}. It must be trained.")
        return _without(model, f"{last}.")
    if order != list(range(len(order))):
        import torch

        with torch.no_grad():
            for parameter in model.get_submodule(last_layer(model)).parameters():
                parameter.copy_(parameter[order])
        say(
            f"The rows of the head of '{name}' are reordered by name: it has the classes "
            f"{', '.join(label_names(stored))}, the data {', '.join(label_names(model.config))}."
        )
    return model


def last_layer(model: Any) -> str:
    """Return the name of the layer whose rows are the outputs of a classifier.

    Args:
        model: a transformers classifier.

    Returns:
        The name of the module.

    Raises:
        RailkdError: there is no layer with a row for each output behind the base model.
    """
    outputs = model.config.num_labels
    found = [
        key.removesuffix(".weight")
        for key, value in model.named_parameters()
        if key.endswith(".weight") and value.dim() == 2 and len(value) == outputs and in_head(model, key)
    ]
    if not found:
        raise RailkdError(
            f"cannot find the layer of {type(model).__name__} that has a row for each of {outputs} classes. "
            "Fix: start from a model whose config names the classes of the data, in the same order."
        )
    return found[-1]


def _order(stored: Any, wanted: Any) -> list[int] | None:
    """Return the old row of each new one; None if the classes do not match by name."""
    if stored.id2label == wanted.id2label or task_of_config(stored).width == task_of_config(wanted).width == 1:
        return list(range(wanted.num_labels))
    try:
        theirs, ours = label_names(stored), label_names(wanted)
        several = task_of_config(wanted).several  # so that a head may have one class
        spellings = match_label_space(theirs, LabelSpace(ours), several=several).spellings
    except RailkdError:
        return None
    order = [spellings[name] for name in ours]
    return order if sorted(order) == list(range(len(theirs))) else None


def _without(model: Any, start: str) -> Any:
    """Return the model with the weights whose names start so drawn anew, as transformers draws missing weights."""
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith(start)}
    with quiet_transformers():
        return type(model).from_pretrained(None, config=model.config, state_dict=kept, dtype=model.dtype)


@contextmanager
def head_follows() -> Iterator[None]:
    """Say nothing of a head that is drawn or reordered inside the block: its weights are loaded after it.

    Yields:
        Nothing.
    """

    def unsaid(_: logging.LogRecord) -> bool:
        return False

    logger.addFilter(unsaid)
    try:
        yield
    finally:
        logger.removeFilter(unsaid)


def say(line: str) -> None:
    """Log a line about a model on rank 0.

    Args:
        line: for the user.
    """
    from railkd.runtime import ranks

    if ranks.is_main_process():
        logger.warning(line)
