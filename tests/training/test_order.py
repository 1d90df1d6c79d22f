"""The order of rows as the dataloader really gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

import tiny
from railkd.errors import RailkdError
from railkd.jobs.contents import changed_settings


def lengths_of_batches(trainer: Any) -> list[list[int]]:
    return [batch["attention_mask"].sum(dim=1).tolist() for batch in trainer.get_train_dataloader()]


def spread(batches: list[list[int]]) -> float:
    return float(np.mean([max(batch) - min(batch) for batch in batches if len(batch) == 4]))


def test_training_batches_hold_rows_of_like_length(
    tmp_path: Path, teacher_folder: Path, tokenizer: Any, rows: Dataset
) -> None:
    many = tiny.text_rows(64)
    options: dict[str, Any] = {"method": "finetune", "per_device_train_batch_size": 4}
    student = tiny.make_small(teacher_folder)
    grouped = tiny.make_trainer(tmp_path / "a", None, many, tokenizer, student=student, **options)
    mixed = tiny.make_trainer(tmp_path / "b", None, many, tokenizer, student=student, length_groups=False, **options)
    assert spread(lengths_of_batches(grouped)) < 0.5 * spread(lengths_of_batches(mixed))
    flat = sorted(length for batch in lengths_of_batches(grouped) for length in batch)
    assert flat == sorted(length for batch in lengths_of_batches(mixed) for length in batch)


@pytest.mark.parametrize(("old", "word"), [(True, "pools"), (False, "none")])
def test_the_old_switch_is_the_word(tmp_path: Path, old: bool, word: str) -> None:
    assert tiny.arguments(tmp_path, length_groups=old).length_groups == word
    assert changed_settings({"length_groups": old}, {"length_groups": word}, free=()) == []
    assert changed_settings({"length_groups": old}, {"length_groups": "split"}, free=())


def test_parts_are_not_compiled(tmp_path: Path) -> None:
    with pytest.raises(RailkdError, match="length_groups split with torch_compile"):
        tiny.arguments(tmp_path, length_groups="split", torch_compile=True)
