"""One model that is exported once, and the rows of its gates."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from railkd.cli import main
from railkd.models.inference import predict_logits
from tiny import LABELS, make_model, make_tokenizer, save, text_rows


def decided() -> tuple[Any, Any, list[str], np.ndarray]:
    """A model, its tokenizer, 400 texts of which half are "pos" by the model, none of them close, and its answers."""
    model, tokenizer, rows = make_model(1, seed=3), make_tokenizer(), text_rows(520, seed=5)
    with torch.no_grad():
        model.classifier.weight *= 8
        logits = predict_logits(model, tokenizer, rows, max_length=128)
        model.classifier.bias[0] += float(np.median(logits[:, 1] - logits[:, 0]))
    logits = predict_logits(model, tokenizer, rows, max_length=128)
    far = np.argsort(-np.abs(logits[:, 1] - logits[:, 0]), kind="stable")[:400]
    return model, tokenizer, [rows["text"][int(i)] for i in far], logits[far].argmax(1)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, tokenizer, _, _ = decided()
    return save(tmp_path_factory.mktemp("trained") / "model", model, tokenizer)


@pytest.fixture(scope="session")
def dev(model_folder: Path) -> Path:
    """400 rows of which the model gets about nine in ten right."""
    (_, _, texts, answers), chance = decided(), random.Random(0)
    assert 100 < answers.sum() < 300
    labels = [LABELS[int(best) if chance.random() < 0.8 else chance.randint(0, 1)] for best in answers]
    file = model_folder.parent / "dev.tsv"
    lines = [f"{text}\t{label}" for text, label in zip(texts, labels, strict=True)]
    file.write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def shipped(model_folder: Path, dev: Path) -> Path:
    """The model in float32 and in int8, beside its plain folder."""
    output = model_folder.parent / "shipped"
    words = ["export", str(model_folder), "--onnx", "--int8", "--eval", f"real={dev}", "--output", str(output)]
    assert main(words) == 0
    return output
