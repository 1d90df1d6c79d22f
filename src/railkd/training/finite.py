"""Stop training on NaN or infinity, without a synchronisation with the device at each step.

Labels and cached signals are checked in main memory, before they are copied. Everything else is checked on the device.
If the loss or a signal of a live teacher is not finite, the loss becomes NaN. The norm of its gradients is then not
finite, and an optimizer step with such a norm changes nothing (`guard`). `Watch` reads the results from the device
after at most `EVERY` steps, and reports the step, the loss term, the model and the example keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from railkd.data.keys import KEY
from railkd.errors import RailkdError
from railkd.functional import full_precision
from railkd.signals import Signals

#: Largest number of optimizer steps between two reads of the results from the device.
EVERY = 16
_SHOWN = 3
#: Example keys of a batch, (B, 2), or None if they are unknown. Only the keys in an error message are read.
Keys = np.ndarray | Tensor | None
_ADVICE = "lower --learning-rate, train in float32 (--no-bf16), or skip such batches with --skip-nonfinite"


class NotFinite(RailkdError):
    """Report a loss, a signal, a label or a gradient that is NaN or infinite.

    Attributes:
        share: the micro-batch's share of an optimizer step. It is 0 for labels, cached signals and gradient norms.
    """

    share: float = 0.0


def check_labels(host: Mapping[str, np.ndarray], step: int) -> None:
    """Raise `NotFinite` with the example keys if a label is infinite. NaN marks an unlabelled row."""
    labels = host.get("labels")
    if labels is not None and labels.dtype.kind == "f" and np.isinf(labels).any():
        raise _error("an infinite label", step, host.get(KEY), np.isinf(labels))


def check_arrays(named: Mapping[str, np.ndarray | None], keys: Keys, step: int) -> None:
    """Raise `NotFinite` with the signal and the example keys (B, 2) if a cached signal (B, ...) is not finite."""
    for name, values in named.items():
        if values is not None and not all_finite(values):
            raise _error(f"teacher {name} that are NaN or infinite", step, keys, ~np.isfinite(values))


def all_finite(values: np.ndarray) -> bool:
    """Return True if no value of an array is NaN or infinite."""
    if values.dtype == np.float16:  # infinity and NaN have all exponent bits set; isfinite is 30 times slower
        return bool((values.view(np.uint16) & 0x7C00).max() != 0x7C00)
    return bool(np.isfinite(values).all())


def probes(signals: Signals) -> dict[str, Tensor]:
    """Return flags on the device for the rows of a teacher's signals.

    Args:
        signals: signals of a live teacher for B examples.

    Returns:
        Name of the signal -> flags (B,), which are 0 where the row is finite and NaN elsewhere.
    """
    found = {}
    for name, values in (("logits", signals.logits), ("states", signals.states)):
        if values is not None:
            rows = full_precision(values.detach()).flatten(1)
            found[name] = rows.amax(dim=1) * 0 + rows.amin(dim=1) * 0  # a sum could overflow, extremes cannot
    return found


def guard(optimizer: Any, norm: Tensor) -> None:
    """Cancel the next step of an optimizer if the norm of its gradients is not finite.

    A fused optimizer of torch does this on the device, with the flag that a gradient scaler would set. For any other
    optimizer the norm is read from the device, and the gradients are cleared.

    Args:
        optimizer: an optimizer of torch, or accelerate's wrapper around one.
        norm: norm of all gradients, ().
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    if getattr(inner, "_step_supports_amp_scaling", False):
        inner.grad_scale, inner.found_inf = None, norm.isfinite().logical_not().float()
    elif not bool(norm.isfinite()):
        inner.zero_grad()


@dataclass(frozen=True)
class _Noted:
    """Hold the results of one micro-batch. All but ``keys``, ``step`` and ``share`` are on the device."""

    step: int
    keys: Keys
    loss: Tensor
    terms: Tensor
    logits: Tensor
    probes: Mapping[str, Tensor]
    share: Any


