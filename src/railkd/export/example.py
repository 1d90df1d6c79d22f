"""Writes the ten lines that run a shipped model by onnxruntime, without PyTorch and transformers."""

from __future__ import annotations

from railkd.export.layout import Shipped
from railkd.runtime.files import write_text

_LINES = '''"""Print the outputs of the model for a text: python example.py "a text"."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

here = Path(__file__).parent
tokenizer = Tokenizer.from_file(str(here / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation({max_length})
session = onnxruntime.InferenceSession(here / "{file}", providers=["CPUExecutionProvider"])
tokens = tokenizer.encode(*sys.argv[1:3])
read = {{"input_ids": tokens.ids, "attention_mask": tokens.attention_mask, "token_type_ids": tokens.type_ids}}
outputs = session.run(["logits"], {{value.name: np.array([read[value.name]]) for value in session.get_inputs()}})[0][0]
names = list(json.loads((here / "config.json").read_text(encoding="utf-8"))["id2label"].values())
'''
_OUTPUTS = "print(json.dumps(dict(zip(names, outputs.tolist()))))\n"
#: In place of the outputs: the answer by the thresholds of the folder, which `railkd.jobs.thresholds` describes.
_THRESHOLDS = """rule = json.loads((here / "thresholds.json").read_text(encoding="utf-8"))
scaled, limits = outputs / rule["temperature"], np.array([rule["thresholds"][name] for name in names])
{decide}
print(json.dumps({{"answer": answer, "probabilities": dict(zip(names, chances.tolist()))}}))
"""
#: Several classes a row -> how the answer is found.
_DECIDE = {
    False: """chances = np.exp(scaled - scaled.max()) / np.exp(scaled - scaled.max()).sum()
answer = names[int((chances / limits).argmax())]""",
    True: """chances = 1 / (1 + np.exp(-scaled))
answer = [name for name, chance, limit in zip(names, chances, limits) if chance > limit]""",
}


def write_example(shipped: Shipped, max_length: int, *, several: bool) -> None:
    """Write the example, for the int8 file if there is one. A model without tokenizer.json gets none.

    Args:
        shipped: the folder, with its ONNX files. If it has thresholds, the example answers by them.
        max_length: in tokens; longer texts are cut.
        several: any number of classes applies to a row.
    """
    if not (shipped.path / "tokenizer.json").is_file():
        return
    file = shipped.int8 if shipped.int8.is_file() else shipped.onnx
    lines = _LINES.format(file=file.relative_to(shipped.path).as_posix(), max_length=max_length)
    if shipped.thresholds.is_file():
        lines = lines.replace("the outputs of the model", "the answer of the model, by its thresholds,", 1)
        write_text(shipped.example, lines + _THRESHOLDS.format(decide=_DECIDE[several]))
    else:
        write_text(shipped.example, lines + _OUTPUTS)
