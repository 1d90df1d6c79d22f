"""A tiny teacher, its students, their tokenizer and rows: made in code, no network. Shared by every room of tests."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from railkd import DistillationTrainer, DistillationTrainingArguments, make_student
from railkd.data.keys import KEY
from railkd.data.tokens import TEACHER_PREFIX, keyed_tokens
from railkd.signals import Signals

WORDS = [
    "a",
    "the",
    "film",
    "plot",
    "actor",
    "scene",
    "music",
    "is",
    "was",
    "not",
    "very",
    "so",
    "good",
    "bad",
    "dull",
    "bright",
    "slow",
    "fast",
    "long",
    "short",
]
LABELS = {0: "neg", 1: "pos"}


def missing(what: str) -> NoReturn:
    """Skip a test for want of a tool or of data; where nothing may be missing (RAILKD_REQUIRE_ALL=1), fail it."""
    if os.environ.get("RAILKD_REQUIRE_ALL") == "1":
        pytest.fail(what)
    pytest.skip(what)


def make_tokenizer(words: list[str] | None = None) -> PreTrainedTokenizerFast:
    """One token per word, [CLS] before and [SEP] behind, as BERT has it."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(words or WORDS)])}
    rules = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=rules,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def bert_config(blocks: int = 4, *, width: int = 16, dropout: float = 0.1, **changes: Any) -> BertConfig:
    names: dict[str, Any] = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}
    return BertConfig(
        vocab_size=32,
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,  # wide: tiny models that tell texts apart
        **(names | changes),
    )


def make_model(blocks: int = 4, *, seed: int = 0, **config: Any) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(bert_config(blocks, **config)).eval()


def save(folder: Path, model: Any, tokenizer: Any = None) -> Path:
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files by their paths inside of a folder, and return the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def text_rows(count: int = 22, *, seed: int = 0, labels: str | None = "classes", **columns: list[Any]) -> Dataset:
    """Rows of 1 to 12 words, no two alike.

    ``labels``: ``classes``; ``some`` and ``numbers``, of which every third row has none; None: no column.
    """
    chance = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(chance.choices(WORDS, k=chance.randint(1, 12)))] = None
    values: dict[str | None, list[Any]] = {
        "classes": [chance.choice(["neg", "pos"]) for _ in texts],
        "some": [None if i % 3 == 1 else chance.choice(["neg", "pos"]) for i in range(count)],
        "numbers": [None if i % 3 == 1 else chance.random() for i in range(count)],
    }
    return Dataset.from_dict({"text": list(texts), **({} if labels is None else {"label": values[labels]}), **columns})


def batch_of(dataset: Any, tokenizer: Any, rows: list[int], *, max_length: int = 128) -> dict[str, Tensor]:
    """Return the inputs of a live teacher for chosen rows: its own padded tokens, and the keys."""
    tokens = keyed_tokens(dataset, tokenizer, max_length=max_length)
    padded = tokenizer.pad({name: [v[i] for i in rows] for name, v in tokens.inputs.items()}, return_tensors="pt")
    return {TEACHER_PREFIX + name: value for name, value in padded.items()} | {KEY: torch.from_numpy(tokens.keys[rows])}


class CountingBert(BertForSequenceClassification):
    """A teacher that knows how many rows it has read."""

    rows_read = 0

    def forward(self, input_ids: Tensor, **inputs: Any) -> Any:
        self.rows_read += len(input_ids)
        return super().forward(input_ids, **inputs)


class CountingTeacher:
    """A teacher, live or cached, that knows how often it was asked."""

    def __init__(self, teacher: Any) -> None:
        self.teacher, self.calls = teacher, 0
        self.info, self.poolings = teacher.info, teacher.poolings

    def __call__(self, batch: Mapping[str, Tensor], pooling: str | None) -> Signals:
        self.calls += 1
        return self.teacher(batch, pooling)


def arguments(folder: Path | str, **settings: Any) -> DistillationTrainingArguments:
    quiet: dict[str, Any] = {
        "output_dir": str(folder),
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "dataloader_pin_memory": False,
        "shared_size": 8 if str(settings.get("method", "rail-kd-l")).startswith("rail") else None,
    }
    return DistillationTrainingArguments(**(quiet | settings))


def make_trainer(
    folder: Path | str, teacher: Any, rows: Dataset, tokenizer: Any, *, student: Any = None, **settings: Any
) -> DistillationTrainer:
    """A trainer of ``student``; names of the trainer's own parameters are told apart from those of the arguments."""
    theirs = (
        "objective",
        "eval_dataset",
        "compute_metrics",
        "model_init",
        "data_collator",
        "teacher_processing_class",
        "callbacks",
    )
    given = {name: settings.pop(name) for name in theirs if name in settings}
    return DistillationTrainer(
        model=student,
        teacher_model=teacher,
        args=arguments(folder, **{"gauges": False} | settings),
        train_dataset=rows,
        processing_class=tokenizer,
        **given,
    )


def make_small(source: Any, blocks: int = 3, **config: Any) -> BertForSequenceClassification:
    """A student cut from ``source``; without dropout where asked: ``dropout=0.0``."""
    if "dropout" in config:
        rate = config.pop("dropout")
        config |= {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
    return make_student(source, blocks, **config)


def weights_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def losses(trainer: DistillationTrainer, name: str = "loss") -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]
