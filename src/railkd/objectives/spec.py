"""A row of the table of methods: the class that computes a loss, and what the rest of railkd must know about it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from railkd.errors import RailkdError, did_you_mean
from railkd.objectives.base import Objective, Shape
from railkd.objectives.options import COMMON, Option, read_options
from railkd.objectives.rail import UNUSED_WITHOUT_DRAW
from railkd.runtime import addresses
from railkd.signals import POOLINGS

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class MethodSpec:
    """A row of the table of methods.

    Attributes:
        name: the name that a user types.
        objective: the class that computes the loss.
        paper: its source.
        reads: the blocks that it reads, in words.
        settings: the options of the class that define this method.
        pooling: the pooled states that it reads; None: it reads only logits.
        weights: default weights of [CE, KD, intermediate]; None: equal.
        recipe: training arguments that the method sets where the user leaves them out.
    """

    name: str
    objective: type[Objective]
    paper: str
    reads: str
    settings: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    pooling: str | None = None
    weights: tuple[float, float, float] | None = None
    recipe: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    @classmethod
    def of(cls, objective: type[Objective], name: str = "", **changes: Any) -> MethodSpec:
        """Return the row of a class that says itself which paper, blocks and states it is about.

        Args:
            objective: with the class attributes ``paper``, ``reads`` and ``pooling``.
            name: the name that a user types. Default: that of the class.
            changes: other attributes of the row.

        Returns:
            The row.
        """
        told: dict[str, Any] = {key: getattr(objective, key, None) for key in ("paper", "reads", "pooling")}
        return cls(name or getattr(objective, "__name__", str(objective)), objective, **(told | changes)).checked()

    def checked(self) -> MethodSpec:
        """Return the row, if a run can use it.

        Raises:
            RailkdError: the class is no `Objective`, reads states of unknown pooling, or has options that are not
                understood.
        """
        objective: Any = self.objective
        if not (isinstance(objective, type) and issubclass(objective, Objective)) or objective is Objective:
            raise RailkdError(f"{self.name}: expected a subclass of railkd.objectives.Objective, got {objective!r}.")
        if self.pooling not in (None, *POOLINGS):
            raise RailkdError(f"{self.name}: expected the pooling mean, cls or None, got {self.pooling!r}.")
        if objective.intermediate is not Objective.intermediate and self.pooling is None:
            raise RailkdError(
                f"{self.name}: {objective.__name__}.intermediate reads states, but the class does not say which. Fix: "
                "add the line pooling = 'mean' (or 'cls') to the class."
            )
        taken = inspect.signature(objective).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in taken) and not {p.name for p in taken}.issuperset(COMMON):
            raise RailkdError(
                f"{self.name}: {objective.__name__}.__init__ does not take {', '.join(COMMON)}. Fix: end its "
                "parameters with **options and give them to super().__init__."
            )
        if unknown := self.settings.keys() - self.parameters.keys():
            raise RailkdError(f"{self.name}: {objective.__name__} has no option '{sorted(unknown)[0]}'.")
        return self

    @property
    def ours(self) -> bool:
        """True if the class is a part of railkd."""
        return self.objective.__module__.startswith("railkd.objectives.")

    @property
    def needs_teacher(self) -> bool:
        """True if a term reads the teacher."""
        return self.objective.terms != ("ce",)

    @property
    def fits(self) -> bool:
        """True if something is fitted on the cached states of the teacher, with the options of this row."""
        return self.objective.needs_fit or self.options.get("teacher_map") in ("whitening", "centring")

    @property
    def parameters(self) -> dict[str, Option]:
        """Name -> option of the class, with the defaults of this row; parameters of every objective are left out."""
        found: dict[str, Option] = {}
        for make in self.objective.groups.values():
            found |= read_options(make)
        for cls in reversed(self.objective.__mro__):
            if issubclass(cls, Objective) and cls is not Objective and "__init__" in vars(cls):
                found |= read_options(cls, keyword_only=True, besides=self.objective.groups)
        return {
            name: replace(option, default=self.settings.get(name, option.default)) for name, option in found.items()
        }

    @property
    def options(self) -> dict[str, Any]:
        """The options of this method, beyond those of every method, with their defaults."""
        found = {name: option.default for name, option in self.parameters.items()}
        unused = set(UNUSED_WITHOUT_DRAW if found.get("match", "drawn") != "drawn" else ())
        unused |= {"maps_by"} if found.get("teacher_map", "trained") != "trained" else set()
        return {name: value for name, value in found.items() if name not in unused}

    @property
    def digest(self) -> str:
        """Digest of the file that holds the class; empty if it is a part of railkd or has no file."""
        module = sys.modules.get(self.objective.__module__)
        return "" if self.ours else addresses.digest(module)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that the method lacks.

        Args:
            options: name -> value.

        Raises:
            RailkdError: the method lacks one. The message lists those that it has.
        """
        known = {*COMMON, *self.options}
        for option in options:
            if option not in known:
                raise RailkdError(
                    f"{self.name} has no option '{option}'; it takes: {', '.join(sorted(known))}."
                    f"{did_you_mean(option, known)}"
                )

    def build(self, student_shape: Shape, teacher_shape: Shape, **options: Any) -> Objective:
        """Build the objective for a pair of models; see `railkd.objectives.build_objective`."""
        self.check_options(options)
        merged = dict(self.settings) | options
        if merged.get("weights") is None:
            merged["weights"] = self.weights
        grouped: dict[str, Any] = {}
        for keyword, make in self.objective.groups.items():
            taken = inspect.signature(make).parameters
            chosen = {name: merged.pop(name) for name in list(merged) if name in taken}
            sizes = {"s": student_shape[0], "n": teacher_shape[0]}
            grouped[keyword] = make(**chosen, **{name: size for name, size in sizes.items() if name in taken})
        return self.objective(student_shape, teacher_shape, **grouped, **merged)
