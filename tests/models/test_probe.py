"""The token that `cls` reads, and the blocks of a model with several lists, are found by what the model does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from models.families.table import FAMILIES, make_model
from railkd import make_student
from railkd.errors import RailkdError
from railkd.models.blocks import BlockReader, find_blocks
from railkd.models.probe import is_causal
from tiny import make_model as make_bert
from tiny import weights_of

SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 32}
GROUPED = SIZES | {"num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
EXPERTS = GROUPED | {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
BART = {"d_model": 16, "encoder_layers": 4, "decoder_layers": 2, "encoder_attention_heads": 2, "vocab_size": 32}
#: Families beside those of the table: config, and whether they are causal.
MORE: dict[str, tuple[dict[str, Any], bool]] = {
    "doge": (GROUPED, True),
    "qwen3_next": (EXPERTS | LINEAR | {"shared_expert_intermediate_size": 16}, True),
    "qwen3_5_text": (GROUPED | LINEAR, True),
    "openai-gpt": ({"n_embd": 16, "n_layer": 4, "n_head": 2, "vocab_size": 32, "n_positions": 32}, True),
    "gpt_neox": (SIZES, True),
    "opt": (SIZES | {"ffn_dim": 32, "word_embed_proj_dim": 16, "pad_token_id": 0}, True),
    "nomic_bert": (SIZES, False),
    "fnet": (SIZES, False),
    "convbert": (SIZES | {"embedding_size": 16}, False),
    "bart": (
        {"d_model": 16, "encoder_layers": 4, "decoder_layers": 2, "encoder_attention_heads": 2, "vocab_size": 32},
        False,
    ),
}


def model_of(name: str, **changes: Any) -> Any:
    if name in FAMILIES:
        return make_model(FAMILIES[name], **changes)
    config = AutoConfig.for_model(name, num_labels=2, **{"pad_token_id": 0} | MORE[name][0] | changes)
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval()


EVERY = {name: family.causal for name, family in FAMILIES.items()} | {name: row[1] for name, row in MORE.items()}


@torch.no_grad()
def cls_states(model: Any, tokens: list[int]) -> torch.Tensor:
    """Return the states (n, d) that ``cls`` reads of a text."""
    reader = BlockReader(model, ("cls",))
    ids = torch.tensor([tokens])
    with reader.reading(torch.ones_like(ids)):
        inside = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
        inside(input_ids=ids, attention_mask=torch.ones_like(ids))
    return reader.states()["cls"][0]


@pytest.mark.parametrize("name", EVERY)
def test_cls_depends_on_the_whole_text(name: str) -> None:
    """Texts of one first token, or of one last token, have other states: no text is summed up by a constant."""
    model = model_of(name)
    assert BlockReader(model, ("cls",)).causal == EVERY[name]
    plain = cls_states(model, [9, 11, 13, 14])[-1]
    for tokens in ([9, 11, 13, 20], [20, 11, 13, 14]):
        assert (cls_states(model, tokens)[-1] - plain).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["bert", "llama", "xlm", "t5"])
def test_a_probe_changes_nothing(name: str) -> None:
    model = model_of(name).train()
    next(iter(model.children())).eval()  # a part that its owner keeps in evaluation mode
    modes, weights = [module.training for module in model.modules()], weights_of(model)
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    torch.manual_seed(3)
    BlockReader(model, ("cls", "mean"))
    after = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2), after)
    assert [module.training for module in model.modules()] == modes
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_several_tokens_may_end_a_text() -> None:
    model = model_of("llama", eos_token_id=[1, 2, 3])
    assert is_causal(model, find_blocks(model))


def test_a_model_whose_tokens_do_not_see_each_other_has_no_cls() -> None:
    model = make_bert(2)
    with torch.no_grad():
        for block in find_blocks(model):
            block.attention.output.dense.weight.zero_()  # type: ignore[union-attr,operator]
    with pytest.raises(RailkdError, match="cannot pool BertForSeq.* by cls.*Fix: use the pooling mean"):
        BlockReader(model, ("cls",))
    assert BlockReader(model, ("mean",)).shape == (2, 16)


def test_a_model_that_needs_more_than_tokens_is_refused_only_for_cls() -> None:
    class Pictures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.config = make_bert(2), make_bert(2).config

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, pixels: torch.Tensor) -> Any:
            return self.inside(input_ids=input_ids, attention_mask=attention_mask)

    model = Pictures()
    with pytest.raises(RailkdError, match="cannot run Pictures on plain tokens"):
        is_causal(model, find_blocks(model))
    assert BlockReader(model).shape == (2, 16)


@pytest.mark.parametrize("name", ["xlm", "flaubert"])
def test_blocks_in_several_lists_are_read_at_the_one_with_the_hidden_states(name: str) -> None:
    model = model_of(name)
    assert find_blocks(model) == list(model.transformer.layer_norm2)
    pattern = r"transformer\.layer_norm2\.\d+"
    by_name, found = make_student(model, 2, blocks=pattern), make_student(model, 2)
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in by_name.state_dict().items())


def test_lists_without_the_hidden_states_are_refused() -> None:
    """Before its norm, FlauBERT adds to the states outside of any module."""
    model = model_of("flaubert", pre_norm=True)
    with pytest.raises(RailkdError, match=r"attentions.* are equally long, and none .* Fix: name the blocks"):
        find_blocks(model)
    with pytest.raises(RailkdError, match="are equally long"):
        make_student(model, 2)


#: Family, changes of its config, and a pattern that names the modules behind which the family's own hidden states are.
BEHIND = {
    "llama": ({}, r"model\.layers\.[0-2]|model\.norm"),
    "modernbert": ({}, r"model\.layers\.[0-2]|model\.final_norm"),
    "deberta-v2": ({"conv_kernel_size": 3}, r"deberta\.encoder\.(conv|layer\.[1-3])"),
}


@pytest.mark.parametrize("name", BEHIND)
@torch.no_grad()
def test_a_pattern_reads_states_behind_the_final_norm_or_a_convolution(name: str) -> None:
    changes, pattern = BEHIND[name]
    model, ids = model_of(name, **changes), torch.tensor([[9, 11, 13, 14], [5, 6, 7, 8]])
    for blocks in (pattern, None):
        reader = BlockReader(model, ("cls", "mean"), blocks)
        with reader.reading(torch.ones_like(ids)):
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
        wanted = torch.stack([states.mean(1) for states in hidden[1:]], dim=1)
        assert torch.allclose(reader.states()["mean"], wanted, atol=1e-6) == (blocks is not None)
