"""Every method on numbers small enough for paper and pencil."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from railkd.objectives import build_objective
from railkd.signals import Moments, Negatives, Signals


def states(*blocks: tuple[float, ...]) -> Tensor:
    """One row: its block states, from the first block up."""
    return torch.tensor([blocks], dtype=torch.float)


LOGITS = torch.zeros(1, 2)
ONLY_STATES = [0, 0, 1]


def test_finetune() -> None:
    # softmax(0, ln 3) = (1/4, 3/4); the label is 1: -ln(3/4) = 0.28768. The unlabelled row halves it.
    objective = build_objective("finetune", (2, 4), (2, 4))
    student = Signals(torch.tensor([[0, math.log(3)]] * 2))
    assert objective(student, None, torch.tensor([1, 1]))[0].item() == pytest.approx(0.28768, abs=1e-5)
    assert objective(student, None, torch.tensor([1, -100]))[0].item() == pytest.approx(0.14384, abs=1e-5)


def test_kd() -> None:
    # Teacher (1/2, 1/2), student (3/4, 1/4): KL = 1/2 ln(2/3) + 1/2 ln 2 = 1/2 ln(4/3) = 0.14384; CE of label 0:
    # 0.28768. Weights 1/2, 1/2: 0.21576.
    student, teacher = Signals(torch.tensor([[math.log(3), 0.0]])), Signals(LOGITS)
    loss, terms = build_objective("kd", (2, 4), (2, 4))(student, teacher, torch.tensor([0]))
    assert terms["kd"].item() == pytest.approx(0.14384, abs=1e-5)
    assert terms["ce"].item() == pytest.approx(0.28768, abs=1e-5)
    assert loss.item() == pytest.approx(0.21576, abs=1e-5)


def test_kd_at_temperature_two() -> None:
    # Logits (2 ln 3, 0) over T = 2 are those of test_kd: T^2 * 0.14384 = 0.57536.
    student = Signals(torch.tensor([[2 * math.log(3), 0.0]]))
    objective = build_objective("kd", (2, 4), (2, 4), temperature=2.0, weights=[0, 1, 0])
    assert objective(student, Signals(LOGITS))[0].item() == pytest.approx(0.57536, abs=1e-5)


def test_kd_of_regression_and_of_many_labels() -> None:
    # Regression: (3 - 1)^2 = 4. Two labels, teacher 1/2 each; student 3/4 and 1/2: (0.14384 + 0) / 2 = 0.07192.
    one = build_objective("kd", (2, 4), (2, 4), weights=[0, 1, 0])
    assert one(Signals(torch.tensor([[3.0]])), Signals(torch.tensor([[1.0]])))[0].item() == pytest.approx(4)
    many = build_objective("kd", (2, 4), (2, 4), weights=[0, 1, 0], problem_type="multi_label_classification")
    student = Signals(torch.tensor([[math.log(3), 0.0]]))
    assert many(student, Signals(LOGITS))[0].item() == pytest.approx(0.07192, abs=1e-5)


@pytest.mark.parametrize(("method", "wanted"), [("pkd-skip", 1.0), ("pkd-last", 2.0)])
def test_patient_kd(method: str, wanted: float) -> None:
    # s = 2, n = 4. The student's block 1 points along (1, 0). skip: teacher block floor(1 * 4 / 2) = 2 points along
    # (0, 1): the unit vectors differ by (1, -1), mean square 1. last: teacher block 4 - 2 + 1 = 3 points along (-1, 0):
    # they differ by (2, 0), mean square 2.
    student = Signals(LOGITS, states((3, 0), (5, 5)))
    teacher = Signals(LOGITS, states((9, 9), (0, 5), (-7, 0), (9, 9)))
    loss, _ = build_objective(method, (2, 2), (4, 2), weights=ONLY_STATES)(student, teacher)
    assert loss.item() == pytest.approx(wanted)


def set_(module: nn.Module, weights: dict[str, Any]) -> None:
    """Give every parameter of a module its value."""
    assert set(weights) == {name for name, _ in module.named_parameters()}
    with torch.no_grad():
        for name, value in weights.items():
            parameter = module.get_parameter(name)
            parameter.copy_(torch.as_tensor(value).expand_as(parameter))


def identity_(maps: nn.Module, size: int) -> None:
    set_(maps, {"weight": torch.eye(size), "bias": 0.0})


@pytest.mark.parametrize(("alpha", "wanted"), [("mean", 1.5), ("sum", 3.0), ([1.0, 0.0], 2.0)])
def test_rail_layerwise(alpha: Any, wanted: float) -> None:
    # s = 3, so m = 2; teacher blocks 1 and 3 were drawn; the maps are the identity. Student block 1, (1, 0), against
    # (0, 2): 2 - 2 cos 90 = 2. Student block 2, (4, 0), against (1, sqrt 3): 2 - 2 cos 60 = 1. Mean 1.5, sum 3.
    objective = build_objective("rail-kd-l", (3, 2), (4, 2), weights=ONLY_STATES, alpha=alpha, shared_size=2)
    identity_(objective.student_maps, 2)
    identity_(objective.teacher_maps, 2)
    student = Signals(LOGITS, states((1, 0), (4, 0), (8, 9)))
    teacher = Signals(LOGITS, states((0, 2), (5, 5), (1, math.sqrt(3)), (6, 7)))
    assert objective(student, teacher, draw=(1, 3))[0].item() == pytest.approx(wanted)


def test_rail_concatenated() -> None:
    # Side by side: student [1 0 1 0], teacher [0 1 1 0]: cos = 1/2, distance 2 - 1 = 1. One distance, not two.
    objective = build_objective("rail-kd-c", (3, 2), (4, 2), weights=ONLY_STATES, shared_size=4)
    identity_(objective.student_map, 4)
    identity_(objective.teacher_map, 4)
    student = Signals(LOGITS, states((1, 0), (1, 0), (8, 9)))
    teacher = Signals(LOGITS, states((0, 1), (5, 5), (1, 0), (6, 7)))
    assert objective(student, teacher, draw=(1, 3))[0].item() == pytest.approx(1)


def test_alp_kd() -> None:
    # hs = (0, 0) attends evenly to (2, 0) and (0, 2): the target is (1, 1), the mean square 1.
    # With hs = (ln 3, 0) against (1, 0) and (0, 0): weights 3/4, 1/4; target (0.75, 0): (ln 3 - 0.75)^2 / 2 = 0.06076.
    objective = build_objective("alp-kd", (2, 2), (2, 2), weights=ONLY_STATES)
    even = objective(Signals(LOGITS, states((0, 0), (9, 9))), Signals(LOGITS, states((2, 0), (0, 2))))[0]
    assert even.item() == pytest.approx(1)
    tilted = objective(Signals(LOGITS, states((math.log(3), 0), (9, 9))), Signals(LOGITS, states((1, 0), (0, 0))))[0]
    assert tilted.item() == pytest.approx(0.06076, abs=1e-5)


def test_ckd() -> None:
    # s = 3, n = 5: buckets (1, 2) and (3, 4), one number each; W = (1, 1), bias 0 and 1.
    # Block 1: (5 - (1 + 2))^2 = 4; block 2: (5 - (3 + 4 + 1))^2 = 9. Mean 6.5.
    objective = build_objective("ckd", (3, 1), (5, 1), weights=ONLY_STATES)
    for linear, bias in zip(objective.teacher_maps, (0.0, 1.0), strict=True):
        set_(linear, {"weight": 1.0, "bias": bias})
    student, teacher = Signals(LOGITS, states((5,), (5,), (9,))), Signals(LOGITS, states((1,), (2,), (3,), (4,), (99,)))
    assert objective(student, teacher)[0].item() == pytest.approx(6.5)


@pytest.mark.parametrize(("keep", "wanted"), [(None, 0.55144), ([[True, False]], 0.31326)])
def test_codir(keep: Any, wanted: float) -> None:
    # zs = zt = (1, 0); two negatives (0, 1): -log(e / (e + 1 + 1)) = 0.55144. One left out: 0.31326.
    objective = build_objective("codir", (1, 2), (1, 2), weights=ONLY_STATES, shared_size=2, tau=1.0)
    identity_(objective.student_map, 2)
    identity_(objective.teacher_map, 2)
    others = torch.tensor([[[[0.0, 3.0]], [[0.0, 1.0]]]])  # (G 1, K 2, n 1, d 2)
    held = Negatives(others, torch.tensor([0]), None if keep is None else torch.tensor(keep))
    loss = objective(Signals(LOGITS, states((2, 0))), Signals(LOGITS, states((5, 0)), held))[0]
    assert loss.item() == pytest.approx(wanted, abs=1e-5)


def test_rail_expected_is_the_mean_over_all_draws_and_rail_all_over_all_pairs() -> None:
    torch.manual_seed(0)
    student, teacher = (
        Signals(torch.zeros(5, 2), torch.randn(5, 4, 6)),
        Signals(torch.zeros(5, 2), torch.randn(5, 7, 6)),
    )
    options: dict[str, Any] = {"weights": ONLY_STATES, "shared_size": 8}
    drawn = build_objective("rail-kd-l", (4, 6), (7, 6), maps_by="teacher-block", **options)
    expected, everything = (build_objective(name, (4, 6), (7, 6), **options) for name in ("rail-expected", "rail-all"))
    for objective in (expected, everything):
        objective.load_state_dict(drawn.state_dict())
    blocks = expected.draw(0, epoch=0, step=0)
    assert blocks == (1, 2, 3, 4, 5, 6)
    ordered = [drawn(student, teacher, draw=draw)[0] for draw in itertools.combinations(blocks, 3)]
    torch.testing.assert_close(expected(student, teacher, draw=blocks)[0], torch.stack(ordered).mean())
    pairs = [drawn(student, teacher, draw=(t, t, t))[0] for t in blocks]
    torch.testing.assert_close(everything(student, teacher, draw=blocks)[0], torch.stack(pairs).mean())


def fitted(method: str, shape: tuple[int, int], mean: float, deviation: float, **options: Any) -> Any:
    """An objective of the intermediate term alone, for a teacher of constant mean and deviation in each component."""
    n, d = shape
    objective = build_objective(method, shape, shape, weights=ONLY_STATES, **options)
    objective.fit(Moments(9, torch.full((n, d), mean), torch.eye(d).expand(n, d, d) * deviation**2))
    return objective


@pytest.mark.parametrize(("mean", "wanted"), [(0.0, 5.0), (1.0, 4.76471)])
def test_gram(mean: float, wanted: float) -> None:
    # Mean 0: student rows (1, 0), (0, 1), cosine 0; teacher rows (3, 0), (5, 0), cosine 1: two of four pairs differ by
    # 1. Mean 1: the student's rows become (0, -1), (-1, 0), cosine 0; the teacher's (2, -1), (4, -1), cosine
    # 9 / sqrt(85) = 0.97619: 10 * 2/4 * 0.97619^2 = 4.7647.
    objective = fitted("gram", (1, 2), mean, 1.0)
    student = Signals(torch.zeros(2, 2), torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    teacher = Signals(torch.zeros(2, 2), torch.tensor([[[3.0, 0.0]], [[5.0, 0.0]]]))
    assert objective(student, teacher)[0].item() == pytest.approx(wanted, abs=1e-4)


def test_last_block_and_its_stages() -> None:
    # c = 2: ((1 - 3) / 2)^2 = 1 and ((0 - 4) / 2)^2 = 4, mean 2.5. The block below counts for nothing.
    objective = fitted("last-block", (2, 2), 0.0, 2.0)
    student, teacher = Signals(LOGITS, states((9, 9), (1, 0))), Signals(LOGITS, states((7, 0), (3, 4)))
    assert objective(student, teacher)[0].item() == pytest.approx(2.5)
    # kd 0.14384, ce 0.28768 as in test_kd: first 2.5 + 0.1 * 0.14384, then the mean of the two.
    whole = build_objective("last-block", (2, 2), (2, 2))
    whole.load_state_dict(objective.state_dict())
    student, label = Signals(torch.tensor([[math.log(3), 0.0]]), student.states), torch.tensor([0])
    for progress, wanted in ((0.0, 2.51438), (0.49, 2.51438), (0.5, 0.21576), (1.0, 0.21576)):
        loss, _ = whole(student, teacher, label, term_scales=whole.term_scales(progress))
        assert loss.item() == pytest.approx(wanted, abs=1e-5)


def test_rail_nce() -> None:
    # One match, identity maps, mean 0: a = (1, 0) = b; negatives (0, 1) and (-1, 0), tau 1: -log(e / (e + 1 + 1/e)).
    objective = build_objective("rail-nce", (2, 2), (2, 2), weights=ONLY_STATES, shared_size=2, tau=1.0, negatives=2)
    objective.fit(Moments(9, torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2)))
    for bank in (objective.rail.student_maps, objective.rail.teacher_maps):
        with torch.no_grad():
            bank.weight.copy_(torch.eye(2).expand_as(bank.weight))
            bank.bias.zero_()
    others = torch.tensor([[[[0.0, 3.0], [5.0, 5.0]], [[-2.0, 0.0], [5.0, 5.0]]]])  # (G 1, K 2, n 2, d 2)
    student = Signals(LOGITS, states((2, 0), (9, 9)))
    teacher = Signals(LOGITS, states((4, 0), (8, 8)), Negatives(others, torch.tensor([0])))
    wanted = -math.log(math.e / (math.e + 1 + 1 / math.e))
    assert objective(student, teacher, draw=(1,))[0].item() == pytest.approx(wanted, abs=1e-5)
    constant = torch.zeros_like(teacher.states[:, :1])  # all rows the same: every one as likely as the others
    flat = objective(Signals(LOGITS, torch.cat([constant, constant], 1)), teacher, draw=(1,))[0].item()
    assert flat == pytest.approx(math.log(3), abs=1e-5)
