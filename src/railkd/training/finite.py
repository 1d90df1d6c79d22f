"""Numbers that are none: found at the step they come up, with the term, the side and the examples named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from railkd.data.keys import KEY
from railkd.errors import RailkdError
from railkd.functional import all_finite
from railkd.signals import Signals

_SHOWN = 3


class NotFinite(RailkdError):
    """A loss, a signal or a label that is NaN or infinite."""


def check_inputs(inputs: Mapping[str, Tensor], teacher: Signals | None, step: int) -> None:
    """Refuse a teacher's signals and labels that are no numbers; NaN marks an unlabelled row, infinity nothing.

    Raises:
        NotFinite: says which, and the keys of the rows.
    """
    labels = inputs.get("labels")
    if labels is not None and labels.is_floating_point() and labels.isinf().any():
        raise _error("an infinite label", step, inputs, labels.isinf())
    if teacher is not None:
        for name, values in (("logits", teacher.logits), ("states", teacher.states)):
            if values is not None and not all_finite(values):
                raise _error(f"teacher {name} that are NaN or infinite", step, inputs, ~values.isfinite())


def check_loss(
    loss: Tensor, terms: Tensor, names: Sequence[str], logits: Tensor, inputs: Mapping[str, Tensor], step: int
) -> None:
    """Refuse a loss that is no number.

    Raises:
        NotFinite: names the terms, and the rows whose student logits are no numbers (or the first rows of the batch).
    """
    if bool(loss.isfinite()):
        return
    bad = [name for name, value in zip(names, terms.isfinite().tolist(), strict=True) if not value]
    rows = ~logits.isfinite()
    what = f"a loss of {float(loss)} ({', '.join(bad) or 'the sum of the terms'} not finite)"
    raise _error(what, step, inputs, rows if bool(rows.any()) else torch.ones_like(rows))


def check_gradient(norm: float, step: int) -> None:
    """Refuse gradients that are no numbers.

    Raises:
        NotFinite: the step.
    """
    if not torch.isfinite(torch.tensor(norm)):
        raise NotFinite(f"step {step + 1}: got gradients with a norm of {norm}, wanted finite numbers; {_ADVICE}")


_ADVICE = "lower --learning-rate, train in float32 (--no-bf16), or skip such batches with --skip-nonfinite"


def _error(what: str, step: int, inputs: Mapping[str, Tensor], wrong: Tensor) -> NotFinite:
    rows = wrong.reshape(len(wrong), -1).any(dim=1).nonzero().flatten().tolist()
    keys = inputs.get(KEY)
    where = (
        f"rows {rows[:_SHOWN]} of the batch" if keys is None else f"examples with keys {keys[rows[:_SHOWN]].tolist()}"
    )
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return NotFinite(f"step {step + 1}: got {what}, in {where}{more}; {_ADVICE}")
