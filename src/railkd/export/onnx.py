"""Writes a classifier as ONNX, with free batch size and text length.

Traps of ``torch.onnx.export``:

- an example batch of one row, or without padding, fixes what should stay free;
- a model that returns more than its logits gets outputs that no server expects;
- PyTorch's fused attention becomes twice as many operators as attention step by step;
- GELU becomes a product in an order in which onnxruntime does not find it, and so does not run it as one operator.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from railkd.data.tokens import model_inputs
from railkd.errors import RailkdError
from railkd.export.layout import require_onnx
from railkd.models.blocks import accepted_inputs
from railkd.models.heads import task_of_config

#: Version of the operator set. All runtimes of the last years read it.
OPSET = 18


class _LogitsOnly(nn.Module):
    """A classifier whose inputs are positional and whose only output is its logits."""

    def __init__(self, model: nn.Module, inputs: Sequence[str], output: str) -> None:
        super().__init__()
        self.model, self.inputs, self.output = model, tuple(inputs), output

    def forward(self, *values: Tensor) -> Tensor:
        found: Tensor = getattr(self.model(**dict(zip(self.inputs, values, strict=True))), self.output)
        return found


def write_onnx(model: Any, tokenizer: Any, texts: Sequence[Sequence[str]], file: Path) -> None:
    """Write a classifier as ONNX. Its inputs are called as the tokenizer calls them, its output ``logits``.

    Args:
        model: a sequence classifier, on the CPU. It is put in evaluation mode.
        tokenizer: of the model.
        texts: two rows or more, of one or two texts each and of unlike lengths.
        file: the file to write. Weights above 2 GB go to a second file beside it.

    Raises:
        RailkdError: PyTorch cannot write this kind of model, or railkd[onnx] is not installed.
    """
    require_onnx()
    encoded = model_inputs(tokenizer, texts, max_length=64)
    takes = accepted_inputs(model)
    batch = tokenizer.pad({name: values for name, values in encoded.items() if name in takes}, return_tensors="pt")
    names = list(batch)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    wrapped = _LogitsOnly(model, names, task_of_config(model.config).output).eval()
    try:
        with _quiet(), _attention_in_steps(model), torch.no_grad():
            program = torch.onnx.export(
                wrapped,
                tuple(batch[name] for name in names),
                dynamo=True,
                dynamic_shapes=(tuple(free for _ in names),),
                input_names=names,
                output_names=["logits"],
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None
            _tidy(program)
            program.save(str(file))
    except Exception as error:  # each stage of torch.export has errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RailkdError(
            f"Expected a model that PyTorch can write as ONNX, got {type(model).__name__}, for which it fails: "
            f"{reason[:300]}. Fix: ship the folder as it is, which needs no export."
        ) from error


def _tidy(program: Any) -> None:
    """Call the free dimensions ``batch`` and ``sequence``, as other exporters do, and drop the exporter's notes."""
    graph = program.model.graph
    for node in graph.all_nodes():
        node.metadata_props.clear()  # lines of source code, with their paths on this machine
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for node in graph:
        if node.op_type == "Erf":
            _order_gelu(node)
    for value in graph.inputs:
        value.shape = type(value.shape)(["batch", "sequence"])
    for value in graph.outputs:
        value.shape = type(value.shape)(["batch", *list(value.shape)[1:]])


def _order_gelu(erf: Any) -> None:
    """Turn x (0.5 (1 + erf)) into (x (1 + erf)) 0.5, which onnxruntime knows; leave anything else as it is."""
    chain = [erf]
    for kind in ("Add", "Mul", "Mul"):
        uses = list(chain[-1].outputs[0].uses())
        if len(uses) != 1 or uses[0].node.op_type != kind:
            return
        chain.append(uses[0].node)
    _, added, inner, outer = chain
    one, whole = added.outputs[0], inner.outputs[0]
    half, x = (next(v for v in node.inputs if v is not own) for node, own in ((inner, one), (outer, whole)))
    if half.const_value is not None and half.const_value.size == 1 and float(half.const_value.numpy()) == 0.5:
        for node, values in ((inner, (x, one)), (outer, (whole, half))):
            for place, value in enumerate(values):
                node.replace_input_with(place, value)


@contextmanager
def _attention_in_steps(model: Any) -> Iterator[None]:
    """Let a model of transformers compute attention step by step meanwhile."""
    before = getattr(model.config, "_attn_implementation", None)
    if before is not None:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if before is not None:
            model.set_attn_implementation(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings of the exporter, which speak of its own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
