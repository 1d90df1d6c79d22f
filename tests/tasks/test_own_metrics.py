"""Metrics of a user's own function: what it gets, what it may return, and what is refused before training."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from railkd.data.columns import Columns
from railkd.data.labels import Fold, LabelSpace
from railkd.data.reader import Table
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.tasks import TASKS
from railkd.tasks.metrics import METRICS
from railkd.tasks.own_metrics import DIRECTION, OwnMetrics, load_own, try_own
from railkd.tasks.scored import Scored, scored_rows
from railkd.tasks.target import Target

CLASSES, SEVERAL, NUMBERS = (
    TASKS[kind] for kind in ("single_label_classification", "multi_label_classification", "regression")
)
DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def own(function: Callable[[Any, Any], Any], **more: Any) -> OwnMetrics:
    for name, value in more.items():
        setattr(function, name, value)
    return OwnMetrics("mine.py:f", function)


def rows_of(task: Any, outputs: Any, labels: Any, space: LabelSpace | None = None) -> Scored:
    return scored_rows(task, np.asarray(outputs, dtype=float), np.asarray(labels), space)


def given(rows: Scored) -> tuple[np.ndarray, np.ndarray]:
    """The arguments of a function that is called on rows."""
    kept: list[np.ndarray] = []

    def keep(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        kept.extend((predictions.copy(), labels.copy()))
        predictions[:] = labels[:] = 0  # its arrays are its own
        return {}

    assert own(keep).values(rows) == {}
    return kept[0], kept[1]


def test_a_function_gets_probabilities_and_labels_of_the_labelled_rows() -> None:
    shares = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    rows = rows_of(CLASSES, np.log(shares), [2, -100, 1])
    for _ in range(2):  # what a function writes into its arrays is not kept
        predictions, labels = given(rows)
        assert np.allclose(predictions, shares[[0, 2]]) and labels.tolist() == [2, 1]
    coarse = LabelSpace(("yes", "maybe", "no"), fold=Fold(("yes", "not"), (0, 1, 1)))
    predictions, labels = given(rows_of(CLASSES, np.log(shares), [2, 0, 1], coarse))
    assert np.allclose(predictions[:, 0], shares[:, 0]) and labels.tolist() == [1, 0, 1]
    predictions, labels = given(rows_of(SEVERAL, np.log(shares / (1 - shares)), [[0, 1, 1], [1, 0, 0], [0, 0, 0]]))
    assert np.allclose(predictions, shares) and labels.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    predictions, labels = given(rows_of(NUMBERS, [[1.5], [2.0]], [1.0, float("nan")]))
    assert predictions.tolist() == [1.5] and labels.tolist() == [1.0]


@pytest.mark.parametrize("name", ["log_loss", "brier", "accuracy"])
def test_a_formula_of_ours_as_a_function_of_the_user_has_the_same_value(name: str) -> None:
    random = np.random.default_rng(1)
    outputs, labels = random.normal(size=(40, 2)), random.integers(2, size=40)
    by_hand = {
        "log_loss": lambda p, y: -np.log(p[np.arange(len(y)), y]).mean(),
        "brier": lambda p, y: ((p[:, 1] - y) ** 2).mean(),
        "accuracy": lambda p, y: np.float32((p.argmax(axis=1) == y).mean()),
    }[name]
    found = own(lambda p, y: {"mine": by_hand(p, y)}).values(rows_of(CLASSES, outputs, labels))
    assert found["mine"] == pytest.approx(METRICS[name].compute(rows_of(CLASSES, outputs, labels)), rel=1e-6)
    assert type(found["mine"]) is float


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (0.5, "expected {name: value}, got 0.5"),
        ([("a", 1.0)], "expected {name: value}, got"),
        (None, "expected {name: value}, got None"),
        ({"a": float("nan")}, "expected a finite number as 'a', got nan. Fix: leave a name out"),
        ({"a": np.inf}, "expected a finite number as 'a', got inf"),
        ({"a": "high"}, "expected a finite number as 'a', got 'high'"),
        ({"a": None}, "expected a finite number as 'a', got None"),
        ({"a": True}, "expected a finite number as 'a', got True"),
        ({"a": np.ones(3)}, "expected a finite number as 'a'"),
        ({"a": 1j}, "expected a finite number as 'a'"),
        ({"a": 10**400}, "expected a finite number as 'a'"),
        ({1: 1.0}, "expected the name of a metric, got 1"),
        ({"": 1.0}, "expected the name of a metric, got ''"),
        ({"a\nb": 1.0}, "expected the name of a metric"),
        ({"f1": 1.0}, "the name 'f1' has another meaning"),
        ({"macro-f1": 1.0}, "the name 'macro-f1' has another meaning"),
        ({"loss": 1.0}, "the name 'loss' has another meaning"),
        ({"eval_a": 1.0}, "the name 'eval_a' has another meaning"),
        ({"runtime": 1.0}, "the name 'runtime' has another meaning"),
    ],
)
def test_what_is_no_number_by_name_is_refused(returned: Any, said: str) -> None:
    rows = rows_of(CLASSES, [[0.0, 1.0]], [1])
    with pytest.raises(RailkdError, match=re.escape(said)):
        own(lambda p, y: returned).values(rows)
    with pytest.raises(RailkdError, match="Tried on the labels of 'dev' with made-up predictions"):
        try_own([own(lambda p, y: returned)], {"dev": rows})


CODE = """
def fine(predictions, labels):
    return {"a": 1, "b": 0.5}


