"""Laws of each family: its blocks are read, students are cut from it, and cache and live training are equal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from models.families.table import BLOCKS, FAMILIES, SGD, WIDTH, Family, make_model, make_tokenizer
from railkd import make_student
from railkd.models.blocks import BlockReader, find_blocks, pool
from railkd.models.starts import blocks_to_keep
from railkd.teacher import LiveTeacher, TeacherCache
from thorough import unless
from tiny import losses, make_trainer, save, text_rows, weights_of

TEXTS = ["a film", "the plot was very dull and so the actor", "music so bright a scene"]


def inputs_of(tokenizer: Any, texts: list[str], **padding: Any) -> dict[str, Tensor]:
    return dict(tokenizer(texts, return_tensors="pt", **({"padding": True} | padding)))


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@torch.no_grad()
def test_pooled_states_are_those_of_the_models_own_hidden_states(family: Family) -> None:
    model = make_model(family)
    for side in family.sides:
        inputs = inputs_of(make_tokenizer(family, side), TEXTS)
        mask = inputs["attention_mask"]
        reader = BlockReader(model, ("mean", "cls"))
        last: list[Tensor] = []
        handle = reader.blocks[-1].register_forward_hook(lambda _m, _i, out, last=last: last.append(out))
        with reader.reading(mask):
            out = model(**inputs, output_hidden_states=True)
        handle.remove()
        hidden = list(getattr(out, "hidden_states", None) or out.encoder_hidden_states)[1:]
        if family.final_norm is not None:  # the model's last hidden state comes after that norm
            raw = last[-1][0] if isinstance(last[-1], tuple) else last[-1]
            torch.testing.assert_close(model.get_submodule(family.final_norm)(raw), hidden[-1])
            hidden[-1] = raw
        assert reader.shape == (BLOCKS, WIDTH) == (len(hidden), hidden[0].shape[-1])
        assert reader.causal == family.causal
        for name, states in reader.states().items():
            own = torch.stack([pool(h, mask, name, causal=family.causal) for h in hidden], dim=1)
            torch.testing.assert_close(states, own)
        token = torch.stack([h[m.bool()][-1 if family.causal else 0] for h, m in zip(hidden[0], mask, strict=True)])
        torch.testing.assert_close(reader.states()["cls"][:, 0], token)


@torch.no_grad()
def test_padding_changes_nothing(family: Family) -> None:
    model = make_model(family)
    alone = [inputs_of(make_tokenizer(family), [text]) for text in TEXTS]
    teacher = LiveTeacher(model, poolings=("mean", "cls"))
    wanted = [teacher.run(inputs, ("mean", "cls")) for inputs in alone]
    for side in family.sides:
        for more in ({}, {"padding": "max_length", "max_length": 24}):
            logits, states = teacher.run(inputs_of(make_tokenizer(family, side), TEXTS, **more), ("mean", "cls"))
            for row, (own, pooled) in enumerate(wanted):
                if side == "right" or family.causal:  # an encoder's head reads the first token, also if it is padding
                    torch.testing.assert_close(logits[row], own[0], atol=1e-5, rtol=1e-5)
                for name in ("mean", "cls"):
                    torch.testing.assert_close(states[name][row], pooled[name][0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(wanted[0][0], wanted[1][0], atol=1e-3)  # the logits depend on the text


@torch.no_grad()
@pytest.mark.parametrize(
    "keep", unless(lambda keep: keep == "even", ["even", "spaced", "first", "last", [1, 3]]), ids=str
)
def test_a_student_has_the_chosen_blocks_the_embeddings_and_the_head(family: Family, keep: Any) -> None:
    teacher = make_model(family)
    student = make_student(teacher, 2, keep)
    chosen = blocks_to_keep(2, BLOCKS, keep)
    ours, theirs = student.state_dict(), teacher.state_dict()
    shared = getattr(teacher.config, "num_hidden_groups", None)
    for name, tensor in ours.items():
        place = re.search(r"\.(?:layer|layers|block|blocks|h|attentions|ffns|layer_norm[12])\.(\d+)\.", name)
        source = name
        if place and not shared:
            old = chosen[int(place[1])] - 1
            if name.endswith("relative_attention_bias.weight"):
                old = 0  # T5 keeps it in its first block, for all blocks
            source = f"{name[: place.start(1)]}{old}{name[place.end(1) :]}"
        torch.testing.assert_close(tensor, theirs[source], atol=0, rtol=0, msg=name)
    config, before = student.config, teacher.config
    assert config.num_hidden_layers == 2 and BlockReader(student).shape == (2, WIDTH)
    assert config.id2label == before.id2label and config.num_labels == 2
    if getattr(before, "layer_types", None):
        assert config.layer_types == [before.layer_types[block - 1] for block in chosen]
    if family.model_type == "t5":
        assert config.num_decoder_layers == 2 and before.num_decoder_layers == BLOCKS


@torch.no_grad()
def test_a_saved_student_is_a_plain_transformers_model(family: Family, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(family)
    student = make_student(save(tmp_path / "teacher", make_model(family), tokenizer), 2).eval()
    loaded, report = AutoModelForSequenceClassification.from_pretrained(
        save(tmp_path / "student", student, tokenizer), output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    inputs = inputs_of(tokenizer, TEXTS)
    assert torch.equal(loaded.eval()(**inputs).logits, student(**inputs).logits)


def test_a_student_of_all_blocks_is_its_source(family: Family) -> None:
    teacher = make_model(family)
    inputs = inputs_of(make_tokenizer(family), TEXTS)
    with torch.no_grad():
        assert torch.equal(make_student(teacher, BLOCKS).eval()(**inputs).logits, teacher(**inputs).logits)


#: Two encoders, one whose blocks share weights, a decoder, and one with an encoder and a decoder.
TELLING = {"bert", "roberta", "albert-two-groups", "llama", "t5"}


@pytest.mark.parametrize("name", unless(TELLING.__contains__, FAMILIES))
def test_distilling_is_alike_from_a_cache_and_live(name: str, tmp_path: Path) -> None:
    family, rows = FAMILIES[name], text_rows(10)
    teacher, tokenizer = make_model(family), make_tokenizer(family, "left" if family.causal else "right")
    cache = TeacherCache.build(teacher, rows, tmp_path / "cache", tokenizer=tokenizer, dtype="float32", batch_size=4)
    found = []
    for source in (cache, teacher):
        student = make_student(teacher, 2)
        before = weights_of(student)
        trainer = make_trainer(tmp_path, source, rows, tokenizer, student=student, max_steps=3, **SGD)
        projections = {name: p.detach().clone() for name, p in trainer.model.objective.named_parameters()}
        trainer.train()
        assert torch.tensor(losses(trainer)).isfinite().all() and len(losses(trainer)) == 3
        first = find_blocks(student)[0]
        place = next(name for name, module in student.named_modules() if module is first)
        moved = [name for name, tensor in weights_of(student).items() if not torch.equal(tensor, before[name])]
        assert any(name.startswith(place) for name in moved)
        assert not [n for n, p in trainer.model.objective.named_parameters() if torch.equal(p, projections[n])]
        found.append((losses(trainer), weights_of(trainer.model)))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    for name, tensor in found[0][1].items():
        torch.testing.assert_close(tensor, found[1][1][name], atol=1e-5, rtol=1e-4, msg=name)
