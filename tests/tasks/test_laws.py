"""Laws that every kind of task keeps. A new kind inherits these tests, once it has a row of examples here."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, BertConfig

from railkd.errors import RailkdError
from railkd.models.heads import head_config, label_names, task_of_config
from railkd.tasks import TASKS, Cells, Task, task_named, task_of, task_of_labels, task_of_metric
from railkd.tasks.metrics import METRICS, greater_is_better


@dataclass(frozen=True)
class Example:
    """Labelled rows of one kind of task, and outputs that answer them all rightly."""

    cells: list[Any]  # as a file writes them
    said: list[Any]  # as a reader knows them
    names: tuple[str, ...]  # in the order of `infer`
    outputs: list[list[float]]


EXAMPLES = {
    "single_label_classification": Example(
        ["no", "yes", "maybe", "yes", "no", "no"],
        ["no", "yes", "maybe", "yes", "no", "no"],
        ("maybe", "no", "yes"),
        [[0, 9, 0], [0, 0, 9], [9, 0, 0], [0, 0, 9], [0, 9, 0], [0, 9, 0]],
    ),
    "multi_label_classification": Example(
        [["glad"], ["sad", "angry"], [], ["angry"], ["glad", "angry", "sad"], ["glad"]],
        [["glad"], ["angry", "sad"], [], ["angry"], ["angry", "glad", "sad"], ["glad"]],
        ("angry", "glad", "sad"),
        [[-9, 9, -9], [9, -9, 9], [-9, -9, -9], [9, -9, -9], [9, 9, 9], [-9, 9, -9]],
    ),
    "regression": Example(
        ["0.5", "2", "4.25", "1", "3", "-2.5"],
        [0.5, 2.0, 4.25, 1.0, 3.0, -2.5],
        (),
        [[0.5], [2.0], [4.25], [1.0], [3.0], [-2.5]],
    ),
}
every = pytest.mark.parametrize("kind", TASKS)


def made(kind: str) -> tuple[Task, Example, list[Any]]:
    """A task, its example and the labels as a model trains on them."""
    task, example = TASKS[kind], EXAMPLES[kind]
    cells = Cells({"label": example.cells}, "f")
    return task, example, task.encode(cells, task.space(example.names))


def labels_of(task: Task, values: list[Any]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float if task.real_labels else torch.long)


def test_every_kind_has_an_example() -> None:
    assert EXAMPLES.keys() == TASKS.keys()


@every
def test_a_task_is_final_and_answers_everything(kind: str) -> None:
    task = TASKS[kind]
    assert task.problem_type == kind and type(task).__mro__[1] is Task and not inspect.isabstract(type(task))
    for name in Task.__annotations__:
        assert getattr(task, name) is not None or name in ("width", "cut"), name
    assert task_named(task.name) is task and task_of(kind) is task
    assert task.auto_model().__name__ == task.auto_class


@every
def test_nothing_but_the_own_methods_of_the_base_is_replaced(kind: str) -> None:
    """Abstract or final: what the base class has a body for, no kind of task changes."""
    own = vars(type(TASKS[kind]))
    bodies = {name for name, value in vars(Task).items() if callable(value) and name not in Task.__abstractmethods__}
    assert not bodies & own.keys() and Task.__abstractmethods__ <= own.keys()


@every
def test_a_head_is_read_back_as_what_it_was_made_for(kind: str, tmp_path: Any) -> None:
    task, example, _ = made(kind)
    BertConfig(**task.head(example.names)).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert task_of_config(config) is task
    assert config.num_labels == (task.width or len(example.names))
    assert task.space(label_names(config)).names == example.names
    assert head_config(example.names, problem_type=kind) == task.head(example.names)


@every
def test_labels_of_a_file_are_known_and_go_round_by_name(kind: str) -> None:
    task, example, labels = made(kind)
    cells = Cells({"label": example.cells}, "f")
    assert task_of_labels(cells) is task
    space = task.infer(cells)
    assert space.names == example.names
    assert task.encode(cells, space) == labels and task.in_words(np.asarray(labels), space) == example.said
    # A model that has its outputs in another order gives them other numbers, and the same names.
    turned = example.names[::-1]
    matched = task.match(cells, turned, model="m")
    assert task.in_words(np.asarray(task.encode(cells, matched)), matched) == [
        sorted(row, key=turned.index) if isinstance(row, list) else row for row in example.said
    ]
    with pytest.raises(RailkdError, match="f: row 7 has no label"):
        task.encode(Cells({"label": [*example.cells, None]}, "f"), space)


@every
def test_the_labels_of_a_data_set_are_read_as_those_of_a_file(kind: str) -> None:
    task, example, labels = made(kind)
    names = example.names or ("LABEL_0",)
    read = task.reader(names, {name: index for index, name in enumerate(names)})
    assert [read(cell) for cell in example.cells] == labels
    mark = np.asarray([read(None)])
    np.testing.assert_array_equal(mark, [task.unlabelled(len(names))])
    assert not task.labelled(mark).any() and task.labelled(np.asarray(labels)).all()
    with pytest.raises(ValueError, match="expected"):
        read(["nobody knows this"] if task.several else "nobody knows this")


@every
def test_rows_without_a_label_add_no_loss_and_no_gradient(kind: str) -> None:
    task, example, labels = made(kind)
    outputs = torch.randn(6, len(example.outputs[0]), generator=torch.manual_seed(0)).requires_grad_()
    mark = task.unlabelled(outputs.shape[1])
    some = task.loss(outputs, labels_of(task, [*labels[:4], mark, mark]))
    (gradient,) = torch.autograd.grad(some, outputs)
    assert gradient[:4].any(dim=1).all() and not gradient[4:].any()
    torch.testing.assert_close(some, task.loss(outputs[:4], labels_of(task, labels[:4])) * 4 / 6)
    for nothing in (None, labels_of(task, [mark] * 6)):
        loss = task.loss(outputs, nothing)
        (gradient,) = torch.autograd.grad(loss, outputs)
        assert loss == 0 and torch.equal(gradient, torch.zeros_like(outputs))


@every
def test_splitting_a_batch_changes_nothing(kind: str) -> None:
    task, example, labels = made(kind)
    outputs = torch.randn(6, len(example.outputs[0]), generator=torch.manual_seed(1)).double()
    teacher = torch.randn(outputs.shape, generator=torch.manual_seed(2)).double()
    y = labels_of(task, [*labels[:5], task.unlabelled(outputs.shape[1])])
    for cuts in ((3, 3), (1, 5), (1,) * 6):
        parts = [*zip(outputs.split(cuts), teacher.split(cuts), y.split(cuts), cuts, strict=True)]
        torch.testing.assert_close(sum(task.loss(a, c) * n / 6 for a, _, c, n in parts), task.loss(outputs, y))
        torch.testing.assert_close(sum(task.kd(a, b, 2) * n / 6 for a, b, _, n in parts), task.kd(outputs, teacher, 2))


@every
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_equal_outputs_have_no_logit_term_and_a_step_brings_others_nearer(kind: str, temperature: float) -> None:
    task, example, _ = made(kind)
    shape = (4, len(example.outputs[0]))
    student = torch.randn(shape, generator=torch.manual_seed(3)).requires_grad_()
    teacher = torch.randn(shape, generator=torch.manual_seed(4)).requires_grad_()
    assert task.kd(student, student, temperature).item() == pytest.approx(0, abs=1e-6)
    before = task.kd(student, teacher, temperature)
    (gradient,) = torch.autograd.grad(before, student)
    assert 0 < task.kd(student - 0.1 * gradient, teacher, temperature) < before
    assert teacher.grad is None


@every
def test_right_outputs_give_the_gold_answers_a_small_loss_and_perfect_metrics(kind: str) -> None:
    task, example, labels = made(kind)
    outputs, gold, space = np.array(example.outputs, dtype=float), np.asarray(labels), task.space(example.names)
    assert task.in_words(task.decide(outputs), space) == task.in_words(gold, space) == example.said
    assert task.loss(torch.from_numpy(outputs), labels_of(task, labels)) < 1e-3
    rows = task.predictions(outputs, example.names or ("LABEL_0",))
    answer = next(name for name in ("label", "labels", "score") if name in rows[0])
    assert [row["index"] for row in rows] == [*range(6)] and [row[answer] for row in rows] == example.said
    cells = [str(row) for row in example.said]
    assert (task.row_scores(cells, cells) == task.row_scores(cells, cells).max()).all()
    assert not (task.row_scores(cells, cells[::-1]) == task.row_scores(cells, cells)).all()
    for row in (row for row in METRICS.values() if task.name in row.tasks):
        best, rounding = (1.0 if row.greater_is_better else 0.0), (1e-3 if row.probabilities else 1e-9)
        assert task.score(outputs, gold, space, metrics=[row.name]) == {row.name: pytest.approx(best, abs=rounding)}


@every
def test_the_usual_metrics_are_of_the_kind_and_the_first_selects(kind: str) -> None:
    task, example, labels = made(kind)
    scored = task.score(np.array(example.outputs), np.asarray(labels))
    assert tuple(scored) == task.metrics and task.primary_metric() == task.metrics[0]
    assert all(task_of_metric(name) is task for name in task.metrics)
    others = [row.name for row in METRICS.values() if task.name not in row.tasks]
    for name in others:
        with pytest.raises(RailkdError, match=f"no metric '{name}' for {task.name}"):
            task.primary_metric([name])


@every
def test_a_right_teacher_is_no_worry_and_a_constant_one_is_refused(kind: str) -> None:
    task, example, labels = made(kind)
    outputs, gold = np.array(example.outputs * 20, dtype=float), np.asarray(labels * 20)
    assert task.judge(outputs, gold, example.names).level == "note"
    for allowed, level in ((False, "error"), (True, "warning")):
        found = task.judge(np.tile(outputs[:1], (len(gold), 1)), gold, example.names, allowed=allowed)
        assert (found.level, found.title) == (level, "weak teacher")
    assert task.describe_labels(gold, example.names).level == "note"
    assert [finding.level for finding in task.describe_outputs(example.names, None)] == ["note"]
    assert task.describe(example.names)


def test_an_unknown_kind_of_task_is_refused() -> None:
    with pytest.raises(
        RailkdError, match="unknown problem_type 'ranking'. Expected one of single_label_classification, regr"
    ):
        task_of("ranking")
    with pytest.raises(RailkdError, match="expected a model with at least 1 output, got 0"):
        task_of(None, outputs=0)
    assert [task_of(None, outputs=count).name for count in (1, 2, 9)] == ["regression", *["classification"] * 2]


@every
def test_no_answer_that_is_the_same_for_all_rows_is_better_than_the_baseline(kind: str) -> None:
    """Tried for each class, each set of classes, and a grid of numbers; rows without a label do not count."""
    task, example, labels = made(kind)
    space, gold = task.space(example.names), np.asarray([*labels, task.unlabelled(len(example.names))])
    metric = "mse" if task.width else task.metrics[0]
    best = task.baseline(gold, space, metrics=[metric])[metric]
    grid = np.linspace(-3, 5, 33)[:, None] if task.width else list(itertools.product((-1.0, 1.0), repeat=3))
    scores = [task.score(np.tile(row, (len(gold), 1)), gold, space, metrics=[metric])[metric] for row in grid]
    assert len(set(scores)) > 2
    assert all(score <= best + 1e-9 if greater_is_better(metric) else score >= best - 1e-9 for score in scores)
    assert task.score(np.array([*example.outputs, example.outputs[0]]), gold, space)[task.metrics[0]] > 0.99
    with pytest.raises(RailkdError, match="no row has a label"):
        task.baseline(gold[-1:], space)
