"""The rows of the out-of-domain table, compared with real folders, and how predictions are mapped to their classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from railkd.cli import main
from railkd.data.glue import GLUE, GlueTask
from railkd.data.labels import fold_onto
from railkd.data.ood import OOD, OodSet, find_row, is_out_of_domain
from railkd.data.sources import Source, load_rows
from railkd.tasks.metrics import METRICS

LABELS = {task.name: task.labels for task in GLUE} | {row.name: row.labels for row in OOD}
LABELS["SNLI_CAD"] = ("contradiction", "entailment", "neutral")
HERE = ("HANS", "IMDB_CONTRAST", "SNLI_CAD_REVISED", "CoLA_OOD", "ADV_SST-2", "ADV_QQP", "ADV_RTE")


@pytest.mark.parametrize("row", [row for row in OOD if row.name in HERE], ids=lambda row: row.name)
def test_a_row_agrees_with_the_real_folder(row: OodSet, shared_data: Callable[..., Path]) -> None:
    source = str(shared_data("ood", row.name, "test.tsv"))
    assert Source.parse(source).row is find_row(source) is row
    rows = load_rows(source)
    assert {*row.text, row.label} <= set(rows.column_names)
    assert set(rows[row.label]) == set(row.cells or row.labels)


@pytest.mark.parametrize("row", OOD, ids=lambda row: row.name)
def test_every_class_of_every_task_it_serves_maps_to_one_of_its_classes(row: OodSet) -> None:
    assert row.serves and row.licence and all("classification" in METRICS[name].tasks for name in row.metrics)
    for task in row.serves:
        fold = fold_onto(LABELS[task], row.labels, row.renamed)
        if fold is None:  # The names are equal.
            assert {name.casefold() for name in row.labels} == {name.casefold() for name in LABELS[task]}
        else:
            assert len(fold.group) == len(LABELS[task])


@pytest.mark.parametrize(
    ("row", "model", "names", "group"),
    [
        ("HANS", ("entailment", "neutral", "contradiction"), ("entailment", "non-entailment"), (0, 1, 1)),
        ("HANS", ("Contradiction", "Entailment", "Neutral"), ("entailment", "non-entailment"), (1, 0, 1)),
        ("HANS", ("not_entailment", "entailment"), ("entailment", "non-entailment"), (1, 0)),
        ("PAWS", ("duplicate", "not_duplicate"), ("no_paraphrase", "paraphrase"), (1, 0)),
        ("SciTail", ("entailment", "not_entailment"), ("entails", "neutral"), (0, 1)),
        ("SciTail", ("entailment", "neutral", "contradiction"), ("entails", "neutral"), (0, 1, 1)),
        ("SNLI", ("entailment", "not_entailment"), ("entailment", "not_entailment"), (0, 1)),
        ("IMDB_CONTRAST", ("NEGATIVE", "POSITIVE"), None, None),
        ("SNLI", ("neutral", "entailment", "contradiction"), None, None),
        ("HANS", ("positive", "negative"), None, None),
        ("HANS", ("LABEL_0", "LABEL_1"), None, None),
    ],
)
def test_folds(row: str, model: tuple[str, ...], names: tuple[str, ...] | None, group: tuple[int, ...] | None) -> None:
    found = next(other for other in OOD if other.name == row)
    fold = fold_onto(model, found.labels, found.renamed)
    assert ((fold.names, fold.group) if fold else (None, None)) == (names, group)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hans:validation", "HANS"),
        ("jhu-cogsci/hans:validation", "HANS"),
        ("google-research-datasets/paws:labeled_final:test", "PAWS"),
        ("AI-Secure/adv_glue:adv_rte:validation", "ADV_RTE"),
        ("stanfordnlp/snli:test", "SNLI"),
        ("data/imdb/test.csv", "IMDb"),
        ("imdb.csv", None),
        ("nyu-mll/glue:rte:validation", None),
        ("reviews.tsv", None),
    ],
)
def test_sets_are_found_by_their_folder_or_hub_name(source: str, name: str | None) -> None:
    row = Source.parse(source).row
    assert (row.name if isinstance(row, OodSet) else None) == name


def test_cells_and_domains() -> None:
    def row(source: str) -> GlueTask:
        found = Source.parse(source).row
        assert found is not None
        return found

    assert row("x/PAWS/test.tsv").raw_label_names == {"0": "no_paraphrase", "1": "paraphrase"}
    assert row("ADV_SST-2:test").raw_label_names == {"0": "negative", "1": "positive"}
    assert is_out_of_domain(row("x/SNLI/test.tsv"), row("x/MNLI/train.tsv")) and is_out_of_domain(
        row("x/SNLI/test.tsv")
    )
    assert not is_out_of_domain(row("x/SNLI/test.tsv"), row("y/SNLI/train.tsv"))
    assert not is_out_of_domain(
        row("x/MNLI/dev.tsv"), row("x/SNLI/train.tsv")
    )  # A set of GLUE is out of domain only by --ood.
    assert not is_out_of_domain(None)


def test_tasks_lists_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [row.name for row in (*GLUE, *OOD)]
    assert all(row["metrics"] and row["text"] and row["labels"] and row["source"] and row["licence"] for row in rows)
    assert main(["tasks", "hans"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("HANS\n  metrics: accuracy\n") and "neutral = non-entailment" in out
    assert "out of domain for: RTE, MNLI, SNLI, SNLI_CAD" in out and "licence: MIT" in out
    assert main(["tasks", "stsb"]) == 0
    assert "labels: numbers from 0 to 5" in capsys.readouterr().out
