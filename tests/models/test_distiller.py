"""The distiller takes its signals by name, and Trainer still finds its labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.utils import find_labels

from railkd import Distiller
from tiny import make_model, make_small

BATCH = {"input_ids": torch.arange(5, 14).reshape(3, 3), "attention_mask": torch.ones(3, 3, dtype=torch.long)}
SIGNALS = {"teacher_logits": torch.ones(3, 2), "teacher_states": torch.ones(3, 4, 16), "draw": torch.tensor([2])}


def distiller() -> Distiller:
    student = make_small(make_model(4), 2, dropout=0.0)
    return Distiller.from_method("rail-kd-l", student, teacher_shape=(4, 16), shared_size=8)


@pytest.mark.parametrize("training", [True, False])
def test_a_signal_of_an_unknown_name_is_refused(training: bool) -> None:
    model = distiller().train(training)
    assert model(**BATCH, **SIGNALS)
    with pytest.raises(TypeError, match="'teacher_logit'"):
        model(**BATCH, **SIGNALS, teacher_logit=SIGNALS["teacher_logits"])


def test_trainer_finds_the_labels_in_the_signature() -> None:
    assert find_labels(Distiller) == ["labels"]


def test_evaluation_does_not_read_the_signals() -> None:
    model = distiller().eval()
    (alone,), (with_signals,) = model(**BATCH), model(**BATCH, **SIGNALS)
    assert isinstance(alone, Tensor) and torch.equal(alone, with_signals)
