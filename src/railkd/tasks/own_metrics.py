"""Metrics of a user: a function ``(predictions, labels) -> {name: value}``, which ``--metrics`` names by its address.

Letters: N labelled rows, K classes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from railkd.errors import RailkdError
from railkd.runtime.addresses import digest, in_words, is_address, load, place_of
from railkd.runtime.words import shortened
from railkd.tasks.metrics import LOSS, find_metric
from railkd.tasks.scored import Scored

#: Attribute of a function that says which values are better: True, False, or name -> True or False.
DIRECTION = "higher_is_better"
#: Names of other entries of a training log and of the file of scores.
_TAKEN = frozenset(
    (
        *(LOSS, DIRECTION, "domain", "classes", "confusion", "gaps", "thresholds", "epoch", "step"),
        *("runtime", "samples_per_second", "steps_per_second", "model_preparation_time"),
    )
)


class OwnScores(NamedTuple):
    """The metrics of functions on one set.

    Attributes:
        values: metric -> value.
        higher: metric -> whether higher is better.
        failures: address -> why the function has no value, in words.
    """

    values: dict[str, float]
    higher: dict[str, bool]
    failures: dict[str, str]


@dataclass(frozen=True)
class OwnMetrics:
    """A function of a user that computes one metric or several.

    Attributes:
        address: as the user named it.
        function: takes predictions and labels. Predictions are (N, K) probabilities, or (N,) numbers of a regression.
            Labels are (N,) class indices or numbers, or (N, K) of 0 and 1 if a row has any number of classes.
        digest: of the file that holds the function; empty: it has no file.
    """

    address: str
    function: Callable[[Any, Any], Any]
    digest: str = ""

    @classmethod
    def load(cls, address: str) -> OwnMetrics:
        """Load the function that an address names.

        Args:
            address: FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION.

        Returns:
            The metrics.

        Raises:
            RailkdError: there is no such function, it does not take two arguments, or its direction is not understood.
        """
        function, module = load(address, "metric", "FUNCTION")
        if not callable(function) or isinstance(function, type):
            raise RailkdError(
                f"--metrics {address}: expected a function (predictions, labels) -> {{name: value}}, got "
                f"{shortened(repr(function))}."
            )
        try:
            inspect.signature(function).bind(None, None)
        except TypeError as error:
            raise RailkdError(
                f"--metrics {address}: expected a function of two arguments, predictions and labels: {error}."
            ) from None
        except ValueError:  # a compiled function does not say what it takes
            pass
        said = getattr(function, DIRECTION, None)
        directions = said.values() if isinstance(said, Mapping) else [said]
        if not all(one is None or isinstance(one, bool) for one in directions):
            raise RailkdError(
                f"--metrics {address}: expected {DIRECTION} to be True, False, or a dict of names with True or False, "
                f"got {shortened(repr(said))}."
            )
        return cls(address, function, digest(module))

    def is_higher_better(self, name: str) -> bool:
        """Return whether the higher of two values of a metric is the better one; True if the function does not say."""
        said = getattr(self.function, DIRECTION, None)
        return (said.get(name) if isinstance(said, Mapping) else said) is not False

    def unknown_directions(self, names: Iterable[str]) -> list[str]:
        """Return the names with a direction that are not among those of the values."""
        said = getattr(self.function, DIRECTION, None)
        return sorted(set(map(str, said)) - set(names)) if isinstance(said, Mapping) else []

    def values(self, rows: Scored) -> dict[str, float]:
        """Call the function.

        Args:
            rows: labelled ones.

        Returns:
            Metric -> value. What the function leaves out has no value.

        Raises:
            RailkdError: the function fails, or returns anything but finite numbers by name.
        """
        predictions = rows.answers if rows.shares is None else rows.shares
        try:
            found = self.function(predictions.copy(), rows.labels.copy())
        except (Exception, SystemExit) as error:
            code = getattr(self.function, "__code__", None)
            place = place_of(error, Path(code.co_filename) if code else None)
            raise RailkdError(f"--metrics {self.address}: the function fails: {in_words(error)}. {place}") from error
        if not isinstance(found, Mapping):
            raise RailkdError(f"--metrics {self.address}: expected {{name: value}}, got {shortened(repr(found))}.")
        return {self._checked_name(name): self._number(name, value) for name, value in found.items()}

    def _checked_name(self, name: Any) -> str:
        if not isinstance(name, str) or not name.strip() or len(name) > 80 or not name.isprintable():
            raise RailkdError(f"--metrics {self.address}: expected the name of a metric, got {shortened(repr(name))}.")
        if name in _TAKEN or name.startswith("eval_") or _is_ours(name):
            raise RailkdError(
                f"--metrics {self.address}: the name '{name}' has another meaning in records of railkd. Fix: return "
                "the value under another name."
            )
        return name

    def _number(self, name: str, value: Any) -> float:
        scalar = isinstance(value, Real) or getattr(value, "ndim", None) == 0
        try:
            number = float(value) if scalar and not isinstance(value, bool) else None
        except (TypeError, ValueError, OverflowError, RuntimeError):
            number = None
        if number is None or not math.isfinite(number):
            raise RailkdError(
                f"--metrics {self.address}: expected a finite number as '{name}', got {shortened(repr(value))}. Fix: "
                "leave a name out where it has no value."
            )
        return number


def _is_ours(name: str) -> bool:
    try:
        return bool(find_metric(name))
    except RailkdError:
        return False


def load_own(metrics: Sequence[str]) -> tuple[OwnMetrics, ...]:
    """Load the functions among the metrics that a user asked for, each once.

    Args:
        metrics: names and addresses.

    Returns:
        The functions, in the order of their addresses.
    """
    return tuple(OwnMetrics.load(name) for name in dict.fromkeys(metrics) if is_address(name))


def compute_own(own: Iterable[OwnMetrics], rows: Scored) -> OwnScores:
    """Compute the metrics of functions. One that fails does not end a run whose model is trained.

    Args:
        own: the functions.
        rows: labelled ones.

    Returns:
        The values, and the failures in words.
    """
    scores = OwnScores({}, {}, {})
    for one in own:
        try:
            values = one.values(rows)
        except RailkdError as error:
            scores.failures[one.address] = str(error)
            continue
        scores.values.update(values)
        scores.higher.update({name: one.is_higher_better(name) for name in values})
    return scores


def try_own(own: Iterable[OwnMetrics], sets: Mapping[str, Scored]) -> dict[str, bool]:
    """Call each function on the labels of each set, with made-up predictions: before a model is trained or run.

    Args:
        own: the functions.
        sets: name -> its labelled rows.

    Returns:
        Metric -> whether higher is better.

    Raises:
        RailkdError: a function fails, two give a metric the same name, or a direction has a name that no set has.
    """
    directions: dict[str, bool] = {}
    for one in own:
        names: dict[str, bool] = {}
        for name, rows in sets.items():
            try:
                names |= {metric: one.is_higher_better(metric) for metric in one.values(rows)}
            except RailkdError as error:
                raise RailkdError(f"{error} (Tried on the labels of '{name}' with made-up predictions.)") from error
        if same := sorted(names.keys() & directions.keys()):
            raise RailkdError(
                f"--metrics {one.address}: '{same[0]}' is computed by another function too. Fix: rename one of them."
            )
        if sets and (unknown := one.unknown_directions(names)):
            raise RailkdError(
                f"--metrics {one.address}: {DIRECTION} names '{unknown[0]}', but the function returns "
                f"{', '.join(names) or 'nothing'}. Fix: use the same name in both."
            )
        directions |= names
    return directions
