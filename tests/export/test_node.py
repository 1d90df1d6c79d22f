"""transformers.js and onnxruntime for browsers answer as onnxruntime does in Python; `make test-node` runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from export.test_vocabulary import NAMES, small_bert, texts, tokenizer_of
from railkd.cli import main
from railkd.export.session import OnnxModel
from tiny import missing, save

pytestmark = pytest.mark.node
SCRIPTS = Path(__file__).parent / "node"


def node(script: str, *words: str) -> Any:
    """Run a script of the folder, and return what it prints last, as JSON."""
    command = ["node", str(SCRIPTS / script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SCRIPTS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_node_and_a_browser_give_the_answers_of_both_files(tmp_path: Path) -> None:
    if not (SCRIPTS / "node_modules").is_dir() or shutil.which("node") is None:
        missing("transformers.js is not installed. Fix: make test-node")
    model, tokenizer = small_bert(2), tokenizer_of("WordPiece")
    save(tmp_path / "model", model, tokenizer)
    rows, told = texts(400, 0), []
    for start in range(0, len(rows), 100):
        with torch.no_grad():
            told += (
                model(**tokenizer(rows[start : start + 100], padding=True, return_tensors="pt"))
                .logits.argmax(1)
                .tolist()
            )
    lines = [f"{text}\t{NAMES[best]}" for text, best in zip(rows, told, strict=True)]
    (tmp_path / "dev.tsv").write_text("\n".join(["text\tlabel", *lines, ""]), encoding="utf-8")
    words = ["export", str(tmp_path / "model"), "--int8", "--max-drop", "5", "--eval", str(tmp_path / "dev.tsv")]
    assert main([*words, "--output", str(tmp_path / "shipped")]) == 0
    for dtype, file in (("fp32", "model.onnx"), ("q8", "model_quantized.onnx")):
        printed = {one["label"]: one["score"] for one in node("classify.mjs", str(tmp_path), "shipped", dtype, rows[0])}
        exported = OnnxModel(tmp_path / "shipped" / "onnx" / file)
        tokens = AutoTokenizer.from_pretrained(tmp_path / "shipped")(rows[0])
        logits = exported.run({name: [numbers] for name, numbers in tokens.items()})[0]
        wanted = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose([printed["no"], printed["yes"]], wanted, atol=1e-4)
        np.testing.assert_allclose(node("web.mjs", str(exported.file), json.dumps(dict(tokens))), logits, atol=1e-4)
