"""Options, signals and draws that make no sense are refused in words."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from objectives.cases import build, every_method, make, rail_methods, with_states
from railkd.errors import RailkdError
from railkd.mapping import Draws
from railkd.objectives import METHODS, build_objective, method_spec
from railkd.signals import Signals

NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"weights": [1, -1, 1]}, "got weights"),
    ({"weights": [1, math.nan, 1]}, "got weights"),
    ({"weights": [math.inf, 1, 1]}, "got weights"),
    ({"weights": [0, 0, 0]}, "got weights"),
    ({"weights": [1, 1]}, "Expected 3 numbers"),
    ({"temperature": 0}, "got temperature"),
    ({"temperature": -1.0}, "got temperature"),
    ({"temperature": math.nan}, "got temperature"),
    ({"temperature": math.inf}, "got temperature"),
    ({"temprature": 2.0}, "Did you mean 'temperature'"),
    ({"problem_type": "ranking"}, "unknown problem_type"),
]


@every_method
def test_options_that_make_no_sense_are_refused(method: str) -> None:
    for options, said in NONSENSE:
        with pytest.raises(RailkdError, match=said):
            build(method, **options)


def test_an_unknown_method_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RailkdError, match="unknown method 'rail-kd'; known: .*Did you mean 'rail-kd-"):
        method_spec("rail-kd")


def test_finetune_with_weight_on_the_teacher_alone_is_refused() -> None:
    with pytest.raises(RailkdError, match="nothing is left for the terms ce"):
        build_objective("finetune", (3, 8), (6, 8), weights=[0, 1, 1])


@every_method
def test_signals_of_another_pair_of_models_are_refused(method: str) -> None:
    spec, case = method_spec(method), make(method)
    if spec.needs_teacher:
        with pytest.raises(RailkdError, match="needs the teacher's signals"):
            case.loss(teacher=None)
    if spec.pooling:
        with pytest.raises(RailkdError, match="teacher states of \\(4, 8\\)"):
            case.loss(teacher=with_states(case.teacher, torch.randn(6, 4, 8)))
        with pytest.raises(RailkdError, match="student states of \\(5, 8\\)"):
            case.loss(student=Signals(case.student.logits, torch.randn(6, 5, 8)))
        with pytest.raises(RailkdError, match="student's signals hold logits only"):
            case.loss(student=Signals(case.student.logits))


@rail_methods
def test_more_matched_blocks_than_candidates_are_refused(method: str) -> None:
    with pytest.raises(RailkdError, match="6 matched student blocks but only 5 candidate"):
        build(method, ((7, 8), (6, 8)))


@rail_methods
def test_a_student_of_one_block_gets_the_advice_to_include_the_last_block(method: str) -> None:
    with pytest.raises(RailkdError, match="candidates='all'"):
        build(method, ((1, 8), (6, 8)))
    assert build(method, ((1, 8), (6, 8)), candidates="all").m == 1


@rail_methods
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"candidates": "al"}, "Did you mean 'all'"),
        ({"redraw": "steps"}, "Did you mean 'step'"),
        ({"strategy": "cycle"}, "Did you mean 'cyclic'"),
        ({"shared_size": 0}, "got shared_size 0"),
        ({"shared_size": 10**9}, "got shared_size 1000000000"),
    ],
)
def test_rail_options_that_make_no_sense_are_refused(method: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RailkdError, match=said):
        build(method, **options)


@rail_methods
@pytest.mark.parametrize("draw", [None, (1,), (1, 2, 3)])
def test_a_draw_of_another_size_is_refused(method: str, draw: Any) -> None:
    with pytest.raises(RailkdError, match="Expected 2 teacher blocks"):
        make(method).loss(draw=draw)


@pytest.mark.parametrize("alpha", [[1.0], [1.0, -1.0], [1.0, math.nan], "average"])
def test_alphas_that_make_no_sense_are_refused(alpha: Any) -> None:
    with pytest.raises(RailkdError, match="alpha"):
        build_objective("rail-kd-l", (3, 8), (6, 8), alpha=alpha)


# A dict, not a set: every worker of a parallel run must meet the tests in one order.
@pytest.mark.parametrize("cls", dict.fromkeys(METHODS[name].objective for name in METHODS if name.startswith("rail-")))
def test_draws_of_blocks_that_a_model_lacks_are_refused(cls: Any) -> None:
    with pytest.raises(RailkdError, match="at most 3 out of 1 to 6"):
        cls((3, 128), (6, 128), draws=Draws(2, (1, 7)))
    with pytest.raises(RailkdError, match="at most 3 out of 1 to 6"):
        cls((3, 128), (6, 128), draws=Draws(4, (1, 2, 3, 4)))
    assert cls((3, 128), (6, 128), draws=Draws(2, (4, 6))).draw(0, epoch=0, step=0) == (4, 6)
