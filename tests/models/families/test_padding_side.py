"""A tokenizer that pads on the left: mended where it is loaded, said where it is the caller's, kept where it fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.families.table import FAMILIES, Family, make_model, make_tokenizer
from railkd.models import load_classifier, load_tokenizer
from railkd.models.inference import predict_logits
from railkd.teacher import LiveTeacher
from tiny import save, text_rows

by_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
#: transformers makes a tokenizer of Qwen2's own kind out of any that lies beside one.
savable = {name: family for name, family in FAMILIES.items() if name != "qwen2"}


@pytest.mark.parametrize("family", savable.values(), ids=list(savable))
def test_a_text_has_the_same_numbers_whatever_stands_beside_it(tmp_path: Path, family: Family) -> None:
    folder = save(tmp_path, make_model(family), make_tokenizer(family, "left"))
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    assert tokenizer.padding_side == ("left" if family.causal else "right")
    alone, together = (
        predict_logits(model, tokenizer, text_rows(8), max_length=16, batch_size=size) for size in (1, 8)
    )
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


@by_family
def test_of_the_callers_own_tokenizer_it_is_said(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    LiveTeacher(make_model(family), make_tokenizer(family, "right"))
    assert caplog.text == ""
    LiveTeacher(make_model(family), make_tokenizer(family, "left"))
    assert ("pads on the left" in caplog.text) == (not family.causal)
