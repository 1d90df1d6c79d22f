"""Students where families differ: precision, padding, shared blocks, two stacks; and their description."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5EncoderModel

from models.families.table import FAMILIES, SGD, make_model, make_tokenizer
from railkd import make_student
from railkd.errors import RailkdError
from railkd.models import load_classifier
from railkd.models.blocks import BlockReader
from railkd.models.starts import blocks_to_keep
from railkd.models.student import describe_student
from tiny import make_model as make_bert
from tiny import make_tokenizer as bert_tokenizer
from tiny import make_trainer, save, text_rows, weights_of


def test_a_student_of_half_precision_weights_learns_in_single_precision(tmp_path: Path) -> None:
    folder = save(tmp_path / "teacher", make_model(FAMILIES["qwen2"]).bfloat16(), make_tokenizer(FAMILIES["qwen2"]))
    for model in (make_student(folder, 2), load_classifier(folder)):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert make_student(make_model(FAMILIES["bert"]).half(), 2).dtype == torch.float32


def test_a_decoder_without_a_padding_token_gets_that_of_its_tokenizer(tmp_path: Path) -> None:
    family = FAMILIES["llama"]
    teacher, tokenizer = make_model(family, pad_token_id=None, eos_token_id=[3, 4]), make_tokenizer(family)
    folder = save(tmp_path / "teacher", teacher, tokenizer)
    inputs = tokenizer(["a film", "the plot was"], padding=True, return_tensors="pt")
    for model in (load_classifier(folder).eval(), make_student(folder, 4).eval()):
        assert model.config.pad_token_id == tokenizer.pad_token_id
        with torch.no_grad():
            alone = model(**tokenizer(["a film"], return_tensors="pt")).logits
            torch.testing.assert_close(model(**inputs).logits[:1], alone)


def test_a_bare_t5_encoder_gives_its_blocks_and_its_position_bias(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = T5EncoderModel(make_model(FAMILIES["t5"]).config)
    student = make_student(save(tmp_path / "encoder", encoder), 2)
    ours, theirs = student.transformer.encoder.block, encoder.encoder.block
    for place, block in enumerate(blocks_to_keep(2, 4)):
        source = theirs[block - 1].state_dict()
        assert all(torch.equal(ours[place].state_dict()[name], tensor) for name, tensor in source.items())
    bias = "layer.0.SelfAttention.relative_attention_bias.weight"
    assert torch.equal(ours[0].state_dict()[bias], theirs[0].state_dict()[bias])


def test_a_decoder_stack_of_another_depth_is_cut_on_its_own() -> None:
    teacher = make_model(FAMILIES["t5"], num_decoder_layers=3)
    for keep in ("even", [1, 4]):
        student = make_student(teacher, 2, keep)
        assert student.config.num_decoder_layers == 2
        theirs, ours = teacher.transformer.decoder.block, student.transformer.decoder.block
        for place, block in ((0, 1), (1, 3)):  # even: 1 and 3 of 3
            source = theirs[block - 1].state_dict()
            assert all(torch.equal(ours[place].state_dict()[name], tensor) for name, tensor in source.items())
    assert make_student(teacher, 4).config.num_decoder_layers == 3


def test_the_blocks_of_a_t5_are_its_encoders() -> None:
    model = make_model(FAMILIES["t5"])
    assert BlockReader(model).blocks == list(model.transformer.encoder.block)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_albert_keeps_its_groups_unless_there_is_one_for_each_block(groups: int) -> None:
    teacher = make_model(FAMILIES["albert"], num_hidden_groups=groups)
    for layers in (1, 2):
        student = make_student(teacher, layers)
        assert student.config.num_hidden_layers == layers
        assert student.config.num_hidden_groups == (groups if groups < 4 else layers)
        theirs = teacher.albert.encoder.albert_layer_groups
        for place, block in enumerate(student.albert.encoder.albert_layer_groups):
            source = theirs[place if groups < 4 else blocks_to_keep(layers, 4)[place] - 1].state_dict()
            assert all(torch.equal(block.state_dict()[name], tensor) for name, tensor in source.items())


@pytest.mark.parametrize("name", ["bert", "albert", "albert-two-groups", "t5", "llama"])
def test_the_description_of_a_student_has_its_sizes(name: str) -> None:
    teacher = make_model(FAMILIES[name])
    student = make_student(teacher, 2)
    said = describe_student(teacher.config, student)
    millions = sum(parameter.numel() for parameter in student.parameters()) / 1e6
    assert said.startswith(f"2 blocks of 16, {millions:.2f} M parameters") and "4 blocks of 16" in said
    # Half of the blocks run nearly twice as fast, even if shared weights make the model hardly smaller.
    speed = re.search(r"about ([\d.]+)x", said)
    assert speed is not None and 1.6 <= float(speed[1]) <= 2.0


def test_a_model_without_a_width_is_refused() -> None:
    model = torch.nn.Module()
    model.config = type("Config", (), {"num_hidden_layers": 1})()  # type: ignore[assignment]
    model.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    with pytest.raises(RailkdError, match="has no hidden_size"):
        BlockReader(model)


def test_models_without_segments_get_no_token_types(tmp_path: Path) -> None:
    """A tokenizer may give token type 1 to the second text. RoBERTa has only type 0, and DistilBERT has no types."""
    rows = text_rows(6, pair=["good film"] * 6)
    for name in ("roberta", "distilbert"):
        model: Any = make_model(FAMILIES[name])
        student = make_student(model, 2)
        trainer = make_trainer(
            tmp_path, model, rows, bert_tokenizer(), student=student, max_steps=1, text_columns=["text", "pair"]
        )
        trainer.train()
        assert trainer.predict(rows).predictions.shape == (6, 2)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_no_number(reentrant: bool, tmp_path: Path) -> None:
    rows, teacher, found = text_rows(8), make_bert(dropout=0.0), []
    for checkpointing in (False, True):
        trainer = make_trainer(
            tmp_path,
            teacher,
            rows,
            bert_tokenizer(),
            student=make_student(teacher, 2),
            max_steps=2,
            **SGD,
            activation_checkpointing=checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": reentrant},
        )
        trainer.train()
        found.append(weights_of(trainer.model))
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], atol=1e-5, rtol=1e-4, msg=name)
