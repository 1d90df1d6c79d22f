"""Labels go by name, whatever the order of the file, the model or the task."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from railkd.data.columns import find_columns
from railkd.data.label_names import apply_label_map, parse_label_map
from railkd.data.labels import LabelSpace, match_label_space
from railkd.data.sources import Source, load_rows
from railkd.errors import RailkdError
from railkd.tasks import Cells, Task, task_named, task_of, task_of_labels

NLI = ("contradiction", "entailment", "neutral")
REGRESSION = task_of("regression")


def inferred(
    values: list[Any], *, label_column: str = "label", problem_type: str | None = None, names: tuple[str, ...] = ()
) -> tuple[Task, LabelSpace]:
    cells = Cells({label_column: values}, "labels")
    task = task_named(problem_type) if problem_type else task_of_labels(cells, names)
    return task, task.infer(cells, names)


def encoded(space: LabelSpace | Task, values: list[Any]) -> list[Any]:
    """Labels as a model of these classes, or of one number, trains on them."""
    if isinstance(space, Task):
        return space.encode(Cells({"label": values}, "dev.tsv"), space.space(()))
    return space.encode(values, where="dev.tsv")


@pytest.mark.parametrize(
    ("values", "options", "names"),
    [
        (["pos", "neg", "pos", "", None], {}, ("neg", "pos")),
        (["10", "9", "1"], {}, ("1", "9", "10")),
        ([1, 0, 1.0], {}, ("0", "1")),
        (["-1", "1"], {}, ("-1", "1")),
        ([True, False], {}, ("false", "true")),
        (["1.5", "2", "many"], {}, ("1.5", "2", "many")),
        (["nan", "inf"], {}, ("inf", "nan")),
        (["1", "2.5", ""], {}, None),
        (["1", "2"], {"label_column": "score"}, None),
        (["good", "bad"], {"label_column": "score"}, ("bad", "good")),
        (["1", "2"], {"label_column": "score", "problem_type": "classification"}, ("1", "2")),
        (["1", "2"], {"problem_type": "regression"}, None),
        (["b", "b"], {"names": ("b", "a")}, ("b", "a")),
        (["a", "c"], {"names": ("b", "a")}, ("a", "c")),
    ],
)
def test_spaces_are_found(values: list[Any], options: dict[str, Any], names: tuple[str, ...] | None) -> None:
    task, space = inferred(values, **options)
    assert (task is REGRESSION) == (names is None) and space.names == (names or ())


def test_rows_without_a_label_are_marked_when_allowed() -> None:
    assert LabelSpace(("a", "b")).encode(["b", "", None], where="f", allow_missing=True) == [1, -100, -100]


@pytest.mark.parametrize(
    ("space", "values", "parts"),
    [
        (LabelSpace(("a", "b")), ["a", "c", "d"], ["dev.tsv: row 2", "'c'", "'a' and 'b'", "--label-map"]),
        (LabelSpace(("a", "b")), ["a", "A"], ["row 2", "'A'"]),
        (LabelSpace(("a", "b")), ["a", ""], ["row 2 has no label"]),
        (LabelSpace(("a", "b")), [["a"]], ["row 1", "a label of type list", "one name or one number"]),
        (LabelSpace(("0", "1")), [0.5], ["row 1", "'0.5'"]),
        (LabelSpace(("0", "1")), [math.nan], ["row 1 has no label"]),
        (LabelSpace(tuple(map(str, range(150)))), ["x"], ["'19' and 130 more"]),
        (REGRESSION, ["1.5", "good"], ["dev.tsv: row 2", "'good'", "not a number"]),
        (REGRESSION, ["1.5", "nan"], ["row 2", "not a finite number"]),
        (REGRESSION, [math.inf], ["row 1", "not a finite number"]),
        (REGRESSION, ["1_000"], ["not a number"]),
        (REGRESSION, [True], ["not a number"]),
        (REGRESSION, [[1.0]], ["not a number"]),
        (REGRESSION, [None], ["row 1 has no label"]),
    ],
)
def test_bad_labels_are_refused(space: LabelSpace | Task, values: list[Any], parts: list[str]) -> None:
    with pytest.raises(RailkdError) as error:
        encoded(space, values)
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (["a", "a"], {}, "every label is 'a'. Expected two classes"),
        ([], {}, "no row has a label"),
        (["", None], {}, "no row has a label"),
        ([["a"], ["b"]], {"problem_type": "classification"}, "a label of type list"),
        ([{"a": 1}], {}, "a label of type dict"),
        (["a", "b"], {"problem_type": "multi"}, "expected classification, regression or multi-label"),
    ],
)
def test_rows_that_make_no_space(values: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(RailkdError, match=message):
        inferred(values, **options)


@pytest.mark.parametrize(
    ("model", "data", "options", "indices"),
    [
        (("NEGATIVE", "POSITIVE"), ("Positive", "Negative"), {}, [1, 0]),
        (("entailment", "neutral", "contradiction"), NLI, {}, [2, 0, 1]),
        (("entailment", "neutral", "contradiction"), ("entailment", "contradiction"), {}, [0, 2]),
        (("Not Entailment", "Entailment"), ("entailment", "not_entailment"), {}, [1, 0]),
        (("LABEL_0", "LABEL_1"), ("0", "1"), {}, [0, 1]),
        (("LABEL_0", "LABEL_1"), ("1", "0"), {}, [1, 0]),
        (("LABEL_0", "LABEL_1"), ("LABEL_1", "LABEL_0"), {}, [1, 0]),
        (("LABEL_0", "LABEL_1"), ("neg", "pos"), {"label_map": {"0": "neg", "1": "pos"}}, [0, 1]),
        (("1", "-1"), ("-1", "1"), {}, [1, 0]),
        (("a-b", "a b"), ("a b", "a-b"), {}, [1, 0]),
        (("B-LOC", "O"), ("b loc", "o"), {}, [0, 1]),
    ],
)
def test_models_are_matched_by_name(
    model: tuple[str, ...], data: tuple[str, ...], options: dict[str, Any], indices: list[int]
) -> None:
    space = match_label_space(model, LabelSpace(data), **options)
    assert space.names == model and space.encode(data, where="dev.tsv") == indices


@pytest.mark.parametrize(
    ("model", "data", "parts"),
    [
        (("neg", "pos"), LabelSpace(("0", "1")), ["'0' and '1'", "'neg' and 'pos'", "--label-map 0=NEW 1=NEW"]),
        (
            ("entailment", "not_entailment"),
            LabelSpace(NLI),
            ["without 'contradiction' and 'neutral'", "contradiction=NEW"],
        ),
        (
            ("LABEL_0", "LABEL_1"),
            LabelSpace(("neg", "pos")),
            ["which are default names", "--label-map neg=NEW pos=NEW"],
        ),
        (("LABEL_0", "LABEL_1"), LabelSpace(("1", "2")), ["which are default names", "--label-map 2=NEW"]),
        (("a-b", "a b"), LabelSpace(("a_b", "a b")), ["a_b=NEW"]),
        (("x", "y"), LabelSpace(("a b", "x")), ['--label-map "a b"=NEW']),
        (("score",), LabelSpace(("a", "b")), ["one output (regression)", "'a' and 'b'", "--problem-type regression"]),
    ],
)
def test_models_that_do_not_match_are_refused(model: tuple[str, ...], data: LabelSpace, parts: list[str]) -> None:
    with pytest.raises(RailkdError) as error:
        match_label_space(model, data, model="the teacher", where="train.tsv")
    message = str(error.value)
    assert all(part in message for part in ["the teacher", "train.tsv", *parts]), message
    assert "\n" not in message


def test_regression_takes_one_output() -> None:
    REGRESSION.check_outputs(["LABEL_0"], model="the teacher", where="train.tsv")
    with pytest.raises(
        RailkdError, match="the teacher has 2 classes .*train.tsv are numbers.*one output, or --problem-type"
    ):
        REGRESSION.check_outputs(["a", "b"], model="the teacher", where="train.tsv")


@pytest.mark.parametrize("items", [["a"], ["=a"], ["a="], ["a=b", "a=c"]])
def test_bad_label_maps_are_refused(items: list[str]) -> None:
    with pytest.raises(RailkdError, match="--label-map"):
        parse_label_map(items)


def test_a_label_map_renames_before_encoding() -> None:
    renamed = apply_label_map(["0", 1, "", "x"], parse_label_map(["0=no", "1=yes=maybe"]))
    assert renamed == ["no", "yes=maybe", "", "x"]


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        (("glue", "MRPC"), ("not_equivalent", "equivalent")),
        (("glue", "WNLI"), ("not_entailment", "entailment")),
        (("glue", "RTE"), ("entailment", "not_entailment")),
        (("glue", "CoLA"), ("unacceptable", "acceptable")),
        (("glue", "STS-B"), ()),
        (("other", "TREC"), ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")),
    ],
)
def test_real_rows_from_file_to_index(
    parts: tuple[str, ...], names: tuple[str, ...], shared_data: Callable[..., Path]
) -> None:
    source = str(shared_data(*parts))
    rows, task = load_rows(source), Source.parse(source).row
    column = find_columns(rows.column_names).label
    assert column is not None
    cells = Cells({column: rows[column]}, source, task.raw_label_names if task else {})
    official = task.labels if task else ()
    kind = task_of_labels(cells, official)
    space = kind.infer(cells, official)
    assert space.names == names
    assert len(kind.encode(cells, space)) == rows.num_rows
