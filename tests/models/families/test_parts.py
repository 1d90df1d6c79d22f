"""A batch that is run in parts of similar length gives the step of the whole batch, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.families.table import BLOCKS, FAMILIES, WIDTH, Family, make_model, make_tokenizer
from railkd import Distiller
from railkd.models.freezing import freeze
from railkd.models.parts import run_in_parts

#: Rows of 1 to 19 words in no order; two are of one length.
TEXTS = [" ".join(["a film so bright"] * n) for n in (3, 1, 4, 2, 4)] + [
    "dull",
    "the plot was very dull and so the actor",
]


def step(family: Family, side: str, split: bool, frozen: bool = False) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return loss, logits and gradients of a step, without dropout."""
    torch.manual_seed(0)
    student = make_model(family)
    if frozen:
        freeze(student, ["embeddings"])
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):  # functional dropout of attention
            module.dropout = 0.0
    torch.manual_seed(1)
    distiller = Distiller.from_method("rail-kd-l", student, (BLOCKS, WIDTH), shared_size=8).train()
    distiller.splits_batches = split
    batch: Any = dict(make_tokenizer(family, side)(TEXTS, padding=True, return_tensors="pt"))
    torch.manual_seed(2)
    classes = student.config.num_labels
    signals = {
        "teacher_logits": torch.randn(len(TEXTS), classes),
        "teacher_states": torch.randn(len(TEXTS), BLOCKS, WIDTH),
        "draw": torch.arange(1, distiller.objective.m + 1),
        "labels": torch.randint(classes, (len(TEXTS),)),
    }
    batch = {name: value for name, value in batch.items() if name in ("input_ids", "attention_mask", "token_type_ids")}
    loss, logits, *_ = distiller(**batch, **signals)
    loss.backward()
    return loss, logits, {name: p.grad for name, p in distiller.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("name", "side"), [(name, side) for name in FAMILIES for side in FAMILIES[name].sides])
def test_a_batch_in_parts_gives_the_step_of_the_whole_batch(name: str, side: str) -> None:
    loss, logits, whole = step(FAMILIES[name], side, split=False)
    loss_of_parts, logits_of_parts, parts = step(FAMILIES[name], side, split=True)
    torch.testing.assert_close(loss_of_parts, loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits_of_parts, logits, rtol=1e-4, atol=1e-5)
    assert parts.keys() == whole.keys()
    for weights, gradient in whole.items():
        torch.testing.assert_close(
            parts[weights], gradient, rtol=1e-3, atol=1e-5, msg=lambda text, w=weights: f"{w}: {text}"
        )


def test_frozen_embeddings_are_read_for_each_part() -> None:
    loss, _, whole = step(FAMILIES["bert"], "right", split=False, frozen=True)
    loss_of_parts, _, parts = step(FAMILIES["bert"], "right", split=True, frozen=True)
    torch.testing.assert_close(loss_of_parts, loss, rtol=1e-5, atol=1e-6)
    assert parts.keys() == whole.keys() and not any("word_embeddings" in name for name in parts)


def test_parts_pad_less_and_the_table_gets_one_gradient() -> None:
    """The blocks see four parts of two rows or one. One look-up in the table of embeddings has a gradient."""
    student = make_model(FAMILIES["bert"])
    batch = make_tokenizer(FAMILIES["bert"])(TEXTS, padding=True, return_tensors="pt")
    seen: list[tuple[int, int]] = []
    student.bert.encoder.layer[0].register_forward_hook(
        lambda _module, inputs, _: seen.append(tuple(inputs[0].shape[:2]))
    )
    gradients: list[Tensor] = []
    table = student.get_input_embeddings()

    def watch(_module: nn.Module, _inputs: Any, read: Tensor) -> None:
        read.register_hook(gradients.append)

    table.register_forward_hook(watch)
    logits, _ = run_in_parts(student, batch, batch["attention_mask"], output="logits")
    logits.sum().backward()
    real = batch["attention_mask"].sum(dim=1).sort().values
    assert seen == [(2, real[1]), (2, real[3]), (2, real[5]), (1, real[6])]
    assert sum(rows * length for rows, length in seen) < 0.75 * batch["input_ids"].numel()
    assert len(gradients) == 1 and gradients[0].shape[:2] == batch["input_ids"].shape
