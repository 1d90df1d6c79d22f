"""A checkpoint is found once. Its parts are read when they are first used, and kept."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

import tiny
from railkd import TeacherCache, make_student
from railkd.errors import RailkdError
from railkd.models import Checkpoint, describe_student, load_classifier, load_tokenizer

#: The ways to name one checkpoint.
WAYS: dict[str, Callable[[Path], Any]] = {"path": Path, "text": str, "checkpoint": Checkpoint.find}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def test_a_checkpoint_describes_its_model(teacher_folder: Path) -> None:
    checkpoint = Checkpoint.find(teacher_folder)
    model = checkpoint.model()
    assert checkpoint.config.to_dict() == model.config.to_dict()
    assert checkpoint.labels == ("neg", "pos") and checkpoint.task.problem_type == "single_label_classification"
    assert checkpoint.shape == (len(model.bert.encoder.layer), model.config.hidden_size)
    assert [path.name for path in checkpoint.weights] == ["model.safetensors"] and str(checkpoint) == str(
        teacher_folder
    )


def test_parts_are_read_when_they_are_first_used_and_kept(tmp_path: Path, teacher_folder: Path) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    checkpoint = Checkpoint.find(folder)
    config, tokenizer, digest = checkpoint.config, checkpoint.tokenizer, checkpoint.digest
    shutil.rmtree(folder)
    assert (checkpoint.config, checkpoint.tokenizer, checkpoint.digest) == (config, tokenizer, digest)
    assert checkpoint.labels == ("neg", "pos")
    with pytest.raises(RailkdError, match="cannot load a sequence classifier"):
        checkpoint.model()


def test_changes_of_a_config_change_a_copy(teacher_folder: Path) -> None:
    checkpoint = Checkpoint.find(teacher_folder)
    before = checkpoint.config.to_dict()
    torch.manual_seed(0)
    model = checkpoint.model(num_labels=3, problem_type="multi_label_classification")
    assert model.classifier.out_features == 3 and model.config.problem_type == "multi_label_classification"
    assert checkpoint.new_config(num_hidden_layers=2).num_hidden_layers == 2
    make_student(checkpoint, 2, num_labels=3)
    describe_student(checkpoint, model)
    assert checkpoint.config.to_dict() == before


def test_each_call_loads_a_model_unless_it_is_shared(teacher_folder: Path) -> None:
    checkpoint = Checkpoint.find(teacher_folder)
    assert checkpoint.frozen() is not checkpoint.frozen()
    with checkpoint.sharing():
        one = checkpoint.frozen()
        assert checkpoint.frozen() is one and not one.training
        alive = weakref.ref(one)
    del one
    gc.collect()
    assert alive() is None
    assert checkpoint.frozen() is not checkpoint.frozen()


@ways
def test_path_text_and_checkpoint_give_the_same(
    way: Callable[[Path], Any], teacher_folder: Path, rows: Dataset, cache: TeacherCache, tmp_path: Path
) -> None:
    source, words = way(teacher_folder), load_tokenizer(teacher_folder)
    student, wanted = make_student(source, 2), make_student(load_classifier(teacher_folder), 2)
    assert all(torch.equal(one, two) for one, two in zip(student.parameters(), wanted.parameters(), strict=True))
    assert describe_student(source, student) == describe_student(Checkpoint.find(teacher_folder).config, student)
    built = TeacherCache.build(source, rows, tmp_path / "cache", pooling=["mean", "cls"], dtype="float32", batch_size=7)
    assert built.identity == cache.identity
    found = []
    for teacher, learner in ((source, source), (load_classifier(teacher_folder), load_classifier(teacher_folder))):
        trainer = tiny.make_trainer(tmp_path, teacher, rows, words, student=learner, max_steps=2)
        trainer.train()
        found.append(tiny.losses(trainer))
    assert found[0] == found[1] and len(found[0]) == 2


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_a_folder_without_a_model_is_refused_at_once(tmp_path: Path, teacher_folder: Path, lost: str) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    (folder / lost).unlink()
    with pytest.raises(RailkdError, match="holds no model"):
        Checkpoint.find(folder)


def test_a_tokenizer_needs_no_weights(tmp_path: Path, teacher_folder: Path) -> None:
    wanted = load_tokenizer(teacher_folder)
    wanted.save_pretrained(tmp_path / "tokenizer")
    for lost in ((), ("model.safetensors",), ("model.safetensors", "config.json")):
        folder = Path(shutil.copytree(teacher_folder, tmp_path / f"without-{len(lost)}"))
        for name in lost:
            (folder / name).unlink()
        for source in (folder, str(folder), tmp_path / "tokenizer"):
            found = load_tokenizer(source)
            assert found.get_vocab() == wanted.get_vocab() and found.padding_side == wanted.padding_side == "right"
            assert found.pad_token == wanted.pad_token
    with pytest.raises(RailkdError, match="no tokenizer that loads"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation", "experts_implementation"])
@pytest.mark.parametrize(
    "value", ["some/where", "some/where@v2:flash", "paged|some/where", "flash_attention_2", "x", 7]
)
def test_a_config_loads_no_attention_from_elsewhere(
    key: str, value: Any, tmp_path: Path, teacher_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    plain = load_classifier(folder)
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))
    for model in (load_classifier(folder), make_student(folder, 2), Checkpoint.find(folder).frozen()):
        assert model.config._attn_implementation == plain.config._attn_implementation
    assert f"asks for the code '{value}'" in caplog.text and "--trust-remote-code" in caplog.text
    caplog.clear()
    (folder / "config.json").write_text(json.dumps(config | {key: "eager"}))
    load_classifier(folder)
    assert caplog.text == ""


def test_other_weight_files_named_by_a_config_are_refused(tmp_path: Path, teacher_folder: Path) -> None:
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text()) | {"transformers_weights": "other.safetensors"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RailkdError, match="names other weight files.*Fix: rename them to model.safetensors"):
        load_classifier(folder)


def test_a_folder_has_no_revisions(teacher_folder: Path) -> None:
    with pytest.raises(RailkdError, match="only a hub name has revisions"):
        Checkpoint.find(teacher_folder, "main")


def test_a_run_folder_is_refused_with_the_model_inside_of_it(tmp_path: Path) -> None:
    for name in ("student", "checkpoint-9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(RailkdError, match=r"it has no config.json. Fix: give '.*/student' or '.*/checkpoint-9'\."):
        Checkpoint.find(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RailkdError, match=r"Fix: give a folder written by save_pretrained\."):
        Checkpoint.find(tmp_path / "empty")
