"""What a report reads: folders of benchmarks and of single runs, the files that their records name, and no others."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from railkd.data.predictions import write_answers
from railkd.errors import RailkdError
from railkd.records import RunRecord, write_lines
from railkd.report import predictions
from railkd.report.content import content
from railkd.report.study import read
from report.made_runs import report_of, run_of
from report.make_records import make


@pytest.mark.parametrize("place", ["../other", "/etc", "link"])
def test_a_record_names_only_files_in_its_folder(place: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.tsv").write_text("index\tgold\tlabel\tlogit_a\n0\ta\ta\t1\n")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "other")
    made = RunRecord(
        "distill", "kd", 1, task="t", student="s", arm="kd", labels=["a"], metrics={"x": {"accuracy": 0.5}}
    )
    for record in (replace(made, folder=place), replace(made, predictions={"x": f"{place}/secret.tsv"})):
        write_lines(tmp_path / "runs" / "records.jsonl", [record])
        with pytest.raises(RailkdError, match="expected paths inside of the folder"):
            content(read([tmp_path / "runs"]))


def test_kept_texts_with_quotes_are_read_as_they_were_written(tmp_path: Path) -> None:
    """In quotes where a cell needs them: an earlier release left the header as it is."""
    row = RunRecord("distill", "kd", 1, task="t", student="s", arm="kd", labels=["a", "b"])
    row.predictions = {"old": "old.tsv", "new": "new.tsv"}
    row.metrics = {name: {"accuracy": 1.0} for name in row.predictions}
    write_lines(tmp_path / "records.jsonl", [row])
    texts = ['"open', 'say "x"', "plain", '"whole"', "long " * 30_000]
    header = ["index", "gold", "label", "logit_a", "logit_b", "text"]
    with (tmp_path / "old.tsv").open("w", newline="") as file:
        rows = [[i, "a", "a", 1, 0, text] for i, text in enumerate(texts)]
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([header, *rows])
    kept, logits = [(text,) for text in texts], np.array([[1, 0]] * 5)
    write_answers(tmp_path / "new.tsv", ["a"] * 5, ["a"] * 5, logits, ["a", "b"], kept)
    found = predictions.Predictions(read([tmp_path]))
    assert [found.sets["t", name]["s", "kd"][1].texts for name in ("old", "new")] == [texts, texts]


def test_folders_of_single_runs_are_read_and_named(tmp_path: Path) -> None:
    for seed, rate in ((1, 1e-4), (2, 1e-4), (1, 5e-5)):
        run = RunRecord("distill", "kd", seed, metrics={"dev": {"accuracy": 0.5}}, commit=None)
        run.config = {
            "train": "data/movie/train.tsv",
            "student_layers": 3,
            "learning_rate": rate,
            "seed": seed,
            "method": "kd",
        }
        folder = tmp_path / f"{seed}-{rate}"
        folder.mkdir()
        run.write(folder / "metrics.json")
    study = read([tmp_path])
    assert {run.key for run in study.students} == {
        ("movie", "3 blocks", "kd learning_rate=0.0001", 1), ("movie", "3 blocks", "kd learning_rate=0.0001", 2),
        ("movie", "3 blocks", "kd learning_rate=5e-05", 1),
    }  # fmt: skip


def test_of_repeated_runs_only_the_latest_counts_and_a_note_says_so(tmp_path: Path) -> None:
    old, new = run_of("kd", 1, 0.1), run_of("kd", 1, 0.9)
    new.started = "2027"
    report = report_of(tmp_path, new, old)
    assert report["scores"]["in"]["groups"][0]["rows"][0]["cells"][0]["mean"] == pytest.approx(90)
    assert "1 run repeats another" in report["notes"][0]


def gauged(gauges: dict[str, Any]) -> str:
    """Return a record with these gauges as JSON."""
    return json.dumps(asdict(run_of("kd", 1, 0.5, gauges=gauges)))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "contains neither records.jsonl nor a run folder"),
        ({"records.jsonl": "{"}, "records.jsonl, line 1: is not a run record"),
        ({"run/metrics.json": "[]"}, "metrics.json: is not a run record"),
        *(
            ({"run/metrics.json": gauged(gauges)}, f"run/metrics.json: is not a run record (gauges: {words}")
            for gauges, words in (
                ({"similarity": 3}, "similarity: input should be a valid dictionary"),
                ({"similarity": {"after": [[1.0], [1.0, 2.0]]}}, "similarity.after: expected rows of equal length"),
                ({"readings": [{"rank": 1.0, "term": 2.0}]}, "readings: expected target_rank, variance too"),
                ({"readings": [{"rank": "high"}]}, "readings.0.rank: input should be a valid number"),
            )
        ),
        ({"records.jsonl": "", "grid.yaml": "[a"}, "grid.yaml: expected a grid of railkd bench, got not valid YAML"),
        (
            {"records.jsonl": "", "grid.yaml": "- a"},
            "grid.yaml: expected the mapping of a grid of railkd bench, got list",
        ),
        (
            {"records.jsonl": "", "grid.yaml": "contrasts: [kd]"},
            "expected a contrast with name, arm and baseline, got 'kd'",
        ),
        ({"records.jsonl": "", "grid.yaml": "contrasts: [{arm: kd, domain: far}]"}, "in or out, got 'far'"),
    ],
)
def test_unreadable_input_is_refused_with_its_file_name(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(RailkdError, match=re.escape(message)):
        read([tmp_path])


def test_an_unknown_baseline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RailkdError, match="no finished run of the arm 'kdd'. Fix: choose one of kd"):
        report_of(tmp_path, run_of("kd", 1, 0.5), baseline="kdd")


def test_missing_predictions_are_noted_and_broken_ones_refused(tmp_path: Path) -> None:
    make(tmp_path, seeds=(1,))
    study = read([tmp_path])
    some = study.students[0].folder / "predictions" / "test.tsv"
    some.unlink()
    assert "1 file of predictions is missing." in content(study)["notes"]
    some.write_text("index\tgold\n0\tpositive\n")
    with pytest.raises(RailkdError, match=r"test\.tsv: expected a tsv with gold, label and a logit"):
        content(study)
