"""A device gives the numbers that the CPU gives in double precision: 1e-5 in float32, 1e-2 in bfloat16.

Compared as whole tensors: the norm of the difference over the norm of the reference.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from objectives.cases import Case, make
from railkd import Distiller
from railkd.functional import kd_loss, masked_mean, task_loss, token_at_edge
from railkd.objectives import METHODS
from railkd.signals import Negatives, Signals
from tiny import make_model, make_small

PRECISIONS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
every_precision = pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
KINDS = ("single_label_classification", "multi_label_classification", "regression")


def distance(ours: Tensor, reference: Tensor) -> float:
    ours, reference = ours.detach().cpu().double(), reference.detach()
    assert ours.shape == reference.shape and reference.isfinite().all()
    return float((ours - reference).norm() / reference.norm().clamp(min=1e-3))


def leaf(values: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return values.detach().to(device, dtype).requires_grad_()


def moved(case: Case, device: torch.device, dtype: torch.dtype, weights: torch.dtype) -> Case:
    """The same objective and batch elsewhere; states and logits in ``dtype``, the objective in ``weights``."""
    held = case.teacher.negatives
    others = None if held is None else Negatives(held.states.to(device, dtype), held.group.to(device))
    assert case.student.states is not None and case.teacher.states is not None and case.labels is not None
    return Case(
        copy.deepcopy(case.objective).to(device, weights),
        Signals(leaf(case.student.logits, device, dtype), leaf(case.student.states, device, dtype)),
        Signals(case.teacher.logits.to(device, dtype), case.teacher.states.to(device, dtype), others),
        case.labels.to(device),
        None if case.draw is None else torch.as_tensor(case.draw, device=device),
    )


def loss_and_gradients(case: Case) -> dict[str, Tensor]:
    loss = case.loss()
    loss.backward()
    assert case.student.states is not None
    learned = {"logits": case.student.logits, "states": case.student.states, **dict(case.objective.named_parameters())}
    return {"loss": loss} | {name: value.grad for name, value in learned.items() if value.grad is not None}


@pytest.mark.parametrize("method", METHODS)
@every_precision
def test_every_objective_forward_and_backward(method: str, dtype: torch.dtype, device: torch.device) -> None:
    case = make(method, ((3, 12), (6, 16)), rows=8)
    case = moved(case, torch.device("cpu"), dtype, torch.float32)  # both sides get numbers of this precision
    reference = loss_and_gradients(moved(case, torch.device("cpu"), torch.double, torch.double))
    ours = loss_and_gradients(moved(case, device, dtype, torch.float32))
    assert ours.keys() == reference.keys() and ours["loss"].device.type == device.type
    far = {name: distance(value, reference[name]) for name, value in ours.items()}
    assert max(far.values()) < PRECISIONS[dtype], far


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("pool", [masked_mean, partial(token_at_edge, last=False), partial(token_at_edge, last=True)])
@every_precision
def test_every_pooling(pool: Any, padding: str, dtype: torch.dtype, device: torch.device) -> None:
    states = torch.randn(5, 9, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = (torch.arange(9) < torch.tensor([[9], [1], [4], [8], [5]])).long()
    mask = mask.flip(1) if padding == "left" else mask
    results = []
    for where, kind in ((device, dtype), (torch.device("cpu"), torch.double)):
        given = leaf(states, where, kind)
        pooled = pool(given, mask.to(where))
        (pooled.double() ** 2).sum().backward()
        assert given.grad is not None
        results.append((pooled, given.grad))
    for ours, reference in zip(*results, strict=True):
        assert distance(ours, reference) < PRECISIONS[dtype]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("term", ["kd", "task"])
@every_precision
def test_every_loss_on_outputs(term: str, kind: Any, dtype: torch.dtype, device: torch.device) -> None:
    chance = torch.Generator().manual_seed(0)
    columns = 1 if kind == "regression" else 4
    student, teacher = (torch.randn(7, columns, generator=chance).to(dtype) for _ in range(2))
    labels = torch.rand(7, columns, generator=chance).round()
    labels[2] = float("nan")
    if kind == "single_label_classification":
        labels = torch.tensor([0, 3, -100, 1, 2, 0, 1])
    results = []
    for where, precision in ((device, dtype), (torch.device("cpu"), torch.double)):
        given = leaf(student, where, precision)
        if term == "kd":
            loss = kd_loss(given, teacher.to(where, precision), 2.0, kind)
        else:
            loss = task_loss(given, labels.to(where), kind)
        loss.backward()
        assert given.grad is not None
        results.append((loss, given.grad))
    for ours, reference in zip(*results, strict=True):
        assert distance(ours, reference) < PRECISIONS[dtype]


@pytest.mark.parametrize("method", ["finetune", "kd", "pkd-skip", "rail-kd-l"])
def test_a_whole_student_with_its_objective(method: str, device: torch.device) -> None:
    """Block states read by hooks, padding included: loss 1e-5, gradients 1e-4."""
    student = make_small(make_model(4, seed=11), 3, dropout=0.0)
    options = {"shared_size": 8} if method.startswith("rail") else {}
    distiller = Distiller.from_method(method, student, (4, 16), **options).train()
    chance = torch.Generator().manual_seed(0)
    batch = {
        "input_ids": torch.randint(4, 24, (6, 10), generator=chance),
        "attention_mask": (torch.arange(10) < torch.tensor([[10], [3], [7], [10], [5], [2]])).long(),
        "labels": torch.tensor([0, 1, -100, 1, 0, 1]),
    }
    if METHODS[method].needs_teacher:
        batch |= {
            "teacher_logits": torch.randn(6, 2, generator=chance),
            "teacher_states": torch.randn(6, 4, 16, generator=chance),
            "draw": torch.tensor([1, 3]),
        }
    results = []
    for where, precision in ((device, torch.float32), (torch.device("cpu"), torch.double)):
        model = copy.deepcopy(distiller).to(where, precision)
        given = {name: value.to(where) for name, value in batch.items()}
        loss = model(**{n: v.to(precision) if v.is_floating_point() else v for n, v in given.items()})[0]
        loss.backward()
        gradients = torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])
        results.append((loss, gradients))
    (loss, gradients), (reference, wanted) = results
    assert distance(loss, reference) < 1e-5 and distance(gradients, wanted) < 1e-4
