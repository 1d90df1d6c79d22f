"""The rows of the GLUE table, compared with real folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from railkd.data.glue import GLUE, GlueTask, find_task
from railkd.data.sources import Source, load_rows

Shared = Callable[..., Path]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_cola_has_no_header_and_its_cells_have_names(shared_data: Shared) -> None:
    rows = load_rows(str(shared_data("glue", "CoLA")), split="dev")
    assert rows.column_names == ["source", "label", "original_mark", "sentence"]
    assert rows[0]["sentence"] == "The sailors rode the breeze clear of the rocks." and rows[0]["label"] == "1"
    row = Source.parse(str(shared_data("ood", "CoLA_OOD", "test.tsv"))).row
    assert row is not None and row.raw_label_names == {"0": "unacceptable", "1": "acceptable"}


def test_the_test_file_of_cola_has_a_header(tmp_path: Path) -> None:
    write(tmp_path / "cola" / "test.tsv", "index\tsentence\n0\tBill whistled.\n")
    assert load_rows(str(tmp_path / "cola:test"))[0] == {"index": "0", "sentence": "Bill whistled."}


def test_dev_of_mnli_is_the_matched_split(tmp_path: Path) -> None:
    for name in ("train", "dev_matched", "dev_mismatched"):
        write(
            tmp_path / "MNLI" / f"{name}.tsv",
            f"sentence1\tsentence2\tlabel1\tgold_label\n{name}\tb\tneutral\tneutral\n",
        )
    assert load_rows(str(tmp_path / "MNLI"), split="dev")["sentence1"][0] == "dev_matched"
    assert load_rows(str(tmp_path / "MNLI:dev_mismatched"), split="dev")["sentence1"][0] == "dev_mismatched"
    task = Source.parse(str(tmp_path / "MNLI:dev_mismatched")).row
    assert task is not None and task.dev == ("dev_matched", "dev_mismatched")


@pytest.mark.parametrize("task", [task for task in GLUE if task.name != "MNLI"], ids=lambda task: task.name)
def test_every_glue_row_agrees_with_the_real_folder(task: GlueTask, shared_data: Shared) -> None:
    assert find_task(f"x/{task.name}/dev.tsv") is task
    assert bool(task.headerless) == (task.name == "CoLA")
    rows = load_rows(str(shared_data("glue", task.name)), split="dev")
    assert {*task.text, task.label} <= set(rows.column_names)
    if task.label_range:
        assert all(task.label_range[0] <= float(label) <= task.label_range[1] for label in rows[task.label])
    else:
        assert set(rows[task.label]) == set(task.cells or task.labels)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("SST2", "SST-2"),
        ("a/sts_b/test.tsv", "STS-B"),
        ("mnli/dev_matched.tsv", "MNLI"),
        ("nyu-mll/glue:mrpc:test", "MRPC"),
        ("RTE:dev", "RTE"),
        ("ood/ADV_QQP", None),
        ("rte.tsv", None),
        ("reviews/train.tsv", None),
        ("RTE/other/train.tsv", None),
    ],
)
def test_tasks_are_found_by_their_folder(source: str, name: str | None) -> None:
    task = Source.parse(source).row
    assert (task.name if task in GLUE else None) == name
