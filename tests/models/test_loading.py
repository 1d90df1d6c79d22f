"""A teacher runs in the precision that its checkpoint keeps, and a student trains in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from models.families.table import FAMILIES, make_model, make_tokenizer
from railkd import DistillationTrainer, TeacherCache, make_student
from railkd.errors import RailkdError
from railkd.models.checkpoints import Checkpoint
from railkd.models.inference import predict_logits
from railkd.models.loading import Loading, kept_dtype, options_of
from railkd.teacher import LiveTeacher
from teacher.made import read_all
from tiny import arguments, save, text_rows

KEPT = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def folder_of(path: Path, kept: str, family: str = "bert") -> Path:
    model, tokenizer = make_model(FAMILIES[family]), make_tokenizer(FAMILIES[family], "right")
    return save(path, model.to(KEPT[kept]), tokenizer)


def logits_of(checkpoint: Checkpoint, rows: Dataset) -> torch.Tensor:
    return torch.from_numpy(predict_logits(checkpoint.frozen(), checkpoint.tokenizer, rows, max_length=32))


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
@pytest.mark.parametrize("kept", KEPT)
def test_auto_is_the_precision_of_the_files_whatever_the_config_says(tmp_path: Path, kept: str, family: str) -> None:
    folder, rows = folder_of(tmp_path, kept, family), text_rows(6)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float64"}))
    plain, auto = Checkpoint.find(folder), Checkpoint.find(folder).loaded_as()
    model, few = (
        auto.frozen(),
        {torch.float32} if family == "t5" else set(),
    )  # transformers keeps parts of T5 in float32
    assert auto.dtype == kept and not model.training
    assert {KEPT[kept]} <= {p.dtype for p in model.parameters()} <= {KEPT[kept], *few}
    assert {p.dtype for p in plain.frozen().parameters()} == {torch.float32} and plain.precision == "float32"
    assert auto.precision == ("float32" if kept == "float32" else f"{kept} weights")
    ours, exact = logits_of(auto, rows), logits_of(plain, rows)
    assert torch.equal(ours, exact) == (kept == "float32")
    torch.testing.assert_close(ours, exact, atol=5e-2, rtol=5e-2)
    assert {p.dtype for p in make_student(auto, 2).parameters()} == {torch.float32}


@pytest.mark.parametrize("asked", KEPT)
def test_a_precision_that_is_asked_for_is_taken(tmp_path: Path, asked: str) -> None:
    checkpoint = Checkpoint.find(folder_of(tmp_path, "bfloat16")).loaded_as(asked)
    assert checkpoint.dtype == asked and {p.dtype for p in checkpoint.frozen().parameters()} == {KEPT[asked]}


def test_most_numbers_decide() -> None:
    half, single = torch.empty(10, 10, dtype=torch.bfloat16), torch.empty(3)
    assert kept_dtype({"a": half, "norm": single}) == "bfloat16" and kept_dtype({"a": half.double()}) == "float32"
    assert kept_dtype({}) == "float32"


@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_a_model_that_accelerate_spreads_gives_the_same_numbers(tmp_path: Path, family: str) -> None:
    folder, rows = folder_of(tmp_path, "bfloat16", family), text_rows(8)
    one, spread = (Checkpoint.find(folder).loaded_as("auto", where) for where in (None, "auto"))
    assert torch.equal(logits_of(one, rows), logits_of(spread, rows))
    caches = [
        TeacherCache.build(folder, rows, tmp_path / f"cache{where}", teacher_device_map=where, pooling=["mean", "cls"])
        for where in (None, "auto")
    ]
    first, second = (read_all(cache, rows, one.tokenizer) for cache in caches)
    assert all((first[name] == second[name]).all() for name in first)
    assert caches[0].identity == caches[1].identity  # where a model lies is not part of its numbers


def test_what_is_quantised_is_loaded_as_its_config_says_and_not_moved(tmp_path: Path) -> None:
    checkpoint = Checkpoint.find(folder_of(tmp_path, "bfloat16")).loaded_as()
    config = checkpoint.new_config(quantization_config={"quant_method": "gptq", "bits": 4})
    device = torch.device("cpu")
    assert options_of(Loading("auto"), "float32", config, device) == {"dtype": "auto", "device_map": {"": device}}
    assert options_of(Loading("auto", "auto"), "float32", config, device) == {"dtype": "auto", "device_map": "auto"}
    asked = options_of(Loading("float16"), "float16", config, device)
    assert asked == {"dtype": torch.float16, "device_map": {"": device}}
    checkpoint.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    assert checkpoint.precision == "gptq weights"


@pytest.mark.parametrize("kept", KEPT)
def test_the_precision_is_part_of_the_identity_of_a_cache(tmp_path: Path, kept: str) -> None:
    folder, rows = folder_of(tmp_path / "teacher", kept), text_rows(12)
    cache = TeacherCache.build(folder, rows.select(range(8)), tmp_path / "cache")
    assert cache.identity.precision == ("float32" if kept == "float32" else f"{kept} weights")
    assert cache.identity.teacher_dtype == kept
    assert TeacherCache.build(folder, rows, tmp_path / "cache").rows == 12
    assert TeacherCache.build(folder, rows, tmp_path / "cache", teacher_dtype=kept).rows == 12
    other = "float32" if kept != "float32" else "bfloat16"
    with pytest.raises(RailkdError, match=f"precision is {cache.identity.precision} in the cache, {other}.* here"):
        TeacherCache.build(folder, rows, tmp_path / "cache", teacher_dtype=other)


def test_a_cache_of_before_grows_in_its_own_precision(tmp_path: Path) -> None:
    """Every teacher ran in float32 once."""
    folder, rows = folder_of(tmp_path / "teacher", "bfloat16"), text_rows(12)
    old = TeacherCache.build(folder, rows.select(range(8)), tmp_path / "cache", teacher_dtype="float32")
    assert old.identity.precision == "float32"
    grown = TeacherCache.build(folder, rows, tmp_path / "cache")
    assert grown.rows == 12 and grown.identity == old.identity


def test_autocast_and_weights_in_half_precision_are_not_the_same(tmp_path: Path) -> None:
    folder, rows = folder_of(tmp_path / "teacher", "bfloat16"), text_rows(4)
    found = [
        TeacherCache.build(folder, rows, tmp_path / f"{bf16}{dtype}", teacher_dtype=dtype, bf16=bf16).identity.precision
        for bf16 in (True, False)
        for dtype in ("auto", "float32")
    ]
    assert found == ["bfloat16 weights", "bfloat16", "bfloat16 weights", "float32"]


def test_a_live_teacher_in_half_precision_trains_a_student_in_single(tmp_path: Path) -> None:
    folder, rows = folder_of(tmp_path / "teacher", "bfloat16"), text_rows(8)
    trainer = DistillationTrainer(
        model=make_student(folder, 2),
        teacher_model=str(folder),
        args=arguments(tmp_path / "run", gauges=False, num_train_epochs=1),
        train_dataset=rows,
        processing_class=Checkpoint.find(folder).tokenizer,
    )
    teacher: Any = trainer.teacher
    assert isinstance(teacher, LiveTeacher) and {p.dtype for p in teacher.model.parameters()} == {torch.bfloat16}
    trainer.train()
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
