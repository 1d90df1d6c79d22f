"""Quantises an ONNX file to int8: weights beforehand, activations as they come (dynamic quantisation).

Traps of ``onnxruntime.quantization.quantize_dynamic``:

- shapes that the exporter stored contradict the new nodes (onnxruntime issue 25890), so they are removed first;
- by default it gives word embeddings one scale for the whole table, which costs accuracy. They are most of the bytes of
  a small model and none of its time, so each row gets a scale of its own here, or they stay as they are: the caller
  decides;
- one scale for each channel of a weight helps some models and harms others, so both ways are measured;
- processors without VNNI add two products of int8 in 16 bits, which overflow: weights get 7 bits there;
- it may quantise nothing and say nothing, so integer products are counted in the file;
- onnxruntime joins a sum and the normalisation behind it (SkipLayerNormalization), which on processors takes 2.5 times
  as long as the two (1.32, 22 rows of 384). It does not know the operator Sum, so that stands in the place of Add.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from railkd.errors import RunFailed
from railkd.export.layout import require_onnx
from railkd.export.session import OnnxModel

#: Kinds of operators that are quantised, and the one that looks up embeddings.
KINDS, LOOKUP = ("MatMul", "Gemm"), "Gather"
#: Rows on which ways to quantise are compared.
SAMPLE = 128


@dataclass(frozen=True)
class Quantisation:
    """How an int8 file was made.

    Attributes:
        per_channel: each channel of a weight has a scale of its own.
        reduce_range: weights have 7 bits.
        embeddings: word embeddings have 8 bits too.
        left_out: names of operators that stay in float32.
        integer: number of integer products in the file.
        floating: number of products that stay in float32, such as those of two activations.
        differences: way to quantise -> mean absolute difference of the logits, as it was measured.
    """

    per_channel: bool
    reduce_range: bool
    embeddings: bool
    left_out: tuple[str, ...]
    integer: int
    floating: int
    differences: dict[str, float]


def has_vnni(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor adds products of int8 in 32 bits. One that does not say is taken to.

    Args:
        info: the description of the processor that Linux gives.
    """
    try:
        flags = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        return True
    return not flags or "avx512_vnni" in flags or "avx_vnni" in flags


def write_int8(
    source: Path,
    target: Path,
    rows: Any,
    reference: np.ndarray,
    *,
    max_length: int,
    embeddings: bool = True,
    left_out: Sequence[str] = (),
) -> Quantisation:
    """Write an int8 file, with one scale for each weight or for each channel, whichever changes the logits less.

    Args:
        source: ONNX file in float32, in its place in the shipped folder.
        target: file to write.
        rows: table of texts to measure on.
        reference: (N, C) logits of these rows.
        max_length: in tokens.
        embeddings: quantise word embeddings too.
        left_out: names of operators that stay in float32.

    Returns:
        How the file was made.

    Raises:
        RunFailed: nothing could be quantised.
    """
    require_onnx()
    reduce_range, differences, files = not has_vnni(), {}, {}
    with tempfile.TemporaryDirectory(prefix="railkd-") as scratch:
        for name in ("per tensor", "per channel"):
            files[name] = target.with_name(f"{target.stem}-{name[4:]}.onnx")
            with _prepared(source, Path(scratch), embeddings=embeddings) as graph:
                _quantise(graph, files[name], name == "per channel", reduce_range, left_out)
            found = OnnxModel(files[name]).logits(rows, max_length=max_length)
            differences[name] = float(np.abs(found - reference).mean())
    best = min(differences, key=lambda name: differences[name])
    files.pop(best).replace(target)
    for file in files.values():
        file.unlink()
    integer, floating = count_products(target)
    if not integer:
        raise RunFailed(f"int8: no operator of '{source.name}' could be quantised, so the file would run in float32")
    return Quantisation(
        best == "per channel", reduce_range, embeddings, tuple(left_out), integer, floating, differences
    )


def count_products(file: Path) -> tuple[int, int]:
    """Return the number of matrix products of integers in an ONNX file, and of those of floats."""
    import onnx

    kinds = [node.op_type for node in onnx.load(file, load_external_data=False).graph.node]
    return sum("Integer" in kind or kind == "QGemm" for kind in kinds), sum(kind in KINDS for kind in kinds)


