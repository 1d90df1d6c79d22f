"""Each weight of a loaded model comes from its files, or it is part of a new head that is going to be trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForMaskedLM, BertModel, ModernBertConfig, RobertaConfig, RobertaForSequenceClassification

from models.damaged import DAMAGE, LOADS, by_load, edited, foreign, without
from models.families.table import FAMILIES, make_model
from railkd import TeacherCache, make_student
from railkd.cli import main
from railkd.errors import RailkdError
from railkd.models import Checkpoint, load_classifier
from tiny import bert_config, make_tokenizer, save, text_rows, weights_of
from tiny import make_model as make_bert


@by_load
@pytest.mark.parametrize("damage", DAMAGE)
def test_weights_that_do_not_fit_are_refused_by_name(
    damage: str, load: Callable[[Path], Any], tmp_path: Path, teacher_folder: Path
) -> None:
    change, said = DAMAGE[damage]
    folder = edited(teacher_folder, tmp_path / "model", change)
    if damage == "a fifth block" and load is LOADS["student"]:
        assert make_student(folder, 2).num_parameters()  # blocks that are not chosen do not matter to a student
        return
    with pytest.raises(RailkdError, match=said):
        load(folder)


@pytest.mark.parametrize("lost", ["classifier", "classifier.bias", "pooler"])
def test_a_head_may_be_new_only_where_training_follows(
    lost: str, tmp_path: Path, teacher_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = edited(teacher_folder, tmp_path / "model", without(lost))
    for load in (LOADS["teacher"], LOADS["check"]):
        with pytest.raises(RailkdError, match=rf"missing: .*{lost}.*Fix: fine-tune it first"):
            load(folder)
    with pytest.raises(RailkdError, match="Fix: fine-tune it first"):
        TeacherCache.build(folder, text_rows(4), tmp_path / "cache")
    assert caplog.text == ""
    Checkpoint.find(folder).check_weights(new_head=True)
    body = load_file(folder / "model.safetensors")
    for load in (LOADS["to train"], lambda folder: make_student(folder, 4)):
        caplog.clear()
        model = load(folder)
        assert "The head is new" in caplog.text and lost in caplog.text
        assert all(torch.equal(model.state_dict()[name], value) for name, value in body.items())


def test_a_pretrained_model_gets_a_new_head_and_a_trained_one_keeps_its_own(
    tmp_path: Path, teacher_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in (BertModel, BertForMaskedLM):
        folder = save(tmp_path / kind.__name__, kind(bert_config()), make_tokenizer())
        with pytest.raises(RailkdError, match="Fix: fine-tune it first"):
            load_classifier(folder)
        caplog.clear()
        assert load_classifier(folder, num_labels=3).num_labels == 3 and "The head is new" in caplog.text
    caplog.clear()
    load_classifier(teacher_folder, num_labels=2)
    make_student(teacher_folder, 2)
    assert caplog.text == ""


def test_a_pooler_that_the_model_does_not_use_is_no_fault(tmp_path: Path) -> None:
    names = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = RobertaForSequenceClassification(RobertaConfig(**names, intermediate_size=32, max_position_embeddings=66))
    extra = {"roberta.pooler.dense.weight": torch.zeros(16, 16), "roberta.pooler.dense.bias": torch.zeros(16)}
    folder = edited(save(tmp_path / "model", model), tmp_path / "with", lambda weights: weights | extra)
    assert load_classifier(folder).num_labels == 2 and make_student(folder, 1).num_labels == 2


DATA = "--train train.jsonl --max-length 16"
VERBS = {
    "evaluate": "evaluate --model bad --test train.jsonl",
    "predict": "predict --model bad --test train.jsonl",
    "check": f"check --teacher bad --student-layers 2 {DATA}",
    "check of a student": f"check --teacher good --student bad {DATA}",
    "cache": f"cache --teacher bad {DATA} --cache cache",
    "distill": f"distill --teacher bad --student-layers 2 {DATA} --live --output out",
    "distill with a student": f"distill --teacher good --student bad {DATA} --cache unused --output out",
    "finetune": f"finetune --model bad {DATA} --output out",
}
FAULTS = {
    "a block is missing": "weights missing: bert.encoder.layer.3.",
    "compiled": "'_orig_mod.'",
    "not a number": "NaN or infinite",
    "evil": "a pickle of more than named tensors",
}


@pytest.fixture(scope="module", params=FAULTS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder with rows, a good model and a damaged one, and what must be said of it."""
    folder = tmp_path_factory.mktemp("verbs")
    good = save(folder / "good", make_bert(), make_tokenizer())
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text_rows(8)))
    if request.param == "evil":
        foreign(Path(shutil.copytree(good, folder / "bad")), "evil")
    else:
        edited(good, folder / "bad", DAMAGE[request.param][0])
    return folder, FAULTS[request.param]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_weights_that_do_not_fit(
    verb: str, place: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, said = place
    monkeypatch.chdir(folder)
    assert main(VERBS[verb].split()) == 2
    error = capsys.readouterr().err
    assert said in error and "weights_only" not in error and "Traceback" not in error, error
    assert not (folder / "cache" / "manifest.json").exists() and not (folder / "unused").exists()


# ---- students --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [[2, 4], "spaced", "last"], ids=str)
def test_a_norm_that_the_first_block_cannot_have_is_logged(
    keep: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ModernBERT's first block has no norm in front. Block 1 as the student's first block loses nothing."""
    teacher = make_model(FAMILIES["modernbert"])
    assert isinstance(teacher.config, ModernBertConfig)
    for source in (teacher, save(tmp_path / "teacher", teacher), save(tmp_path / "bare", teacher.model)):
        caplog.clear()
        make_student(source, 2, keep)
        said = [line for line in caplog.messages if "has no place for" in line]
        assert len(said) == 1 and "layers.0.attn_norm.weight" in said[0] and "block" in said[0]
    caplog.clear()
    for keep in ([1, 3], "even"):
        make_student(teacher, 2, keep)
    assert caplog.messages == []


def test_a_weight_that_no_block_of_the_student_has_is_refused(tmp_path: Path, teacher_folder: Path) -> None:
    """Unlike ModernBERT's norm, this one is in all blocks, the first included: the config is of another model."""
    extra = "bert.encoder.layer.{}.output.gate.weight"
    folder = edited(teacher_folder, tmp_path / "m", lambda w: w | {extra.format(i): torch.ones(2) for i in range(4)})
    with pytest.raises(RailkdError, match=r"without a place in the model: bert.encoder.layer.0.output.gate"):
        make_student(folder, 2)
    assert weights_of(make_student(teacher_folder, 2))
