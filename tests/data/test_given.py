"""Rows that a Python caller gives: every form of the same rows is the same data set, and other objects are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict, IterableDataset

from railkd.data.given import as_dataset
from railkd.errors import RailkdError
from railkd.teacher import TeacherCache
from tiny import make_model, make_trainer

TEXTS, LABELS = ["a good film", "the plot was dull", "so slow"], ["pos", "neg", "neg"]
COLUMNS: dict[str, list[Any]] = {"text": TEXTS, "label": LABELS}
DICTS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
FORMS: dict[str, Any] = {
    "Dataset": Dataset.from_dict(COLUMNS),
    "list": DICTS,
    "tuple": tuple(DICTS),
    "frame": pd.DataFrame(COLUMNS, index=[7, 3, 9]),
}
by_form = pytest.mark.parametrize("form", FORMS)


@by_form
def test_every_form_of_the_same_rows_is_one_data_set(form: str) -> None:
    assert as_dataset(FORMS[form])[:] == COLUMNS


def test_columns_of_any_row_and_texts_alone_are_kept() -> None:
    assert as_dataset([{"text": "a"}, {"text": "b", "label": 1}])[:] == {"text": ["a", "b"], "label": [None, 1]}
    assert as_dataset(TEXTS)[:] == {"text": TEXTS}


@by_form
def test_a_cache_and_training_read_every_form(tmp_path: Path, tokenizer: Any, form: str) -> None:
    teacher = make_model(2, width=8)
    cache = TeacherCache.build(teacher, FORMS[form], tmp_path / "cache", tokenizer=tokenizer)
    assert cache.rows == 3
    rows = FORMS[form]
    trainer = make_trainer(
        tmp_path, cache, rows, tokenizer, student=make_model(1, width=8), method="kd", eval_dataset=rows
    )
    assert len(trainer.train_dataset) == 3 and np.isfinite(trainer.evaluate()["eval_loss"])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            DatasetDict(first=FORMS["Dataset"], second=FORMS["Dataset"]),
            "the splits first and second. .*dataset\\['first'\\]",
        ),
        (IterableDataset.from_generator(lambda: iter(DICTS)), "got a stream .IterableDataset."),
        ([], "at least one row"),
        (pd.DataFrame({"text": []}), "at least one row"),
        ([{"text": "a"}, {"text": 3}], "cells of one type"),
        (pd.DataFrame({"text": ["a", 3]}), "cells of one type"),
        ([{"text": "a"}, "b"], "got a list of dict and str"),
        ("train.tsv", "got str"),
        (Path("train.tsv"), "got PosixPath"),
        (np.zeros(3), "got ndarray"),
        (None, "got NoneType"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_table_of_rows_is_refused_in_words(tmp_path: Path, tokenizer: Any, rows: Any, said: str) -> None:
    with pytest.raises(RailkdError, match=said):
        TeacherCache.build(make_model(1, width=8), rows, tmp_path / "cache", tokenizer=tokenizer)
    assert not (tmp_path / "cache").exists()


def test_training_refuses_several_splits_in_words(tmp_path: Path, tokenizer: Any) -> None:
    splits = DatasetDict(train=FORMS["Dataset"])
    with pytest.raises(RailkdError, match="the rows of one split"):
        make_trainer(tmp_path, None, splits, tokenizer, student=make_model(1, width=8), method="finetune")


@pytest.mark.parametrize("part", ["train_dataset", "eval_dataset"])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("train.tsv", "got str"),
        (Path("train.tsv"), "got PosixPath"),
        ((row for row in DICTS), "got generator"),
        ({1, 2}, "got set"),
        ([], "at least one row"),
        (Dataset.from_dict({"words": ["a"], "label": [0]}), r"--text-column NAME.*in Python text_columns="),
    ],
    ids=["text", "path", "generator", "set", "empty", "columns"],
)
def test_the_trainer_refuses_what_is_no_table_in_words(
    tmp_path: Path, tokenizer: Any, part: str, rows: Any, said: str
) -> None:
    given = {"train_dataset": FORMS["Dataset"], part: rows}
    with pytest.raises(RailkdError, match=said):
        make_trainer(
            *(tmp_path, None, given["train_dataset"], tokenizer),
            student=make_model(1, width=8),
            method="finetune",
            eval_dataset=given.get("eval_dataset"),
        )
