"""The methods: one file and one class for each paper, and the table `METHODS` of their names.

>>> objective = build_objective("rail-kd-l", (3, 384), (6, 384), temperature=2.0)
>>> objective.weights["kd"] == 1 / 3
True
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from railkd.errors import RailkdError, did_you_mean
from railkd.objectives.alp import AttentionKD
from railkd.objectives.base import TERMS, Objective, Shape
from railkd.objectives.ckd import CombinedKD
from railkd.objectives.codir import ContrastiveKD
from railkd.objectives.finetune import Finetune
from railkd.objectives.gram import Gram
from railkd.objectives.kd import KD
from railkd.objectives.last_block import LastBlock
from railkd.objectives.pkd import PatientKD
from railkd.objectives.rail import UNUSED_WITHOUT_DRAW, RailConcatenated, RailLayerwise
from railkd.objectives.rail_nce import RailNCE
from railkd.signals import NO_POOLING, Signals


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
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    pooling: str | None = None
    weights: tuple[float, float, float] | None = None
    recipe: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def needs_teacher(self) -> bool:
        """True if a term reads the teacher."""
        return self.objective.terms != ("ce",)

    @property
    def fits(self) -> bool:
        """True if something is fitted on the cached states of the teacher, with the options of this row."""
        return self.objective.needs_fit or self.options.get("teacher_map") in ("whitening", "centring")

    @property
    def options(self) -> dict[str, Any]:
        """The options of this method, beyond those of every method, with their defaults."""
        found: dict[str, Any] = {}
        for make in self.objective.groups.values():
            found |= _defaults(make)
        if "__init__" in vars(self.objective):
            found |= _defaults(self.objective.__init__)
        found |= self.settings
        unused = {*self.objective.groups, *(UNUSED_WITHOUT_DRAW if found.get("match", "drawn") != "drawn" else ())}
        unused |= {"maps_by"} if found.get("teacher_map", "trained") != "trained" else set()
        return {name: value for name, value in found.items() if name not in unused}


def _defaults(make: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters of a function that have a default, and the default."""
    parameters = inspect.signature(make).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def _spec(
    name: str, objective: type[Objective], paper: str, reads: str, pooling: str | None, **settings: Any
) -> MethodSpec:
    return MethodSpec(name, objective, paper, reads, MappingProxyType(settings), pooling)


_HINTON = "Hinton et al. 2015, arXiv 1503.02531"
_SUN = "Sun et al. 2019, arXiv 1908.09355"
_PASSBAN = "Passban et al. 2021, arXiv 2012.14022"
_WU = "Wu et al. 2020, arXiv 2010.03034"
_CODIR = "Sun et al. 2020, arXiv 2009.14167"
_RAIL = "Haidar et al. 2022, arXiv 2109.10164"
_OURS = "control of RAIL-KD; not in a paper"

_DRAWN = "1..s-1; drawn from 1..n-1"

