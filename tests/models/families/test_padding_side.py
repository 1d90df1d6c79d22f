"""A tokenizer that pads on the left is corrected when railkd loads it; if the caller passes it, railkd warns."""

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
#: transformers loads each tokenizer beside a Qwen2 model as a Qwen2 tokenizer.
savable = {name: family for name, family in FAMILIES.items() if name != "qwen2"}


@pytest.mark.parametrize("family", savable.values(), ids=list(savable))
def test_the_logits_of_a_text_do_not_depend_on_its_batch(tmp_path: Path, family: Family) -> None:
    folder = save(tmp_path, make_model(family), make_tokenizer(family, "left"))
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    assert tokenizer.padding_side == ("left" if family.causal else "right")
    alone, together = (
        predict_logits(model, tokenizer, text_rows(8), max_length=16, batch_size=size) for size in (1, 8)
    )
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


@by_family
def test_the_callers_own_tokenizer_is_warned_of(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    LiveTeacher(make_model(family), make_tokenizer(family, "right"))
    assert caplog.text == ""
    LiveTeacher(make_model(family), make_tokenizer(family, "left"))
    assert ("pads on the left" in caplog.text) == (not family.causal)