@dataclass
class Watch:
    """Collect the losses and gradient norms of several steps, and read them from the device together.

    Args:
        names: names of the loss terms, in the order of the tensor that `note` receives.

    Attributes:
        skipped_by_scaler: optimizer steps that a gradient scaler skipped, as of the last `read`.
    """

    names: Sequence[str]
    skipped_by_scaler: int = 0
    _batches: list[_Noted] = field(default_factory=list)
    _norms: list[tuple[int, Tensor, bool]] = field(default_factory=list)
    _steps: int = 0

    def note(
        self,
        parts: tuple[Tensor, Tensor, Tensor],
        share: Tensor | float,
        *,
        step: int,
        keys: Keys,
        probes: Mapping[str, Tensor],
    ) -> Tensor:
        """Store a micro-batch and return the factor to multiply its loss by.

        Args:
            parts: loss (), terms (T,) and the student's logits (B, C).
            share: the micro-batch's share of an optimizer step.
            step: number of finished optimizer steps.
            keys: example keys, (B, 2).
            probes: flags of the teacher's signals, as `railkd.training.finite.probes` returns them.

        Returns:
            ``share`` as a tensor (), or NaN if the loss or a signal is not finite.
        """
        loss, terms, logits = (part.detach() for part in parts)
        self._batches.append(_Noted(step, keys, loss, terms, logits, probes, share))
        nothing = loss * 0
        for rows in probes.values():
            nothing = nothing + rows.sum()
        return nothing + (share.to(nothing) if isinstance(share, Tensor) else share)

    def note_step(self, step: int, norm: Tensor, *, scaled: bool) -> bool:
        """Store the gradient norm of an optimizer step.

        Args:
            step: number of optimizer steps finished before it.
            norm: norm of its gradients, ().
            scaled: a gradient scaler skips the step if the norm is not finite, so that this is no error.

        Returns:
            True if `EVERY` steps are stored, so that `read` must be called now.
        """
        self._steps += 1
        self._norms.append((step, norm.detach(), scaled))
        return self._steps >= EVERY

    def read(self) -> Iterator[NotFinite]:
        """Read the stored steps from the device, and forget them.

        Yields:
            An error for each value that was not finite, in the order of the steps.
        """
        batches, norms = self._batches, self._norms
        self._batches, self._norms, self._steps = [], [], 0
        if not batches and not norms:
            return
        device = batches[0].loss.device if batches else norms[0][1].device
        held = [value for noted in batches for value in (noted.loss, *(rows.sum() for rows in noted.probes.values()))]
        held += [norm for _, norm, _ in norms]
        finite = torch.stack([value.to(device, torch.float32) for value in held]).isfinite()
        if bool(finite.all()):
            return
        found = [(noted.step, error) for noted in batches if (error := self._error(noted)) is not None]
        bad = {step for step, _ in found}
        wrong = [(step, norm, scaled) for step, norm, scaled in norms if not norm.isfinite()]
        self.skipped_by_scaler += sum(scaled for *_, scaled in wrong)
        found += [(step, _gradient(float(norm), step)) for step, norm, scaled in wrong if not (scaled or step in bad)]
        yield from (error for _, error in sorted(found, key=lambda item: item[0]))

    def _error(self, noted: _Noted) -> NotFinite | None:
        """Return the error for a micro-batch, or None if all its values are finite."""
        error = None
        wrong = {name: ~rows.isfinite().cpu().numpy() for name, rows in noted.probes.items()}
        for name, rows in wrong.items():
            if rows.any():
                error = _error(f"teacher {name} that are NaN or infinite", noted.step, noted.keys, rows)
                break
        if error is None and not bool(noted.loss.isfinite()):
            bad = [name for name, good in zip(self.names, noted.terms.isfinite().tolist(), strict=True) if not good]
            rows = ~noted.logits.isfinite().cpu().numpy()
            what = f"a loss of {float(noted.loss)} ({', '.join(bad) or 'the sum of the terms'} not finite)"
            error = _error(what, noted.step, noted.keys, rows if rows.any() else np.ones_like(rows))
        if error is not None:
            error.share = noted.share
        return error


def _gradient(norm: float, step: int) -> NotFinite:
    return NotFinite(f"step {step + 1}: got gradients with a norm of {norm}, wanted finite numbers; {_ADVICE}")


def _error(what: str, step: int, keys: Keys, wrong: np.ndarray) -> NotFinite:
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1)).tolist()
    where = (
        f"rows {rows[:_SHOWN]} of the batch" if keys is None else f"examples with keys {keys[rows[:_SHOWN]].tolist()}"
    )
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return NotFinite(f"step {step + 1}: got {what}, in {where}{more}; {_ADVICE}")
