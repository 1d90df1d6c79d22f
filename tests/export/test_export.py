"""An export is a plain folder, and its ONNX and int8 files give the answers of the model; or there is no export."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from export.conftest import decided
from models.families.table import FAMILIES
from models.families.table import make_model as make_family
from models.families.table import make_tokenizer as family_tokenizer
from railkd.cli import main
from railkd.errors import RailkdError, RunFailed
from railkd.export import quantize
from railkd.export.layout import find_onnx, require_onnx
from railkd.export.onnx import write_onnx
from railkd.export.parity import compare
from railkd.export.session import OnnxModel
from railkd.models.inference import batched_logits, predict_logits
from railkd.tasks import TASKS
from thorough import unless
from tiny import LABELS, save, text_rows, weights_of

Capture = pytest.CaptureFixture[str]


def logits_of(folder: Path, rows: Dataset) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return predict_logits(model, AutoTokenizer.from_pretrained(folder), rows, max_length=128)


def test_the_folder_is_a_plain_one_with_the_weights_of_the_model(shipped: Path, model_folder: Path) -> None:
    before, after = (
        weights_of(AutoModelForSequenceClassification.from_pretrained(folder)) for folder in (model_folder, shipped)
    )
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    texts = text_rows(9, seed=1)["text"][:]
    assert AutoTokenizer.from_pretrained(model_folder)(texts) == AutoTokenizer.from_pretrained(shipped)(texts)
    named = [json.loads((folder / "tokenizer_config.json").read_text()) for folder in (model_folder, shipped)]
    found = [config["tokenizer_class"] for config in named]
    assert found == ["TokenizersBackend", "PreTrainedTokenizerFast"]  # transformers 4 knows the second only


def test_the_files_have_the_names_and_inputs_that_others_look_for(shipped: Path) -> None:
    names = {path.relative_to(shipped).as_posix() for path in shipped.rglob("*") if path.is_file()}
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "onnx/model.onnx", "onnx/model_quantized.onnx"}
    assert wanted | {"onnx/quantize_config.json", "export.json"} <= names
    for file in ("onnx/model.onnx", "onnx/model_quantized.onnx"):
        graph = onnx.load(shipped / file).graph
        shapes = {v.name: [d.dim_param for d in v.type.tensor_type.shape.dim] for v in graph.input}
        assert shapes == {name: ["batch", "sequence"] for name in ("input_ids", "token_type_ids", "attention_mask")}
        assert [value.name for value in graph.output] == ["logits"]
    assert b"site-packages" not in (shipped / "onnx/model.onnx").read_bytes()  # no paths of this machine


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (7, 3), (64, 64)])
def test_any_batch_and_any_length_give_the_logits_of_the_model(shipped: Path, count: int, batch_size: int) -> None:
    rows = text_rows(count, seed=11)
    found = OnnxModel(shipped / "onnx/model.onnx").logits(rows, max_length=128, batch_size=batch_size)
    np.testing.assert_allclose(found, logits_of(shipped, rows), atol=1e-5)


def test_every_product_with_a_fixed_weight_and_the_embeddings_are_int8(shipped: Path) -> None:
    graph = onnx.load(shipped / "onnx/model_quantized.onnx").graph
    kinds = [node.op_type for node in graph.node]
    config = json.loads((shipped / "onnx/quantize_config.json").read_text())
    assert kinds.count("MatMulInteger") == config["quantisation"]["integer"] > 0
    assert kinds.count("MatMulInteger") == len(quantize.products_of(shipped / "onnx/model.onnx"))
    assert config["op_types"] == ["MatMul", "Gemm", "Gather"]
    made = {output: node.op_type for node in graph.node for output in node.output}
    assert [made[node.input[0]] for node in graph.node if node.op_type == "LayerNormalization"] == ["Sum"] * 3
    assert tables_of(shipped / "onnx/model.onnx") == {onnx.TensorProto.FLOAT}
    assert tables_of(shipped / "onnx/model_quantized.onnx") == {onnx.TensorProto.INT8}
    assert set(config["quantisation"]["differences"]) == {"per tensor", "per channel"}
    assert config["parity"]["rows"] == 400 and config["gates"][0]["passes"] is True
    rows = text_rows(50, seed=11)
    changed = OnnxModel(shipped / "onnx/model_quantized.onnx").logits(rows, max_length=128) - logits_of(shipped, rows)
    assert 0 < np.abs(changed).max() < 0.5


def tables_of(file: Path) -> set[int]:
    """The number formats of the tables of embeddings."""
    graph = onnx.load(file).graph
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    tables = [v for v in graph.initializer if v.name in looked_up and "embeddings" in v.name]
    return {v.data_type for v in tables if v.dims[1] > 1}  # not the scales of their rows


def test_each_row_of_the_embeddings_has_a_scale_of_its_own(shipped: Path) -> None:
    source, target, rows = shipped / "onnx/one.onnx", shipped / "onnx/two.onnx", text_rows(20, seed=2)
    model, unused = onnx.load(shipped / "onnx/model.onnx"), AutoTokenizer.from_pretrained(shipped).unk_token_id
    (table,) = (v for v in model.graph.initializer if v.name.endswith("word_embeddings.weight"))
    found = []
    try:
        for factor in (1.0, 1e4):  # a row far larger than the others, which no text reads
            values = onnx.numpy_helper.to_array(table).copy()
            values[unused] *= factor
            table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
            onnx.save(model, source)
            quantize.write_int8(source, target, rows, logits_of(shipped, rows), max_length=128)
            found.append(OnnxModel(target).logits(rows, max_length=128))
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
    np.testing.assert_array_equal(*found)


def test_evaluate_and_predict_take_an_onnx_file_as_a_checkpoint(
    shipped: Path, dev: Path, tmp_path: Path, capsys: Capture
) -> None:
    printed = {}
    for model in (shipped, shipped / "onnx", shipped / "onnx/model_quantized.onnx"):
        for words in (["evaluate"], ["predict"]):
            assert main([*words, "--quiet", "--model", str(model), "--test", str(dev)]) == 0
            printed[words[0], model.name] = capsys.readouterr().out
    assert printed["evaluate", "shipped"] == printed["evaluate", "onnx"]
    tables = [
        list(csv.DictReader(io.StringIO(printed["predict", name]), delimiter="\t"))
        for name in ("shipped", "onnx", "model_quantized.onnx")
    ]
    assert len(tables[0]) == 400
    for ours, theirs, small in zip(*tables, strict=True):
        assert ours.keys() == small.keys() and ours["label"] == theirs["label"]
        assert float(ours["logit_pos"]) == pytest.approx(float(theirs["logit_pos"]), abs=1e-5)
        assert float(ours["logit_pos"]) == pytest.approx(float(small["logit_pos"]), abs=0.2)


def test_attention_and_gelu_are_written_so_that_onnxruntime_runs_them_as_few_operators(
    shipped: Path, tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "loaded.onnx"), 3
    onnxruntime.InferenceSession(shipped / "onnx/model.onnx", options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node]
    assert kinds.count("Softmax") == 1 and kinds.count("BiasGelu") + kinds.count("Gelu") == 1  # of the one block
    assert "Erf" not in kinds and "IsNaN" not in kinds


def test_the_plain_folder_is_read_by_a_pipeline(shipped: Path) -> None:
    rows = text_rows(3, seed=9)
    found = pipeline("text-classification", str(shipped))(rows["text"][:], top_k=None)
    wanted = torch.tensor(logits_of(shipped, rows)).softmax(1)
    for given, shares in zip(found, wanted, strict=True):
        assert {one["label"]: one["score"] for one in given} == pytest.approx(
            {"neg": float(shares[0]), "pos": float(shares[1])}, abs=1e-5
        )


def test_a_folder_without_weights_means_its_onnx_file(shipped: Path, tmp_path: Path) -> None:
    assert find_onnx(shipped) is None
    (tmp_path / "onnx").mkdir()
    for name in ("model_quantized.onnx", "model.onnx"):
        (tmp_path / "onnx" / name).touch()
        assert find_onnx(tmp_path) == find_onnx(tmp_path / "onnx") == tmp_path / "onnx" / name


@pytest.mark.parametrize("flag", unless("".__eq__, ["", "--per-op"]))
def test_a_gate_that_fails_leaves_nothing_and_says_by_how_much(
    flag: str, shipped: Path, dev: Path, tmp_path: Path, capsys: Capture
) -> None:
    # 400 rows cannot show a drop of at most 0.1 points, whatever the model does.
    words = ["export", str(shipped), "--int8", *flag.split(), "--eval", str(dev), "--max-drop", "0.1"]
    assert main([*words, "--output", str(tmp_path / "x")]) == 1
    message = capsys.readouterr().err
    assert "int8: the quality gate fails" in message and "overall" in message and "rows are needed" in message
    assert ("operators stay in float32" in message) is bool(flag)
    assert f"Fix: give {'' if flag else '--per-op, '}more rows by --eval" in message
    assert list(tmp_path.iterdir()) == []


def test_the_operator_that_int8_spoils_stays_in_float32(tmp_path: Path, capsys: Capture) -> None:
    model, tokenizer, texts, _ = decided()
    inner, outer = (getattr(model.bert.encoder.layer[0], name).dense for name in ("intermediate", "output"))
    with torch.no_grad():
        outer.weight *= 30
        outer.weight[:, 0], inner.bias[0] = 0, 3000  # an activation of which nothing depends, and which sets the scale
    rows = Dataset.from_dict({"text": texts})
    logits = predict_logits(model, tokenizer, rows, max_length=128)
    with torch.no_grad():
        model.classifier.bias[0] += float(np.median(logits[:, 1] - logits[:, 0]))
    answers = predict_logits(model, tokenizer, rows, max_length=128).argmax(1)
    save(tmp_path / "model", model, tokenizer)
    lines = [f"{text}\t{LABELS[best]}" for text, best in zip(texts, answers, strict=True)]
    (tmp_path / "dev.tsv").write_text("\n".join(["text\tlabel", *lines, ""]))
    words = ["export", str(tmp_path / "model"), "--int8", "--per-op", "--max-drop", "5", "--max-class-drop", "9"]
    assert main([*words, "--eval", str(tmp_path / "dev.tsv"), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    made = json.loads((tmp_path / "out/onnx/quantize_config.json").read_text())["quantisation"]
    assert said.count("next, embeddings stay") == said.count("next, 1 operator stay") == 1
    (left,) = made["left_out"]
    assert made["embeddings"] is True  # they were not the reason
    files = (tmp_path / "out/onnx" / name for name in ("model.onnx", "model_quantized.onnx"))
    before, after = ({node.name: node.op_type for node in onnx.load(file).graph.node} for file in files)
    assert before[left] == after[left] == "MatMul"
    assert made["integer"] == len(quantize.products_of(tmp_path / "out/onnx/model.onnx")) - 1


def test_operators_can_stay_in_float32(shipped: Path, tmp_path: Path) -> None:
    source, target, rows = shipped / "onnx/model.onnx", shipped / "onnx/less.onnx", text_rows(20, seed=2)
    reference = logits_of(shipped, rows)
    try:
        order = quantize.by_sensitivity(source, target, rows, reference, max_length=128)
        assert sorted(order) == sorted(quantize.products_of(source)) and not target.exists()
        made = quantize.write_int8(source, target, rows, reference, max_length=128, left_out=order[:2])
        assert made.embeddings and tables_of(target) == {onnx.TensorProto.INT8}
        assert made.integer == len(order) - 2 == quantize.count_products(target)[0]
        everything = quantize.count_products(shipped / "onnx/model_quantized.onnx")
        assert made.floating == everything[1] + 2
        with pytest.raises(RunFailed, match="no operator of 'model.onnx' could be quantised"):
            quantize.write_int8(source, target, rows, reference, max_length=128, embeddings=False, left_out=order)
        quantize.write_int8(source, target, rows, reference, max_length=128, embeddings=False)
        assert tables_of(target) == {onnx.TensorProto.FLOAT}
    finally:
        target.unlink(missing_ok=True)


def test_weights_have_seven_bits_where_sums_of_eight_would_overflow(tmp_path: Path) -> None:
    for flags, wanted in (("avx2 avx512f", False), ("avx2 avx512_vnni", True), ("avx2 avx_vnni", True)):
        (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags\t\t: fpu {flags}\n")
        assert quantize.has_vnni(tmp_path / "cpuinfo") is wanted
    assert quantize.has_vnni(tmp_path / "missing")


def test_parity_counts_flips_and_never_accepts_what_is_not_finite() -> None:
    task, ours = TASKS["single_label_classification"], np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.00001]])
    theirs = ours + np.array([[0, 1e-5], [0, 0], [2e-5, 0]])
    found = compare(ours, theirs, task)
    assert (found.flips, found.holds) == (1, True) and found.largest == pytest.approx(2e-5)
    assert not compare(ours, ours + 1e-3, task).holds
    assert not compare(ours, np.where(ours > 0.5, np.nan, ours), task).holds


#: A decoder, local and disentangled attention; BERT is exported above. make test-thorough exports the others.
TELLING = {"llama", "modernbert", "deberta-v3"}


@pytest.mark.parametrize("name", unless(TELLING.__contains__, FAMILIES))
def test_every_family_exports_with_parity(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    depth = next(key for key in ("num_hidden_layers", "n_layers", "n_layer", "num_layers") if key in family.config)
    model, tokenizer = make_family(family, **{depth: 2 if name == "albert-two-groups" else 1}), family_tokenizer(family)
    save(tmp_path, model, tokenizer)
    write_onnx(model, tokenizer, [("good",), ("the plot was very bad and dull",)], tmp_path / "model.onnx")
    rows = text_rows(40, seed=4)
    wanted = predict_logits(model, tokenizer, rows, max_length=64)
    # The tokenizer of the family, not the one that AutoTokenizer makes of its files.
    exported = OnnxModel(tmp_path / "model.onnx")
    how: dict[str, Any] = {"takes": exported.inputs, "config": model.config, "max_length": 64}
    for batch_size in (1, 16):
        found = batched_logits(exported.run, tokenizer, rows, batch_size=batch_size, **how)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.ptp(wanted, axis=0).min() > 1e-3  # the texts get different logits


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "Expected a run folder or a model folder"),
        ("MODEL --onnx --output out", "Expected labelled rows for the gates, but 'MODEL' names none"),
        ("MODEL --int8 --eval DEV --output out --max-drop 0", "--max-drop: expected points between 0 and 100"),
        ("MODEL --int8 --eval DEV --output out --max-class-drop nan", "--max-class-drop: expected points"),
        ("MODEL --eval DEV --output out --per-op", "--per-op"),
        ("MODEL --eval DEV --output out --vocabulary -5", "--vocabulary: expected a"),
        ("MODEL --eval DEV --output out --vocabulary few", "--vocabulary: expected a number of pieces or from-data"),
        ("MODEL --eval missing.tsv --output out", "--eval missing.tsv"),
        ("MODEL --output MODEL", "--output: "),
        ("./missing --output out", "RUN: no model at './missing'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    words: str, message: str, model_folder: Path, dev: Path, tmp_path: Path, capsys: Capture
) -> None:
    text = words.replace("MODEL", str(model_folder)).replace("DEV", str(dev)).replace(" out", f" {tmp_path / 'out'}")
    before = sorted(path.name for path in model_folder.iterdir())
    assert main(["export", *text.split()]) == 2
    assert message.replace("MODEL", str(model_folder)) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [] and sorted(path.name for path in model_folder.iterdir()) == before


def test_the_extra_is_named_where_it_is_missing() -> None:
    require_onnx()
    with pytest.raises(RailkdError, match=r'got no a_package. Fix: pip install "railkd\[onnx\]"'):
        require_onnx(("json", "a_package"))


def test_an_export_is_replaced_only_if_asked(model_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["export", str(model_folder), "--quiet", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    assert main(words) == 2 and "holds another export" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize("foreign", ["thesis.tex", "onnx/notes.txt", "export.json"])
def test_an_export_replaces_no_file_that_it_did_not_write(
    foreign: str, model_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["export", str(model_folder), "--quiet", "--overwrite", "--output", str(tmp_path / "out")]
    if foreign != "export.json":
        assert main(words) == 0
    file = tmp_path / "out" / foreign
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    assert main(words) == 2 and f"did not write, such as '{file}'" in capsys.readouterr().err
    assert file.read_text() == "{}"


@pytest.mark.parametrize("there", [True, False])
def test_an_export_into_a_link_is_refused_before_the_work(
    there: bool, model_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    if there:
        (tmp_path / "disk").mkdir()
    assert main(["export", str(model_folder), "--overwrite", "--output", str(tmp_path / "out")]) == 2
    assert "is a link. Fix: name the folder itself" in capsys.readouterr().err
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk").exists() == there


def test_nothing_of_onnx_is_imported_without_need() -> None:
    code = "import sys, railkd.cli.verbs; print(sorted({'onnx', 'onnxruntime', 'onnxscript'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_int8_file_gets_thresholds_of_its_own(shipped: Path, dev: Path, tmp_path: Path) -> None:
    model, file = str(shipped / "onnx" / "model_quantized.onnx"), tmp_path / "int8.json"
    words = ["--model", model, "--quiet"]
    assert main(["calibrate", *words, "--eval", str(dev), "--output", str(file)]) == 0
    scores = tmp_path / "scores.json"
    command = ["evaluate", *words, "--test", f"dev={dev}", "--thresholds", str(file), "--output", str(scores)]
    assert main(command) == 0
    fitted, found = json.loads(file.read_text()), json.loads(scores.read_text())["dev"]
    assert found["accuracy"] == pytest.approx(fitted["on_these_rows"]["after"]["right"])
    assert found["thresholds"]["same_rows"] is True
