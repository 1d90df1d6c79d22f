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
names = json.loads((here / "config.json").read_text(encoding="utf-8"))["id2label"].values()
print(json.dumps(dict(zip(names, outputs.tolist()))))
'''


def write_example(shipped: Shipped, max_length: int) -> None:
    """Write the example, for the int8 file if there is one. A model without tokenizer.json gets none.

    Args:
        shipped: the folder, with its ONNX files.
        max_length: in tokens; longer texts are cut.
    """
    if not (shipped.path / "tokenizer.json").is_file():
        return
    file = shipped.int8 if shipped.int8.is_file() else shipped.onnx
    write_text(shipped.example, _LINES.format(file=file.relative_to(shipped.path).as_posix(), max_length=max_length))
