"""Several labels a row, in the forms they come in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from railkd.data.sources import load_rows
from railkd.errors import RailkdError
from railkd.tasks import Cells, task_of
from railkd.tasks.multilabel import from_columns, split_cells

MULTI = task_of("multi_label_classification")


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
    with pytest.raises(RailkdError, match="f: row 2: expected 0 or 1 in column 'b', got '2'"):
        from_columns({"a": [1, 1], "b": [0, 2]}, where="f")


def encode(cells: list[Any], names: list[str]) -> list[Any]:
    found = Cells({"label": cells}, "f")
    return MULTI.encode(found, MULTI.match(found, names, model="m"))


def test_classes_are_found_and_matched_by_name() -> None:
    assert MULTI.infer(Cells({"label": [["b"], ["a", "b"], None]}, "f")).names == ("a", "b")
    assert MULTI.infer(Cells({"y": [0], "x": [0]}, "f")).names == ("y", "x")
    assert encode([["Big", "small"]], ["SMALL", "other", "big"]) == [[1.0, 0.0, 1.0]]
    for cells in ([[]], [["a"]]):
        with pytest.raises(RailkdError, match="expected at least two classes"):
            MULTI.infer(Cells({"label": cells}, "f"))
    with pytest.raises(RailkdError, match="f: row 2 has no label"):
        encode([["a"], None], ["a", "b"])
    with pytest.raises(RailkdError, match="without 'c'"):
        encode([["c"]], ["a", "b"])
    with pytest.raises(RailkdError, match="f: row 2 has the label 'c'. Expected one of 'a' and 'b'"):
        MULTI.encode(Cells({"label": [["a"], ["c"]]}, "f"), MULTI.space(["a", "b"]))


def test_scores_by_hand() -> None:
    # a: 1 hit, 1 false alarm (f1 2/3); b: 1 hit, 1 miss (f1 2/3); c: nothing said, nothing there (0)
    labels = np.array([[1.0, 1, 0], [0, 1, 0], [math.nan] * 3])
    logits = np.array([[2.0, 1, -1], [1, -1, -1], [9, 9, 9]])
    assert MULTI.score(logits, labels) == pytest.approx({"micro_f1": 4 / 6, "macro_f1": 4 / 9, "subset_accuracy": 0.5})
    for bad, message in ((labels[:, :2], "shape"), (np.full((3, 3), math.nan), "no row has a label")):
        with pytest.raises(RailkdError, match=message):
            MULTI.score(logits, bad)
    with pytest.raises(RailkdError, match="not finite"):
        MULTI.score(logits * math.inf, labels[:2].repeat(2, axis=0)[:3])


def test_lists_of_class_labels_come_by_name(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=["sad", "glad"]))}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "labels": [[1, 0], []]}, features=features)
    rows.save_to_disk(tmp_path / "rows")
    assert load_rows(str(tmp_path / "rows"))["labels"][:] == [["glad", "sad"], []]


@pytest.mark.parametrize(
    "cells", [["1", "0", "", "0"], [1.0, 0.0, None, 0], ["spam", "", "", "false"], [["spam"], [], [], [0]]]
)
def test_a_model_of_one_class_reads_whether_it_applies(cells: list[Any]) -> None:
    cells = [cell if cell is not None else "" for cell in cells]
    assert encode(cells, ["Spam"]) == [[1.0], [0.0], [0.0], [0.0]]
    with pytest.raises(RailkdError, match="without 'ham'.*--label-map ham=NEW"):
        encode(["ham", "spam"], ["Spam"])
    space, outputs = MULTI.space(["Spam"]), np.array([[3.0], [-1.0], [-2.0], [2.0]])
    assert MULTI.score(outputs, np.array([[1.0], [0], [0], [0]]), space)["subset_accuracy"] == 0.75


@pytest.mark.parametrize("gap", [None, math.nan, -100, -100.0])
def test_a_gap_in_a_list_of_labels_is_no_class(gap: Any) -> None:
    """A list of gaps has no label; one gap beside labels is refused. Neither reads as the last class or as none."""
    read = MULTI.reader(("a", "b", "c"), {})
    assert np.isnan(read([gap] * 3)).all() and np.isnan(read([gap])).all()
    for cell in ([1, gap, 0], [1.0, gap, 0.0], ["a", gap]):
        with pytest.raises(ValueError, match="expected labels in the whole list"):
            read(cell)
    assert read([]) == [0, 0, 0] and read(["c", ""]) == [0, 0, 1] and read([2, 0]) == [1, 0, 1]


def test_a_hidden_class_label_in_a_list_is_a_gap() -> None:
    read = MULTI.reader(("a", "b", "c"), {}, ("a", "b", "c"))
    assert np.isnan(read([-1])).all() and read([2]) == [0, 0, 1]
    with pytest.raises(ValueError, match="expected labels in the whole list"):
        read([-1, 1])


@pytest.mark.parametrize("number", [math.inf, -math.inf, "inf"])
def test_an_infinite_number_is_no_label(number: Any) -> None:
    with pytest.raises(ValueError, match="expected a number for a student of one output"):
        task_of("regression").reader((), {})(number)
