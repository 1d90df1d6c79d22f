"""Caches made of numbers, and of a teacher that counts what it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from railkd.data.keys import KEY, example_key
from railkd.data.tokens import keyed_tokens
from railkd.teacher import CacheWriter, TeacherCache, TeacherInfo
from railkd.teacher.identity import Identity
from tiny import CountingBert

INFO = TeacherInfo(blocks=3, width=4, labels=("neg", "pos"), problem_type="single_label_classification", max_length=128)


def identity(dtype: str = "float32", **changes: Any) -> Identity:
    parts: dict[str, Any] = {
        "weights": "w",
        "config": {"a": 1},
        "tokenizer": "t",
        "max_length": 128,
        "precision": "float32",
    }
    return Identity(**(parts | {"states_dtype": dtype, "versions": {}} | changes))


def signals(rows: int, *, start: int = 0, size: float = 1.0) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Keys, logits and states of rows start .. start + rows: a function of the row's number alone."""
    numbers = [np.random.default_rng(i) for i in range(start, start + rows)]
    keys = np.asarray([example_key(f"row {i}") for i in range(start, start + rows)], dtype=np.int64)
    logits = np.stack([rng.normal(size=2) for rng in numbers]).astype(np.float32)
    states = {
        name: np.stack([rng.normal(size=(3, 4)) * size for rng in numbers]).astype(np.float32)
        for name in ("mean", "cls")
    }
    return keys, logits, states


def write(folder: Path, *parts: tuple[Any, ...], dtype: str = "float32") -> TeacherCache:
    """A cache with one shard for each part."""
    with CacheWriter(folder, INFO, identity(dtype), ("mean", "cls")) as writer:
        for part in parts:
            writer.add(*part)
            writer.flush()
    return TeacherCache.open(folder)


def read(cache: TeacherCache, keys: np.ndarray, poolings: tuple[str, ...] = ("mean", "cls")) -> dict[str, np.ndarray]:
    """Everything the cache holds of these rows."""
    batch = {KEY: torch.from_numpy(keys.copy())}
    signals = {name: cache(batch, name) for name in poolings}
    found = {name: both.states.float().numpy() for name, both in signals.items() if both.states is not None}
    return found | {"logits": cache(batch, None).logits.numpy()}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def rows_read(
    teacher: CountingBert, dataset: Dataset, folder: Path, tokenizer: Any, **options: Any
) -> tuple[int, TeacherCache]:
    before = teacher.rows_read
    cache = TeacherCache.build(teacher, dataset, folder, tokenizer=tokenizer, **options)
    return teacher.rows_read - before, cache


def keys_of(dataset: Dataset, tokenizer: Any) -> np.ndarray:
    return keyed_tokens(dataset, tokenizer, max_length=128).keys


def read_all(
    cache: TeacherCache, rows: Dataset, tokenizer: Any, poolings: tuple[str, ...] = ("mean", "cls")
) -> dict[str, np.ndarray]:
    return read(cache, keys_of(rows, tokenizer), poolings)
