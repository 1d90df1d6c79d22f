"""The tested model families: for each a config small enough to build in code, and a tokenizer that fits it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from tiny import LABELS, WORDS

BLOCKS, WIDTH = 4, 16
#: Tests of equal numbers use plain gradient descent. Adam divides a gradient by its size, so a gradient that is zero up
#: to rounding (that of the bias of attention's keys) would become a full step in a random direction.
SGD: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.05}


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        model_type: as transformers calls it.
        config: entries of its config.
        sides: padding sides that do not change its numbers. Absolute positions count from the left edge and allow only
            "right".
        final_norm: name of the module between the last block and the last hidden state, in pre-norm models.
        template: special tokens around a text.
        pad: id of the padding token.
        causal: a token sees only the tokens before it.
        segments: it reads token types.
    """

    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    sides: tuple[str, ...] = ("right",)
    final_norm: str | None = None
    template: str | None = "[CLS] $A [SEP]"
    pad: int = 0
    causal: bool = False
    segments: bool = False


BERT_NAMES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,  # wide, so that tiny models give different texts different logits
}
T5_NAMES = {
    "d_model": WIDTH,
    "num_layers": BLOCKS,
    "num_heads": 2,
    "d_kv": 8,
    "d_ff": 32,
    "initializer_factor": 1.0,
    "eos_token_id": 3,
    "decoder_start_token_id": 0,
}
DISTIL_NAMES = {"dim": WIDTH, "n_layers": BLOCKS, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64}
XLM_NAMES = {
    "emb_dim": WIDTH,
    "n_layers": BLOCKS,
    "n_heads": 2,
    "n_words": 32,
    "max_position_embeddings": 64,
    "embed_init_std": 0.2,
    "init_std": 0.2,
    "pad_index": 0,
}
DISENTANGLED = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
}
BOTH = ("right", "left")
DECODER: dict[str, Any] = {"sides": BOTH, "final_norm": "model.norm", "template": None, "causal": True}

FAMILIES: dict[str, Family] = {
    "bert": Family("bert", BERT_NAMES, segments=True),
    "minilm": Family("bert", BERT_NAMES | {"num_attention_heads": 4, "layer_norm_eps": 1e-12}, segments=True),
    "roberta": Family("roberta", BERT_NAMES | {"max_position_embeddings": 66, "type_vocab_size": 1}, BOTH),
    "xlm-roberta": Family("xlm-roberta", BERT_NAMES | {"max_position_embeddings": 66, "type_vocab_size": 1}, BOTH),
    "distilbert": Family("distilbert", DISTIL_NAMES | {"initializer_range": 0.2}),
    "electra": Family("electra", BERT_NAMES | {"embedding_size": 8}, segments=True),
    "albert": Family("albert", BERT_NAMES | {"embedding_size": 8}, segments=True),
    "albert-two-groups": Family("albert", BERT_NAMES | {"embedding_size": 8, "num_hidden_groups": 2}, segments=True),
    "deberta-v2": Family("deberta-v2", BERT_NAMES | DISENTANGLED),
    "deberta-v3": Family(
        "deberta-v2",
        BERT_NAMES | DISENTANGLED | {"share_att_key": True, "position_biased_input": False, "type_vocab_size": 0},
        BOTH,
    ),
    "mpnet": Family("mpnet", BERT_NAMES | {"max_position_embeddings": 66}, BOTH, pad=1),
    "modernbert": Family(
        "modernbert",
        BERT_NAMES | {"global_attn_every_n_layers": 3, "local_attention": 4, "initializer_cutoff_factor": 2.0},
        BOTH,
        final_norm="model.final_norm",
    ),
    "llama": Family("llama", BERT_NAMES | {"num_key_value_heads": 1}, **DECODER),
    "qwen2": Family("qwen2", BERT_NAMES | {"num_key_value_heads": 1}, **DECODER),
    "qwen3": Family("qwen3", BERT_NAMES | {"num_key_value_heads": 1, "head_dim": 8}, **DECODER),
    # Causal, but nothing in their first block says so.
    "bloom": Family(
        "bloom",
        {"hidden_size": WIDTH, "n_layer": BLOCKS, "n_head": 2, "initializer_range": 0.2},
        **DECODER | {"final_norm": "transformer.ln_f"},
    ),
    "mpt": Family(
        "mpt",
        {"d_model": WIDTH, "n_layers": BLOCKS, "n_heads": 2, "max_seq_len": 64, "initializer_range": 0.2},
        **DECODER | {"final_norm": "transformer.norm_f"},
    ),
    # Each part of their blocks is in a list of its own.
    "xlm": Family("xlm", XLM_NAMES),
    "flaubert": Family("flaubert", XLM_NAMES),
    "t5": Family("t5", T5_NAMES, final_norm="transformer.encoder.final_layer_norm", template="$A [SEP]"),
}


def make_tokenizer(family: Family, side: str = "right", words: list[str] | None = None) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token per word and the special tokens of the family."""
    special = ["[CLS]", "[UNK]", "[SEP]"]
    special.insert(family.pad, "[PAD]")
    vocabulary = {word: i for i, word in enumerate([*special, *(words or WORDS)])}
    rules = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    if family.template is not None:
        named = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]") if name in family.template]
        rules.post_processor = TemplateProcessing(single=family.template, special_tokens=named)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=rules,
        pad_token="[PAD]",
        unk_token="[UNK]",
        padding_side=side,
        model_input_names=inputs if family.segments else [name for name in inputs if name != "token_type_ids"],
    )


def make_model(family: Family, *, seed: int = 0, **changes: Any) -> Any:
    """Make a sequence classifier of the family with random weights, in evaluation mode."""
    special = {
        "pad_token_id": family.pad,
        "bos_token_id": None,
        "eos_token_id": 3,
        "cls_token_id": 2,
        "sep_token_id": 3,
    }
    names = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}
    config = AutoConfig.for_model(family.model_type, **({"vocab_size": 32} | special | names | family.config | changes))
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(config).eval()
