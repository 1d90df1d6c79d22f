"""Several labels a row, in the forms they come in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from railkd.data.sources import load_rows
from railkd.errors import RailkdError
from railkd.tasks.multilabel import encode, from_columns, infer, score, split_cells


@pytest.mark.parametrize(
    ("cells", "rows"),
    [
        (["a,b", "b", ""], [("a", "b"), ("b",), ()]),
        (["a; b", "b;;", None], [("a", "b"), ("b",), None]),
        (["x, y|z", "z"], [("x, y", "z"), ("z",)]),  # "|" anywhere: commas belong to the names
        ([["a", "b", "a"], [], None], [("a", "b"), (), None]),
        ([[1, 2], [2.0]], [("1", "2"), ("2",)]),
        (["1,3", 2], [("1", "3"), ("2",)]),
    ],
)
def test_cells_are_split(cells: list[Any], rows: list[Any]) -> None:
    assert split_cells(cells, where="f") == rows


def test_columns_of_flags() -> None:
    columns = {"a": ["1", True, None, 0.0], "b": ["0", "TRUE", None, 1]}
    assert from_columns(columns, where="f") == [("a",), ("a", "b"), None, ("b",)]
    with pytest.raises(RailkdError, match="f: row 2: column 'b' holds '2', wanted 0 or 1"):
        from_columns({"a": [1, 1], "b": [0, 2]}, where="f")


def test_classes_are_found_and_matched_by_name() -> None:
    assert infer([("b",), ("a", "b"), None], names=None, where="f").names == ("a", "b")
    assert infer([()], names=["y", "x"], where="f").names == ("y", "x")
    assert encode([("Big", "small")], ["SMALL", "other", "big"], label_map={}, model="m", where="f") == [
        [1.0, 0.0, 1.0]
    ]
    for rows in ([()], [("a",)]):
        with pytest.raises(RailkdError, match="wanted two classes"):
            infer(rows, names=None, where="f")
    with pytest.raises(RailkdError, match="f: row 2 has no label"):
        encode([("a",), None], ["a", "b"], label_map={}, model="m", where="f")
    with pytest.raises(RailkdError, match="which lack 'c'"):
        encode([("c",)], ["a", "b"], label_map={}, model="m", where="f")


def test_scores_by_hand() -> None:
    # a: 1 hit, 1 false alarm (f1 2/3); b: 1 hit, 1 miss (f1 2/3); c: nothing said, nothing there (0)
    labels = np.array([[1.0, 1, 0], [0, 1, 0], [math.nan] * 3])
    logits = np.array([[2.0, 1, -1], [1, -1, -1], [9, 9, 9]])
    assert score(logits, labels) == pytest.approx({"micro_f1": 4 / 6, "macro_f1": 4 / 9, "subset_accuracy": 0.5})
    for bad, message in ((labels[:, :2], "shape"), (np.full((3, 3), math.nan), "no row has a label")):
        with pytest.raises(RailkdError, match=message):
            score(logits, bad)
    with pytest.raises(RailkdError, match="not finite"):
        score(logits * math.inf, labels[:2].repeat(2, axis=0)[:3])


def test_lists_of_class_labels_come_by_name(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=["sad", "glad"]))}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "labels": [[1, 0], []]}, features=features)
    rows.save_to_disk(tmp_path / "rows")
    assert load_rows(str(tmp_path / "rows"))["labels"][:] == [["glad", "sad"], []]
