"""Pairs of models with random weights, a tokenizer, and rows of random tokens: the material of every part.

Nothing is downloaded. Rows are made of tokens directly. Their lengths are drawn from `lengths.json`, the lengths of the
demo's movie sentences.
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
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from railkd import TeacherCache
from tiny import make_tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
#: The longest row of a batch is a multiple of this, where batches are taken in the order of the rows.
MULTIPLE = 16


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
    """A teacher and a student to copy, both on the device, and rows.

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

        def model(blocks: int) -> BertForSequenceClassification:
            config = BertConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.width,
                num_hidden_layers=blocks,
                num_attention_heads=shape.heads,
                intermediate_size=shape.inner,
                **labels,
            )
            with device:  # random numbers are drawn there: of BERT-base a CPU draws them in seconds
                return BertForSequenceClassification(config)

        self.teacher = model(shape.blocks).eval()
        self._student = model(shape.student_blocks)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token a word, with [CLS] before and [SEP] behind."""
        return make_tokenizer([f"w{i}" for i in range(len(SPECIAL), self.shape.vocabulary)])

    def student(self) -> BertForSequenceClassification:
        """Return a fresh student on the device; all are equal."""
        return copy.deepcopy(self._student)

    def rows(self, count: int, seed: int = 0, batch: int = 0) -> Dataset:
        """Return rows of random tokens, each with a label and a number as its key.

        Args:
            batch: the first of each so many rows is lengthened to a multiple of 16 tokens, beyond the others; 0: none.
        """
        rng = np.random.default_rng(seed)
        table = {int(length): number for length, number in lengths().items()}
        drawn = rng.choice(list(table), count, p=np.asarray(list(table.values())) / sum(table.values()))
        for start in range(0, count, batch) if batch else ():
            drawn[start] = -(-int(drawn[start : start + batch].max()) // MULTIPLE) * MULTIPLE
        words = [rng.integers(len(SPECIAL), self.shape.vocabulary, length - 2).tolist() for length in drawn]
        cls, sep = SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")
        return Dataset.from_dict(
            {
                "input_ids": [[cls, *some, sep] for some in words],
                "token_type_ids": [[0] * length for length in drawn],
                "attention_mask": [[1] * length for length in drawn],
                "labels": rng.integers(0, 2, count).tolist(),
                "length": drawn.tolist(),
                "example_key": list(range(count)),
            }
        )

    def cache(self, rows: Dataset, folder: Path) -> TeacherCache:
        """Build the teacher's cache of rows, with both poolings."""
        return TeacherCache.build(
            self.teacher, rows, folder, tokenizer=self.tokenizer, pooling=("mean", "cls"), bf16=self.bf16
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
