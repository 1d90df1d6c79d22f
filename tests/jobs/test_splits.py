"""Tables of one job: each is read and labelled by itself, and scored by the metrics that count for it."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from railkd.data.reader import Table, read
from railkd.data.reading import Reading
from railkd.data.sources import Source
from railkd.errors import RailkdError
from railkd.jobs.options import DistillOptions, EvaluateOptions
from railkd.jobs.splits import Sources, Splits
from railkd.tasks.target import Target

CLASSES = ("entailment", "neutral", "contradiction")
FILES = {
    "MNLI/train.tsv": ("entailment", "neutral", "contradiction", "neutral"),
    "HANS/test.tsv": ("entailment", "non-entailment", "non-entailment"),
    "own.tsv": ("Contradiction", "ENTAILMENT", "neutral"),
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name, labels in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        rows = [f"a{i}\tb\t{label}" for i, label in enumerate(labels)]
        (tmp_path / name).write_text("\n".join(["sentence1\tsentence2\tgold_label", *rows, ""]), encoding="utf-8")
    return tmp_path


def table(here: Path, name: str) -> Table:
    return read(Source.parse(str(here / name)), Reading(), split="test")


def target(here: Path) -> Target:
    sources = Sources.parse(DistillOptions(train=str(here / "MNLI" / "train.tsv")))
    found = Target.of_model(CLASSES, "single_label_classification", "the teacher")
    return Target(found.task, found.space, found.model, row=sources.row)


def outputs(answers: list[int]) -> np.ndarray:
    """Logits whose largest is that of the answer."""
    logits: np.ndarray = np.eye(len(CLASSES))[answers]
    return logits


@pytest.mark.parametrize("names", list(permutations(FILES)))
def test_tables_are_labelled_in_any_order(here: Path, names: tuple[str, ...]) -> None:
    labels = {name: target(here).label(table(here, name)).rows["label"][:] for name in names}
    assert labels == {"MNLI/train.tsv": [0, 1, 2, 1], "HANS/test.tsv": [0, 1, 1], "own.tsv": [2, 0, 1]}


def test_a_set_of_coarser_classes_is_scored_folded_and_by_its_own_metrics(here: Path) -> None:
    ours, answers = target(here), outputs([0, 2, 0])
    hans = ours.label(table(here, "HANS/test.tsv"))
    assert ours.score(hans, answers) == {"accuracy": pytest.approx(2 / 3)}  # a contradiction is a non-entailment
    gold, given = ours.answers(hans, answers)
    assert gold == ["entailment", "non-entailment", "non-entailment"]
    assert given == ["entailment", "non-entailment", "entailment"]
    # The rows that choose the epoch are scored as the training rows are, whatever set they are.
    chosen = ours.choosing(hans)
    assert next(iter(ours.score(chosen, answers))) == ours.primary_metric == "accuracy"
    assert ours.score(chosen, answers)["accuracy"] == pytest.approx(1 / 3)


def test_classes_of_training_rows_are_those_of_their_task(here: Path) -> None:
    raw = table(here, "MNLI/train.tsv")
    inferred = Target.infer(raw)
    assert inferred.space.names == CLASSES and inferred.row is not None and inferred.row.name == "MNLI"
    assert inferred.label(raw).rows["label"][:] == [0, 1, 2, 1]
    assert Target.infer(table(here, "own.tsv")).space.names == ("Contradiction", "ENTAILMENT", "neutral")


def test_the_row_that_counts_is_that_of_the_training_rows_or_of_the_first_test_in_the_domain(here: Path) -> None:
    hans, own = str(here / "HANS"), str(here / "own.tsv")
    sources = Sources.parse(EvaluateOptions(test=[hans, "rte=RTE/test.tsv", "sst=SST-2/test.tsv"], ood=[own]))
    assert sources.row is not None and sources.row.name == "RTE"
    assert [sources.domain(name) for name in sources.tests] == ["out", "in", "in", "out"]
    trained = Sources.parse(EvaluateOptions(train=hans, test=[hans, "rte=RTE/test.tsv"]))
    assert trained.row is not None and trained.row.name == "HANS" and trained.outside == frozenset()


def test_an_unlabelled_table_is_not_scored(here: Path) -> None:
    rows = read(Source.parse(str(here / "own.tsv")), Reading(), split="train", labelled=False)
    assert rows.rows.column_names == ["text", "text_pair"]
    with pytest.raises(RailkdError, match="was read without labels"):
        target(here).label(rows)


def test_splits_hold_every_table_of_a_job(here: Path) -> None:
    train, lines = str(here / "MNLI" / "train.tsv"), list[str]()
    options = DistillOptions(train=train, eval=str(here / "own.tsv"), test=[f"hans={here / 'HANS'}"], unlabelled=train)
    splits = Splits.read(options, lambda raw: target(here), lines.append)
    assert [len(splits.train), splits.unlabelled and len(splits.unlabelled)] == [4, 4]
    assert list(splits.scored) == ["hans", "eval"] and splits.metric == "accuracy"
    assert splits.tests["hans"].domain == "out" and len(splits.texts()) == 8
    assert splits.training_rows(3)["label"][:] == [0, 1, 2, 1, -100, -100, -100, -100]
    assert sum("rows" in line for line in lines) == 4


def test_fewer_training_rows_are_drawn_with_their_labels_and_the_classes_of_all(here: Path) -> None:
    lines = list[str]()
    options = DistillOptions(train=str(here / "MNLI" / "train.tsv"), max_train_rows=2)
    splits = Splits.read(options, Target.infer, lines.append)
    whole = Splits.read(DistillOptions(train=options.train), Target.infer, lambda line: None)
    assert splits.target.space.names == whole.target.space.names == CLASSES
    rows = {row["text"]: row["label"] for row in whole.train.rows}
    assert len(splits.texts()) == 2 and all(rows[row["text"]] == row["label"] for row in splits.train.rows)
    assert splits.contents == whole.contents and any("2 of the 4 training rows are drawn" in line for line in lines)
