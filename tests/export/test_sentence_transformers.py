"""sentence-transformers finds the exported files by their names; `make test-sentence-transformers` runs it.

It loads ONNX files through optimum, which needs an older transformers than railkd. Both lie in a folder of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from railkd.export.session import OnnxModel
from tiny import missing, text_rows

pytestmark = pytest.mark.sentence_transformers
PACKAGES = Path(__file__).parent / ".sentence_transformers"
SCRIPT = """
import json, sys
from sentence_transformers import CrossEncoder

folder, file, pairs = sys.argv[1:]
model = CrossEncoder(folder, backend="onnx", model_kwargs={"file_name": file} if file else {}, local_files_only=True)
print(json.dumps(model.predict(json.loads(pairs)).tolist()))
"""


@pytest.mark.parametrize(("asked", "file"), [("", "model.onnx"), ("onnx/model_quantized.onnx", "model_quantized.onnx")])
def test_sentence_transformers_gives_the_logits_of_the_files(asked: str, file: str, shipped: Path) -> None:
    if not PACKAGES.is_dir():
        missing("sentence-transformers is not installed. Fix: make test-sentence-transformers")
    texts = text_rows(6, seed=9)["text"][:]
    pairs = list(zip(texts[:3], texts[3:], strict=True))  # what a CrossEncoder reads
    before = sorted(path for path in shipped.rglob("*") if path.is_file())
    command = [sys.executable, "-c", SCRIPT, str(shipped), asked, json.dumps(pairs)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(PACKAGES)}
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path for path in shipped.rglob("*") if path.is_file()) == before  # it exported nothing itself
    batch = AutoTokenizer.from_pretrained(shipped)(texts[:3], texts[3:], padding=True, return_tensors="pt")
    wanted = OnnxModel(shipped / "onnx" / file).run(batch)
    np.testing.assert_allclose(json.loads(done.stdout.strip().splitlines()[-1]), wanted, atol=1e-5)