def products_of(file: Path) -> list[str]:
    """Return the names of the operators of an ONNX file that quantisation replaces: products with a fixed weight."""
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    weights = {value.name for value in graph.initializer}
    return [node.name for node in graph.node if node.op_type in KINDS and node.input[1] in weights]


def by_sensitivity(source: Path, target: Path, rows: Any, reference: np.ndarray, *, max_length: int) -> list[str]:
    """Return the names of the operators, those first whose quantisation alone changes the logits most.

    Args:
        source: ONNX file in float32.
        target: name of a file that may be written and deleted.
        rows: table of texts to measure on.
        reference: (N, C) logits of these rows.
        max_length: in tokens.

    Returns:
        The names.
    """
    products, changes = products_of(source), {}
    with tempfile.TemporaryDirectory(prefix="railkd-") as scratch:
        for name in products:
            with _prepared(source, Path(scratch)) as graph:
                _quantise(graph, target, False, not has_vnni(), [other for other in products if other != name])
            changes[name] = float(np.abs(OnnxModel(target).logits(rows, max_length=max_length) - reference).mean())
    target.unlink(missing_ok=True)
    return sorted(products, key=lambda name: -changes[name])


@contextmanager
def _prepared(source: Path, scratch: Path, *, embeddings: bool = False) -> Iterator[Path]:
    """Give a copy of an ONNX file without the shapes that contradict quantised nodes, and with sums that stay apart."""
    import onnx

    model = onnx.load(source)
    del model.graph.value_info[:]
    _keep_sums_apart(model.graph)
    if embeddings:
        _quantise_tables(model.graph)
    copy = scratch / "model.onnx"
    onnx.save(model, copy)
    yield copy


def _keep_sums_apart(graph: Any) -> None:
    """Rename the sums of two activations that a normalisation reads, so that onnxruntime does not join them."""
    weights = {value.name for value in graph.initializer}
    normalised = {node.input[0] for node in graph.node if node.op_type == "LayerNormalization"}
    for node in graph.node:
        if node.op_type == "Add" and node.output[0] in normalised and weights.isdisjoint(node.input):
            node.op_type = "Sum"


def _quantise_tables(graph: Any) -> None:
    """Give each row of the tables of embeddings 8 bits, and a scale of its own."""
    from onnx import TensorProto, helper, numpy_helper

    weights, made, nodes = {value.name: value for value in graph.initializer}, {}, []
    for node in graph.node:
        table = weights.get(node.input[0]) if node.op_type == LOOKUP and not _axis(node) else None
        if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2:
            nodes.append(node)
            continue
        (name, rows), out = node.input, node.output[0]
        small, scales = f"{name}_int8", f"{name}_scales"
        if name not in made:
            values = numpy_helper.to_array(table)
            scale = np.maximum(np.abs(values).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
            whole = np.rint(values / scale).astype(np.int8)
            made[name] = [numpy_helper.from_array(whole, small), numpy_helper.from_array(scale, scales)]
        nodes += [
            helper.make_node(LOOKUP, [small, rows], [f"{out}_int8"]),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_whole"], to=TensorProto.FLOAT),
            helper.make_node(LOOKUP, [scales, rows], [f"{out}_scale"]),
            helper.make_node("Mul", [f"{out}_whole", f"{out}_scale"], [out]),
        ]
    gone = made.keys() - {name for node in nodes for name in node.input}
    kept = [value for name, value in weights.items() if name not in gone]
    for values, now in ((graph.node, nodes), (graph.initializer, [*kept, *chain.from_iterable(made.values())])):
        del values[:]
        values.extend(now)


def _axis(node: Any) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)


def _quantise(graph: Path, target: Path, per_channel: bool, reduce_range: bool, left_out: Sequence[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()  # the quantiser advises a step that fails on exported graphs
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            graph,
            target,
            op_types_to_quantize=list(KINDS),
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*left_out, *(f"{name}_MatMul" for name in left_out)],  # what becomes of a Gemm first
        )
    finally:
        root.setLevel(level)
