"""A student has exactly the chosen blocks of its source, the embeddings and the head."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from railkd import make_student
from railkd.errors import RailkdError
from railkd.models.starts import RULES, blocks_to_keep
from tiny import make_model, save

KEEP = {"even": (1, 2, 4), "spaced": (1, 3, 4), "first": (1, 2, 3), "last": (2, 3, 4), "explicit": (1, 3, 4)}


@pytest.mark.parametrize("depth", range(1, 49))
def test_each_rule_keeps_rising_blocks_of_the_source(depth: int) -> None:
    for layers in range(1, depth + 1):
        kept = {rule: blocks_to_keep(layers, depth, rule) for rule in RULES}
        for blocks in kept.values():
            assert (
                len(blocks) == layers and sorted(set(blocks)) == list(blocks) and blocks[0] >= 1 and blocks[-1] <= depth
            )
        assert kept["even"][-1] == kept["spaced"][-1] == kept["last"][-1] == depth and kept["first"][0] == 1
        gaps = [after - before for before, after in itertools.pairwise(kept["even"])]
        assert max(gaps, default=0) - min(gaps, default=0) <= 1  # evenly between the first and the last
        if layers > 1:  # the first one stands in the middle of the first n/s blocks
            assert abs(kept["even"][0] - depth / (2 * layers)) <= 0.5


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        (6, (1, 3, 6)),
        (6, (2, 6)),
        (6, (6,)),
        (12, (1, 3, 5, 8, 10, 12)),  # what DistilBERT's authors keep, counted from 1
        (12, (2, 5, 9, 12)),
        (12, (2, 7, 12)),
        (4, (1, 2, 3, 4)),
    ],
)
def test_even_by_hand(depth: int, blocks: tuple[int, ...]) -> None:
    assert blocks_to_keep(len(blocks), depth) == blocks_to_keep(len(blocks), depth, "even") == blocks


def test_spaced_is_the_rule_of_the_first_version() -> None:
    assert blocks_to_keep(6, 12, "spaced") == (2, 4, 6, 8, 10, 12)
    assert blocks_to_keep(3, 6, "spaced") == (2, 4, 6)
    assert blocks_to_keep(2, 6, "spaced") == (3, 6)
    assert blocks_to_keep(4, 4, "spaced") == (1, 2, 3, 4)


@pytest.mark.parametrize("rule", list(KEEP))
@pytest.mark.parametrize("source", ["folder", "module"])
def test_a_student_has_exactly_the_chosen_blocks_the_embeddings_and_the_head(
    rule: str, source: str, teacher_folder: Path
) -> None:
    teacher: Any = AutoModelForSequenceClassification.from_pretrained(teacher_folder)
    blocks = KEEP[rule]
    keep: Any = list(blocks) if rule == "explicit" else rule
    student = make_student(teacher_folder if source == "folder" else teacher, num_layers=3, keep=keep)
    assert student.config.num_hidden_layers == len(student.bert.encoder.layer) == 3
    theirs, ours = teacher.state_dict(), student.state_dict()
    for name, tensor in ours.items():
        head, found, tail = name.partition("encoder.layer.")
        if found:
            place, _, rest = tail.partition(".")
            name = f"{head}{found}{blocks[int(place)] - 1}.{rest}"
        assert torch.equal(tensor, theirs[name]), name
    assert student.config.id2label == teacher.config.id2label


def test_a_student_of_all_blocks_is_its_source(teacher_folder: Path) -> None:
    teacher = AutoModelForSequenceClassification.from_pretrained(teacher_folder).eval()
    tokens = torch.tensor([[2, 5, 6, 3]])
    assert torch.equal(make_student(teacher_folder, 4).eval()(tokens).logits, teacher(tokens).logits)


def test_training_a_student_does_not_change_its_source() -> None:
    teacher = make_model()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = make_student(teacher, 2)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert teacher.config.num_hidden_layers == 4


def test_a_bare_encoder_gives_its_blocks_and_a_new_head_of_the_size_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = BertModel(make_model().config)
    for source in (encoder, save(tmp_path / "encoder", encoder)):
        student = make_student(source, 2, num_labels=5)
        assert student.classifier.weight.shape == (5, 16)
        for place, block in enumerate(blocks_to_keep(2, 4)):
            theirs = encoder.encoder.layer[block - 1].state_dict()
            ours = student.bert.encoder.layer[place].state_dict()
            assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
        assert torch.equal(student.bert.embeddings.word_embeddings.weight, encoder.embeddings.word_embeddings.weight)


def test_a_head_that_does_not_fit_is_drawn_anew(teacher_folder: Path) -> None:
    student = make_student(teacher_folder, 2, num_labels=7)
    assert student.classifier.weight.shape == (7, 16) and student.classifier.weight.isfinite().all()


def test_the_blocks_of_other_families_are_chosen_alike() -> None:
    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=32, dim=16, hidden_dim=32, n_layers=4, n_heads=2, max_position_embeddings=32)
    teacher = DistilBertForSequenceClassification(config)
    student = make_student(teacher, 2)
    first = blocks_to_keep(2, 4)[0]
    ours, theirs = student.distilbert.transformer.layer[0], teacher.distilbert.transformer.layer[first - 1]
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert student.config.n_layers == student.config.num_hidden_layers == 2


def test_a_saved_student_loads_with_the_same_weights(tmp_path: Path, teacher_folder: Path) -> None:
    student = make_student(teacher_folder, 2)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(
        save(tmp_path / "student", student), output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert all(torch.equal(tensor, student.state_dict()[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("layers", "keep", "said"),
    [
        (0, "even", "a student of at least 1 block, got 0"),
        (5, "even", "a student of at most 4 blocks.* got 5"),
        (2, "evn", "keep to be even, spaced, first, last or .* got 'evn'"),
        (2, [1, 2, 3], "Expected 2 rising numbers from 1 to 4"),
        (2, [2, 1], "Expected 2 rising numbers"),
        (2, [0, 1], "Expected 2 rising numbers"),
        (2, [4, 5], "Expected 2 rising numbers"),
    ],
)
def test_impossible_students_are_refused(teacher_folder: Path, layers: int, keep: Any, said: str) -> None:
    with pytest.raises(RailkdError, match=said):
        make_student(teacher_folder, layers, keep=keep)


def test_folders_that_hold_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RailkdError, match="holds no model"):
        make_student(tmp_path, 1)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RailkdError, match="holds no model weights"):
        make_student(tmp_path, 1)
    with pytest.raises(RailkdError, match="no such folder"):
        make_student(tmp_path / "nowhere", 1)
    with pytest.raises(RailkdError, match="got the file"):
        make_student(tmp_path / "config.json", 1)
