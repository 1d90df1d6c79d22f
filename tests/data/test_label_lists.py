"""Lists of labels: one matrix of 0 and 1 gives the same labels in every spelling, and what can mean two things asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from railkd.data.label_lists import multi_hot_width
from railkd.data.reader import Cells, Table, read
from railkd.data.reading import Reading
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.tasks import task_named, task_of
from railkd.tasks.target import Target

MULTI = task_of("multi_label_classification")
SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "bool": bool,
}
widths = pytest.mark.parametrize("width", [2, 3, 7])


def matrix(width: int) -> np.ndarray:
    """Return rows of 0 and 1, among them one of zeros alone and one of ones alone."""
    drawn = np.random.default_rng(width).integers(0, 2, (9, width))
    return np.concatenate([drawn, np.zeros((1, width), dtype=int), np.ones((1, width), dtype=int)])


def table(path: Path, cells: list[Any], label_map: dict[str, str] | None = None) -> Table:
    """Write cells in the format of the path, and read them."""
    rows = [{"text": f"t{number}", "label": cell} for number, cell in enumerate(cells)]
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(Source.parse(str(path)), Reading(label_map=label_map), split="train")


@widths
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_flags_mean_the_same_in_every_number_type(width: int, spelling: str, suffix: str, tmp_path: Path) -> None:
    wanted = matrix(width)
    cells = [[SPELLINGS[spelling](flag) for flag in row] for row in wanted]
    found = table(tmp_path / f"rows{suffix}", cells)
    assert f"lists of {width} flags" in found.described
    target = Target.infer(found)
    assert target.task is MULTI and target.space.names == tuple(f"LABEL_{index}" for index in range(width))
    np.testing.assert_array_equal(target.label(found).rows["label"][:], wanted)
    # A model with names: position i is output i.
    names = tuple("abcdefg"[:width])
    model = Target.of_model(names, MULTI.problem_type, "m")
    np.testing.assert_array_equal(model.label(found).rows["label"][:], wanted)
    # In Python too, with the same cells.
    read_label = MULTI.reader(names, {})
    np.testing.assert_array_equal([read_label(cell) for cell in cells], wanted)
    with pytest.raises(RailkdError, match=rf"lists of {width} flags.*m has 9 classes.*--label-map 0=NAME 1=NAME"):
        Target.of_model(tuple("abcdefghi"), MULTI.problem_type, "m").label(found)


def test_a_label_map_says_that_0_and_1_are_classes_or_names_the_positions(tmp_path: Path) -> None:
    cells = [[0, 1], [1, 0], [0, 0]]
    named = table(tmp_path / "a.jsonl", cells, {"0": "sad", "1": "glad"})
    assert Target.infer(named).label(named).rows["label"][:] == [[1, 1], [1, 1], [0, 1]]
    placed = table(tmp_path / "b.jsonl", cells, {"LABEL_0": "sad", "LABEL_1": "glad"})
    target = Target.infer(placed)
    assert target.space.names == ("sad", "glad") and target.label(placed).rows["label"][:] == cells


@pytest.mark.parametrize("cells", [[["b"], ["a", "b"], []], [[1], [0, 1], [0]], [[2, 0], [1, 0]], [[]], ["1", "0"], []])
def test_other_lists_hold_classes(cells: list[Any]) -> None:
    assert multi_hot_width(cells, where="f") == 0


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            [[0, 1, 0], [0.25, 0.5, 0.25]],
            r"f: row 2: the numbers \[0.25, 0.5, 0.25\] are soft labels \(they sum to 1\)",
        ),
        ([[0.9, 0.8], [0.1, 0.3]], "f: row 1: .* are neither classes nor 0 and 1"),
        ([[1.0, float("nan")]], "f: row 1: .* are neither classes"),
        ([[1, 0, 0], [0, 1]], "expected lists of 0 and 1 of one length, got 3 entries in row 1 and 2 in row 2"),
        ([[True, True], None, []], "got 2 entries in row 1 and 0 in row 3"),
    ],
)
def test_lists_that_are_neither_are_refused(cells: list[Any], message: str) -> None:
    with pytest.raises(RailkdError, match=message):
        assert Cells({"label": cells}, "f").several


def test_a_list_of_one_entry_may_be_both_so_a_flag_or_a_model_decides(tmp_path: Path) -> None:
    cells = [[1], [0], [1], [0]]
    found = table(tmp_path / "rows.jsonl", cells)
    with pytest.raises(RailkdError, match="has one entry.*--problem-type classification.*multi-label"):
        Target.infer(found)
    for name, names, labels in (
        ("classification", ("0", "1"), [1, 0, 1, 0]),
        ("multi-label", ("0", "1"), [[0, 1], [1, 0], [0, 1], [1, 0]]),
        ("regression", (), [1.0, 0.0, 1.0, 0.0]),
    ):
        target = Target.infer(found, task_named(name))
        assert target.space.names == names and target.label(found).rows["label"][:] == labels
    for kind, wanted in (("single_label_classification", [1, 0, 1, 0]), (MULTI.problem_type, [[0, 1], [1, 0]] * 2)):
        assert Target.of_model(("0", "1"), kind, "m").label(found).rows["label"][:] == wanted


@pytest.mark.parametrize("cells", [["[1, 0, 1]", "[0, 0, 1]"], ["['a', 'b']", "[]"], ["[0. 1.]", "[1. 1.]"]])
def test_lists_written_as_text_are_refused(cells: list[str], tmp_path: Path) -> None:
    with pytest.raises(RailkdError, match="lists written as text"):
        table(tmp_path / "rows.jsonl", cells)
    assert table(tmp_path / "names.jsonl", ["[good]", "[bad]"]).cells is not None


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([[0, 1], [1]], "ab", "may hold a flag"),
        ([[1], [0, 1]], "ab", "may hold a flag"),
        ([[0, 1, 0]], "abcde", "may hold a flag"),
        ([[0]], "a", "may hold a flag"),
        ([[0.2, 0.5, 0.3]], "abc", "soft labels"),
        ([[0.2, 3.5, 0.3]], "abc", "expected one of the student's classes"),
    ],
)
def test_lists_in_python_that_can_mean_two_things_are_refused(rows: list[Any], names: str, message: str) -> None:
    read_label = MULTI.reader(tuple(names), {})
    with pytest.raises(ValueError, match=message):
        [read_label(row) for row in rows]


def test_lists_in_python_that_can_mean_one_thing_are_read() -> None:
    for rows, names, wanted in (
        ([[0, 2], [1], []], "abc", [[1, 0, 1], [0, 1, 0], [0, 0, 0]]),
        ([[1.0], [0.0]], "a", [[1], [0]]),
        ([(True, False)], "ab", [[1, 0]]),
        ([[0.9, 0.7]], "ab", [[0.9, 0.7]]),
    ):
        read_label = MULTI.reader(tuple(names), {})
        assert [read_label(row) for row in rows] == wanted
    # Numbers of a ClassLabel column are classes, however many there are.
    assert MULTI.reader(("b", "a"), {}, ["a", "b"])([0, 1]) == [1, 1]
    assert MULTI.reader(("b", "a"), {}, ["a", "b"])([1, 1]) == [1, 0]
