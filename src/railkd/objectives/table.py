"""`METHODS`: the table of the methods that come with railkd."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from railkd.objectives.alp import AttentionKD
from railkd.objectives.base import Objective
from railkd.objectives.ckd import CombinedKD
from railkd.objectives.codir import ContrastiveKD
from railkd.objectives.finetune import Finetune
from railkd.objectives.gram import Gram
from railkd.objectives.kd import KD
from railkd.objectives.last_block import LastBlock
from railkd.objectives.pkd import PatientKD
from railkd.objectives.rail import DRAWN, RailConcatenated, RailLayerwise
from railkd.objectives.rail_nce import RailNCE
from railkd.objectives.spec import MethodSpec


def _row(name: str, objective: type[Objective], reads: str = "", paper: str = "", **settings: Any) -> MethodSpec:
    """Return a row; what is left out is that of the class."""
    told = paper or objective.paper, reads or objective.reads
    return MethodSpec(name, objective, *told, MappingProxyType(settings), objective.pooling)


def _control(name: str, reads: str, **settings: Any) -> MethodSpec:
    """Return a control of the claim that randomness helps."""
    return _row(name, RailLayerwise, reads, "control of RAIL-KD; not in a paper", **settings)


_WHITENED = "ours: RAIL-KD^l on whitened targets"
_ROWS = (
    _row("finetune", Finetune),
    _row("kd", KD),
    _row("pkd-skip", PatientKD, "1..s-1; teacher floor(i n/s)", blocks="skip"),
    _row("pkd-last", PatientKD, "1..s-1; teacher n-s+1..n-1", blocks="last"),
    _row("alp-kd", AttentionKD),
    _row("ckd", CombinedKD),
    _row("codir", ContrastiveKD),
    _row("rail-kd-l", RailLayerwise),
    _row("rail-kd-c", RailConcatenated),
    _row("rail-kd-w", RailLayerwise, f"{DRAWN}, whitened", _WHITENED, teacher_map="whitening"),
    _row("gram", Gram),
    _row("last-block", LastBlock),
    _row("rail-nce", RailNCE),
    MethodSpec(
        "recommended",
        KD,
        "ours: kd, frozen embeddings",
        KD.reads,
        recipe=MappingProxyType({"freeze": ["embeddings"]}),
    ),
    _control("rail-fixed", "evenly spaced, kept", strategy="even", redraw="never"),
    _control("rail-fixed-random", "one draw, kept", redraw="never"),
    _control("rail-unsorted", "drawn, depth order not kept", ordered=False),
    _control("rail-step", "drawn anew every step", redraw="step"),
    _control("rail-stratified", "one of each depth quantile", strategy="stratified"),
    _control("rail-cyclic", "dealt from a shuffled deck", strategy="cyclic"),
    _control("rail-all", "every candidate for every match, mean", match="all"),
    _control("rail-expected", "weighted by P(r(i) = t)", match="expected"),
)
METHODS: Mapping[str, MethodSpec] = MappingProxyType({spec.name: spec for spec in _ROWS})
