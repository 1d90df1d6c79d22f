"""Block states pooled in forward hooks equal those that a model returns itself."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from railkd.errors import RailkdError
from railkd.models.blocks import BlockReader, find_blocks, pool
from tiny import bert_config, make_model


def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    distil = DistilBertConfig(vocab_size=32, dim=16, hidden_dim=32, n_layers=3, n_heads=2, max_position_embeddings=32)
    albert = AlbertConfig(
        vocab_size=32,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
    )
    gpt = GPT2Config(vocab_size=32, n_embd=16, n_layer=3, n_head=2, n_positions=32, pad_token_id=0)
    return {
        "bert": make_model(3),
        "distilbert": DistilBertForSequenceClassification(distil).eval(),
        "albert": AlbertForSequenceClassification(albert).eval(),
        "gpt2": GPT2ForSequenceClassification(gpt).eval(),
    }


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> nn.Module:
    return models()[request.param]


TOKENS = torch.tensor([[2, 5, 6, 7, 3, 0, 0], [2, 9, 8, 7, 6, 5, 3]])
MASK = (TOKENS != 0).long()


@pytest.mark.parametrize("model", ["bert", "distilbert", "albert"], indirect=True)
@torch.no_grad()
def test_pooled_states_are_those_of_the_models_own_hidden_states(model: Any) -> None:
    reader = BlockReader(model, ("mean", "cls"))
    with reader.reading(MASK):
        out = model(TOKENS, attention_mask=MASK, output_hidden_states=True)
    assert tuple(reader.shape) == (3, 16)
    for name, states in reader.states().items():
        own = torch.stack([pool(h, MASK, name) for h in out.hidden_states[1:]], dim=1)  # without the embeddings
        torch.testing.assert_close(states, own)


@pytest.mark.parametrize("model", ["bert", "albert"], indirect=True)
@torch.no_grad()
def test_only_the_first_blocks_are_read_if_no_others_are_needed(model: Any) -> None:
    every, few = BlockReader(model), BlockReader(model, first=2)
    for reader in (every, few):
        with reader.reading(MASK):
            model(TOKENS, attention_mask=MASK)
    assert torch.equal(few.states()["mean"], every.states()["mean"][:, :2])
    with few.reading(MASK):
        few.blocks[0](torch.zeros(*MASK.shape, few.shape.width))
    with pytest.raises(RailkdError, match="Expected the output of 3 blocks, got 1"):
        few.states()


@pytest.mark.parametrize(("model", "edge"), [("bert", 0), ("gpt2", -1)], indirect=["model"])
@torch.no_grad()
def test_cls_is_the_first_token_of_an_encoder_and_the_last_real_one_of_a_causal_model(model: Any, edge: int) -> None:
    reader = BlockReader(model, ("cls",))
    with reader.reading(MASK):
        out = model(TOKENS, attention_mask=MASK, output_hidden_states=True)
    first = out.hidden_states[1]
    wanted = torch.stack([h[m.bool()][edge] for h, m in zip(first, MASK, strict=True)])
    torch.testing.assert_close(reader.states()["cls"][:, 0], wanted)


@pytest.mark.parametrize("model", ["bert"], indirect=True)
@torch.no_grad()
def test_reading_does_not_change_the_model(model: Any) -> None:
    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in model.modules())

    before, names, had = model(TOKENS, attention_mask=MASK).logits, list(model.state_dict()), hooks()
    reader = BlockReader(model)
    with reader.reading(MASK):
        during = model(TOKENS, attention_mask=MASK).logits
    with pytest.raises(ZeroDivisionError), reader.reading(MASK):
        raise ZeroDivisionError
    assert torch.equal(before, during) and names == list(model.state_dict())
    assert hooks() == had


@pytest.mark.parametrize("model", ["bert"], indirect=True)
@torch.no_grad()
def test_a_longer_batch_gives_the_same_states(model: Any) -> None:
    reader = BlockReader(model, ("mean", "cls"))
    found = []
    for tokens in (TOKENS[:1, :5], torch.cat([TOKENS, torch.zeros(2, 20, dtype=torch.long)], 1)):
        mask = (tokens != 0).long()
        with reader.reading(mask):
            model(tokens, attention_mask=mask)
        found.append({name: states[0] for name, states in reader.states().items()})
    for name in ("mean", "cls"):
        torch.testing.assert_close(found[0][name], found[1][name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", ["bert", "distilbert"], indirect=True)
def test_blocks_are_found_in_depth_order_or_by_name(model: Any) -> None:
    blocks = find_blocks(model)
    path = {"bert": r"bert\.encoder\.layer\.\d+", "distilbert": r"distilbert\.transformer\.layer\.\d+"}
    assert blocks == find_blocks(model, path[model.config.model_type]) and len(blocks) == 3


def test_a_list_of_unlike_modules_is_not_taken_for_the_blocks() -> None:
    model = BertForSequenceClassification(bert_config(2))
    model.extra = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])  # two modules of two types
    assert find_blocks(model) == list(model.bert.encoder.layer)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(RailkdError, match="cannot find the blocks of Linear"):
        find_blocks(nn.Linear(2, 2))
    with pytest.raises(RailkdError, match="matches no module of BertForSequenceClassification"):
        find_blocks(make_model(1), "no.such.module")
    with pytest.raises(RailkdError, match="unknown pooling 'means'.*Did you mean 'mean'"):
        pool(torch.zeros(1, 1, 1), torch.ones(1, 1), "means")


def test_states_without_a_pass_are_refused() -> None:
    with pytest.raises(RailkdError, match="Expected the output of 2 blocks, got 0"):
        BlockReader(make_model(2)).states()


class Operations(TorchDispatchMode):
    """Counts the operations of a pass by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Stack(nn.Module):
    """Blocks on a device without values, whose pass has no operations of its own but their products."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=blocks, hidden_size=3, is_encoder_decoder=False)
        self.layer = nn.ModuleList(nn.Linear(3, 3, device="meta") for _ in range(blocks))

    def forward(self, states: torch.Tensor) -> None:
        for block in self.layer:
            states = block(states)


def test_on_a_device_the_mask_is_tested_once_for_all_blocks() -> None:
    def counts(blocks: int) -> Counter[str]:
        model, mask = Stack(blocks), torch.ones(2, 5, device="meta")
        reader = BlockReader(model)
        with Operations() as found, reader.reading(mask):
            model(torch.ones(2, 5, 3, device="meta"))
        assert reader.states()["mean"].shape == (2, blocks, 3)
        return Counter(found.names)

    few, many = counts(2), counts(7)
    assert few["amax"] == many["amax"] == 1 and few["eq"] == many["eq"]
    assert (few["masked_fill"], many["masked_fill"]) == (2, 7)  # one for each block, so the blocks were pooled