fine.higher_is_better = {"a": False}


def fails(predictions, labels):
    return {"a": 1 / 0}


def leaves(predictions, labels):
    raise SystemExit(3)


def one(predictions):
    return {}


def odd(predictions, labels):
    return {}


odd.higher_is_better = "yes"
number = 3


class Kind:
    pass
"""


def test_an_address_names_a_function_of_two_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(CODE)
    (found,) = load_own(["auroc", "mine.py:fine", "mine.py:fine"])
    assert (found.is_higher_better("a"), found.is_higher_better("b"), len(found.digest)) == (False, True, 32)
    rows = {"dev": rows_of(CLASSES, [[0.0, 1.0]], [1])}
    assert try_own([found], rows) == {"a": False, "b": True} and try_own([], rows) == {}
    for name, said in {
        "fails": "the function fails: ZeroDivisionError: division by zero. Fix: see mine.py, line 10",
        "leaves": "the function fails: SystemExit: 3. Fix: see mine.py, line 14",
        "one": "a function of two arguments, predictions and labels: too many",
        "odd": "expected higher_is_better to be True, False, or a dict of names with True or False, got 'yes'",
        "number": "expected a function (predictions, labels) -> {name: value}, got 3",
        "Kind": "expected a function (predictions, labels)",
        "fin": "found no 'fin' there. Did you mean 'fine'",
        "": "expected FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION",
    }.items():
        with pytest.raises(RailkdError, match=re.escape(said)):
            try_own(load_own([f"mine.py:{name}"]), rows)
    with pytest.raises(RailkdError, match="'a' is computed by another function too"):
        try_own([found, found], rows)
    with pytest.raises(RailkdError, match="higher_is_better names 'A', but the function returns a"):
        try_own([own(lambda p, y: {"a": 1.0}, **{DIRECTION: {"A": False}})], rows)


def labelled(task: Any, space: LabelSpace, labels: list[Any]) -> tuple[Target, Table]:
    rows = Dataset.from_dict({"text": [str(i) for i in range(len(labels))], "label": labels})
    return Target(task, space, "the model"), Table(rows, Source.parse("dev.tsv"), Columns(("text",), None), None, space)


def test_made_up_predictions_are_possible_ones_and_the_same_each_time() -> None:
    """So that a function that takes roots of numbers, or needs every class, is not refused for no reason."""
    kept: list[np.ndarray] = []

    def keep(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        kept.append(predictions)
        return {"mine": float(predictions.sum())}

    for task, names, labels in (
        (CLASSES, ("x", "y", "z"), [0, 1, 2, 1]),
        (SEVERAL, ("x", "y"), [[0.0, 1.0], [1.0, 1.0]]),
        (NUMBERS, (), [0.5, 2.0, 7.0]),
    ):
        target, table = labelled(task, LabelSpace(names), labels)
        kept.clear()
        for _ in range(2):
            assert Target(task, target.space, "", own=(own(keep),)).try_own({"dev": table}) == {"mine": True}
        assert np.array_equal(*kept) and kept[0].min() >= 0 and len(kept[0]) == len(labels)
        if task is NUMBERS:
            assert sorted(kept[0]) == labels
        else:
            assert kept[0].shape == (len(labels), len(names)) and kept[0].max() < 1 and kept[0].std() > 0


def test_a_failure_on_real_predictions_is_a_gap_and_not_the_end() -> None:
    target, table = labelled(CLASSES, LabelSpace(("x", "y")), [0, 1])

    def fails(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        raise KeyError("what")

    first = OwnMetrics("first.py:f", fails)
    second = OwnMetrics("second.py:f", lambda p, y: {"mine": p[0, 0]})
    scores = Target(CLASSES, target.space, "", own=(first, second)).own_scores(table, np.zeros((2, 2)))
    assert scores.values == {"mine": 0.5} and scores.higher == {"mine": True}
    assert scores.failures.keys() == {"first.py:f"} and "KeyError: 'what'" in scores.failures["first.py:f"]
    assert target.own_scores(table, np.zeros((2, 2))) == ({}, {}, {})
    bare = labelled(CLASSES, target.space, [-100, -100])[1]
    assert target.try_own({"dev": bare}) == {}  # without a function no row is looked at
    with pytest.raises(RailkdError, match="no row has a label"):
        Target(CLASSES, target.space, "", own=(second,)).try_own({"dev": bare})


def test_the_example_of_the_documents_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four complaints are missed, and there is one false alarm: a cost of (2 x 10 + 1) / 6."""
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("my_metrics.py").write_text(code)
    (found,) = load_own(["my_metrics.py:support"])
    answers, labels = np.array([1, 1, 0, 0, 1, 0]), np.array([1, 1, 1, 1, 0, 0])
    rows = rows_of(CLASSES, np.eye(2)[answers], labels)
    assert found.values(rows) == pytest.approx({"cost": 21 / 6, "caught": 0.5})
    assert not found.is_higher_better("cost") and found.is_higher_better("caught")