METHODS: Mapping[str, MethodSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            _spec("finetune", Finetune, "-", "-", None),
            _spec("kd", KD, _HINTON, "logits", None),
            _spec("pkd-skip", PatientKD, _SUN, "1..s-1; teacher floor(i n/s)", "cls", blocks="skip"),
            _spec("pkd-last", PatientKD, _SUN, "1..s-1; teacher n-s+1..n-1", "cls", blocks="last"),
            _spec("alp-kd", AttentionKD, _PASSBAN, "1..s-1; all of the teacher's, by attention", "cls"),
            _spec("ckd", CombinedKD, _WU, "1..s-1; buckets of 1..n-1, concatenated", "mean"),
            _spec("codir", ContrastiveKD, _CODIR, "all of both, concatenated", "mean"),
            _spec("rail-kd-l", RailLayerwise, _RAIL, f"{_DRAWN}, layer-wise", "mean"),
            _spec("rail-kd-c", RailConcatenated, _RAIL, f"{_DRAWN}, concatenated", "mean"),
            _spec(
                "rail-kd-w",
                RailLayerwise,
                "ours: RAIL-KD^l on whitened targets",
                f"{_DRAWN}, whitened",
                "mean",
                teacher_map="whitening",
            ),
            _spec("gram", Gram, "ours; cf. arXiv 1904.05068", "all, by row pairs", "mean"),
            _spec("last-block", LastBlock, "cf. arXiv 2203.14001", "the last of both, first", "cls"),
            _spec("rail-nce", RailNCE, "ours: RAIL-KD, contrasted", _DRAWN, "mean"),
            MethodSpec(
                "recommended",
                KD,
                "ours: kd, frozen embeddings",
                "logits",
                recipe=MappingProxyType({"freeze": ["embeddings"]}),
            ),
            # Controls of the claim that randomness helps.
            _spec("rail-fixed", RailLayerwise, _OURS, "evenly spaced, kept", "mean", strategy="even", redraw="never"),
            _spec("rail-fixed-random", RailLayerwise, _OURS, "one draw, kept", "mean", redraw="never"),
            _spec("rail-unsorted", RailLayerwise, _OURS, "drawn, depth order not kept", "mean", ordered=False),
            _spec("rail-step", RailLayerwise, _OURS, "drawn anew every step", "mean", redraw="step"),
            _spec("rail-stratified", RailLayerwise, _OURS, "one of each depth quantile", "mean", strategy="stratified"),
            _spec("rail-cyclic", RailLayerwise, _OURS, "dealt from a shuffled deck", "mean", strategy="cyclic"),
            _spec("rail-all", RailLayerwise, _OURS, "every candidate for every match, mean", "mean", match="all"),
            _spec("rail-expected", RailLayerwise, _OURS, "weighted by P(r(i) = t)", "mean", match="expected"),
        )
    }
)


def stored_poolings(specs: Iterable[MethodSpec]) -> list[str]:
    """Return the poolings that a cache stores for several methods.

    Args:
        specs: rows of the table.

    Returns:
        Names of poolings; ``none`` alone if every method reads only logits.
    """
    return sorted({spec.pooling for spec in specs if spec.pooling}) or [NO_POOLING]


def method_spec(name: str) -> MethodSpec:
    """Return the row of a method.

    Args:
        name: of a row in `METHODS`.

    Returns:
        The row.

    Raises:
        RailkdError: the name is unknown. The message lists the known ones.
    """
    if name not in METHODS:
        raise RailkdError(f"unknown method '{name}'; known: {', '.join(METHODS)}.{did_you_mean(name, METHODS)}")
    return METHODS[name]


def build_objective(name: str, student_shape: Shape, teacher_shape: Shape, **options: Any) -> Objective:
    """Build the objective of a method for a pair of models.

    Args:
        name: of a row in `METHODS`.
        student_shape: (blocks s, width d_s).
        teacher_shape: (blocks n, width d_t).
        options: those of `Objective` (``weights``, ``temperature``, ``problem_type``, class weights) and the method's
            own (``METHODS[name].options``).

    Returns:
        The objective, with new maps. Call `Objective.fit` before training if it ``needs_fit``.

    Raises:
        RailkdError: the method or an option is unknown, or a value is invalid for these models.
    """
    spec = method_spec(name)
    common = {"weights", "temperature", "problem_type", "class_weights", "class_weights_on_logits"}
    known = common | set(spec.options)
    for option in options:
        if option not in known:
            raise RailkdError(
                f"{name} has no option '{option}'; it takes: {', '.join(sorted(known))}.{did_you_mean(option, known)}"
            )
    merged = dict(spec.settings) | options
    if merged.get("weights") is None:
        merged["weights"] = spec.weights
    grouped: dict[str, Any] = {}
    for keyword, make in spec.objective.groups.items():
        taken = inspect.signature(make).parameters
        chosen = {name: merged.pop(name) for name in list(merged) if name in taken}
        sizes = {"s": student_shape[0], "n": teacher_shape[0]}
        grouped[keyword] = make(**chosen, **{name: size for name, size in sizes.items() if name in taken})
    return spec.objective(student_shape, teacher_shape, **grouped, **merged)


__all__ = ["METHODS", "MethodSpec", "Objective", "Signals", "TERMS", "build_objective", "method_spec"]
