"""What every part works on: pairs of models with random weights, a tokenizer, and rows of random words.

Nothing is downloaded. Lengths are drawn from `lengths.json`, the lengths of the demo's movie sentences.
"""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from railkd import TeacherCache, make_student

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True)
class Shape:
    """The sizes of a teacher, and the number of blocks of its student."""

    blocks: int
    student_blocks: int
    width: int
    heads: int
    inner: int
    vocabulary: int = 30_522


SHAPES = {"BERT-base 12->6": Shape(12, 6, 768, 12, 3072), "MiniLM 6->3": Shape(6, 3, 384, 12, 1536)}
#: For --quick: the same program, in seconds on a CPU.
SMALL = {"BERT-base 12->6": Shape(6, 3, 128, 4, 128, 1000), "MiniLM 6->3": Shape(4, 2, 128, 4, 128, 1000)}


class Pair:
    """A teacher on the CPU, a student to copy, and rows.

    Args:
        name: of the pair. shape: its sizes. device: where models run. seed: of weights and rows.
    """

    def __init__(self, name: str, shape: Shape, device: torch.device, seed: int = 0) -> None:
        self.name, self.shape, self.device = name, shape, device
        self.bf16 = device.type == "cuda"
        torch.manual_seed(seed)
        labels: dict[str, Any] = {
            "id2label": {0: "negative", 1: "positive"},
            "label2id": {"negative": 0, "positive": 1},
        }
        config = BertConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            num_hidden_layers=shape.blocks,
            num_attention_heads=shape.heads,
            intermediate_size=shape.inner,
            **labels,
        )
        self.teacher = BertForSequenceClassification(config).eval()
        self._student = make_student(self.teacher, shape.student_blocks)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token a word, with [CLS] before and [SEP] behind."""
        words = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), self.shape.vocabulary))]
        rules = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
        rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        rules.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        return PreTrainedTokenizerFast(
            tokenizer_object=rules,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        )

    def student(self) -> BertForSequenceClassification:
        """Return a fresh student on the device; all are equal."""
        student: BertForSequenceClassification = copy.deepcopy(self._student).to(self.device)
        return student

    @contextlib.contextmanager
    def teacher_on_device(self) -> Iterator[BertForSequenceClassification]:
        """Hold the teacher on the device, and only there, for a while."""
        try:
            yield self.teacher.to(self.device)
        finally:
            self.teacher.to("cpu")

    def texts(self, count: int, seed: int = 0) -> Dataset:
        """Return rows of text and label."""
        rng = np.random.default_rng(seed)
        table = {int(length): number for length, number in lengths().items()}
        chances = np.asarray(list(table.values())) / sum(table.values())
        texts = []
        for length in rng.choice(list(table), count, p=chances):
            words = rng.integers(len(SPECIAL), self.shape.vocabulary, length - 2)
            texts.append(" ".join(f"w{word}" for word in words))
        return Dataset.from_dict({"text": texts, "label": rng.integers(0, 2, count).tolist()})

    def tokens(self, texts: Dataset) -> Dataset:
        """Return the same rows tokenised beforehand, each with a number as its key."""
        encoded = self.tokenizer(texts["text"][:])
        columns = {name: encoded[name] for name in self.tokenizer.model_input_names}
        columns["labels"] = texts["label"][:]
        columns["length"] = [len(ids) for ids in columns["input_ids"]]
        return Dataset.from_dict(columns | {"example_key": list(range(len(texts)))})

    def cache(self, rows: Dataset, folder: Path) -> TeacherCache:
        """Build the teacher's cache of rows, with both poolings."""
        with self.teacher_on_device() as teacher:
            return TeacherCache.build(
                teacher, rows, folder, tokenizer=self.tokenizer, pooling=("mean", "cls"), bf16=self.bf16
            )


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="railkd-gpu-") as folder:
        yield Path(folder)


def lengths() -> dict[str, int]:
    """Return the histogram of lengths in tokens, special ones included."""
    table = json.loads((Path(__file__).parent / "lengths.json").read_text(encoding="utf-8"))
    counts: dict[str, int] = table["count_of_length"]
    return counts


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
