"""Finds NaN and infinity in training without making the device wait, and keeps them out of the weights.

Labels and cached signals are checked in main memory, before they are copied. All else is decided on the device: a loss
or a live teacher's signal that is not finite turns the loss into NaN, NaN gradients have a norm that is not finite, and
an optimizer step with such a norm changes nothing (`guard`). `Watch` reads at most once in `EVERY` steps what happened,
and names the step, the loss term and the examples.
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

#: Optimizer steps after which the device is asked what it found, at the latest.
EVERY = 16
_SHOWN = 3
#: (B, 2) of the examples of a batch, as far as they are known; only those that an error names are read.
Keys = np.ndarray | Tensor | None
_ADVICE = "lower --learning-rate, train in float32 (--no-bf16), or skip such batches with --skip-nonfinite"


class NotFinite(RailkdError):
    """A loss, a signal, a label or a gradient that is NaN or infinite.

    Attributes:
        share: the part of an optimizer step that the micro-batch makes up; 0 if the loss itself was finite.
    """

    share: float = 0.0


def check_labels(host: Mapping[str, np.ndarray], step: int) -> None:
    """Refuse infinite labels; NaN marks an unlabelled row.

    Args:
        host: keys and labels of the batch, see `railkd.data.collator.Batch`.
        step: optimizer steps finished.

    Raises:
        NotFinite: names the examples.
    """
    labels = host.get("labels")
    if labels is not None and labels.dtype.kind == "f" and np.isinf(labels).any():
        raise _error("an infinite label", step, host.get(KEY), np.isinf(labels))


def check_arrays(named: Mapping[str, np.ndarray | None], keys: Keys, step: int) -> None:
    """Refuse signals of a cache that are not finite.

    Args:
        named: name of the signal -> array with one row an example.
        keys: (B, 2) of the examples.
        step: optimizer steps finished.

    Raises:
        NotFinite: names the signal and the examples.
    """
    for name, values in named.items():
        if values is not None and not _all_finite(values):
            raise _error(f"teacher {name} that are NaN or infinite", step, keys, ~np.isfinite(values))


def _all_finite(values: np.ndarray) -> bool:
    if values.dtype == np.float16:  # numpy needs 30 times as long: infinity and NaN have all bits of the exponent set
        return bool((values.view(np.uint16) & 0x7C00).max() != 0x7C00)
    return bool(np.isfinite(values).all())


def probes(signals: Signals) -> dict[str, Tensor]:
    """Return what says on the device which rows of a teacher's signals are finite: 0 if so, else NaN; (B,) each."""
    found = {}
    for name, values in (("logits", signals.logits), ("states", signals.states)):
        if values is not None:
            rows = full_precision(values.detach()).flatten(1)
            found[name] = rows.amax(dim=1) * 0 + rows.amin(dim=1) * 0  # a sum could overflow, extremes cannot
    return found


def guard(optimizer: Any, norm: Tensor) -> None:
    """Let the next step of an optimizer change nothing if the norm of its gradients is not finite.

    A fused optimizer of torch decides that on the device, by the flag that a gradient scaler gives it. Any other one
    costs a read: its gradients are dropped.

    Args:
        optimizer: of torch, or accelerate's around one.
        norm: () of all gradients.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    if getattr(inner, "_step_supports_amp_scaling", False):
        inner.grad_scale, inner.found_inf = None, norm.isfinite().logical_not().float()
    elif not bool(norm.isfinite()):
        inner.zero_grad()


@dataclass(frozen=True)
class _Noted:
    """A micro-batch that trained; everything but ``keys``, ``step`` and ``share`` lies on the device."""

    step: int
    keys: Keys
    loss: Tensor
    terms: Tensor
    logits: Tensor
    probes: Mapping[str, Tensor]
    share: Any


@dataclass
class Watch:
    """Remembers the losses and gradient norms of some steps until they are read, all at once.

    Args:
        names: of the loss terms, in the order of the tensor that `note` receives.
    """

    names: Sequence[str]
    _batches: list[_Noted] = field(default_factory=list)
    _norms: list[tuple[int, Tensor]] = field(default_factory=list)
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
        """Remember a micro-batch, and return the factor of its loss: ``share``, or NaN if anything is not finite.

        Args:
            parts: loss (), terms (T,) and the student's logits (B, C).
            share: the part of an optimizer step that the micro-batch makes up.
            step: optimizer steps finished.
            keys: (B, 2) of the examples.
            probes: of the teacher's signals, see `probes`.
        """
        loss, terms, logits = (part.detach() for part in parts)
        self._batches.append(_Noted(step, keys, loss, terms, logits, probes, share))
        nothing = loss * 0
        for rows in probes.values():
            nothing = nothing + rows.sum()
        return nothing + (share.to(nothing) if isinstance(share, Tensor) else share)

    def note_step(self, step: int, norm: Tensor | None) -> bool:
        """Remember an optimizer step, and return True if so many of them wait that they must be read now.

        Args:
            step: optimizer steps finished before it.
            norm: () of its gradients; None: they need not be finite.
        """
        self._steps += 1
        if norm is not None:
            self._norms.append((step, norm.detach()))
        return self._steps >= EVERY

    def read(self) -> Iterator[NotFinite]:
        """Yield what went wrong in the steps since the last read, in their order; every step is read once."""
        batches, norms = self._batches, self._norms
        self._batches, self._norms, self._steps = [], [], 0
        if not batches and not norms:
            return
        device = batches[0].loss.device if batches else norms[0][1].device
        held = [value for noted in batches for value in (noted.loss, *(rows.sum() for rows in noted.probes.values()))]
        held += [norm for _, norm in norms]
        finite = torch.stack([value.to(device, torch.float32) for value in held]).isfinite()
        if bool(finite.all()):
            return
        found = [(noted.step, error) for noted in batches if (error := self._error(noted)) is not None]
        bad = {step for step, _ in found}
        found += [
            (step, _gradient(float(norm), step)) for step, norm in norms if step not in bad and not norm.isfinite()
        ]
        yield from (error for _, error in sorted(found, key=lambda item: item[0]))

    def _error(self, noted: _Noted) -> NotFinite | None:
        """Return the words for a micro-batch, or None if it was finite."""
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
