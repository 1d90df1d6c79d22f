"""Several files of training rows and of rows without labels, each with its share of every batch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bench.room import ALONE, inside
from jobs.commands import argv, railkd
from railkd.bench.grid_reader import load
from railkd.bench.plan import make_jobs
from railkd.cli import main
from railkd.cli.bench import make_verbs
from railkd.data.reader import read
from railkd.data.reading import Reading
from railkd.data.shares import parse_shares, split_share
from railkd.data.sources import Source, load_rows
from railkd.errors import RailkdError
from railkd.jobs.contents import changed_settings
from railkd.jobs.held_out import check_held_out
from railkd.jobs.options import DistillOptions
from railkd.jobs.settings import convert, settings_of
from railkd.jobs.splits import Splits
from railkd.records import RunRecord
from railkd.tasks.target import Target
from tiny import text_rows, write_files

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 and 8 rows with labels, 9 without in one file, 20 in three others, one of which has no answer."""
    texts = list(text_rows(60)["text"])
    labels = ["fine" if "good" in text or len(text) % 2 else "bad" for text in texts]
    table = [f"{text}\t{label}" for text, label in zip(texts, labels, strict=True)]
    shares, answered = {"fine": 0.75, "bad": 0.25}, [*texts[:29], *texts[30:49]]
    answers = [json.dumps({"text": text, "probabilities": shares}) for text in answered]
    return write_files(
        tmp_path_factory.mktemp("mixtures"),
        {
            "a.tsv": "\n".join(["text\tlabel", *table[:12], ""]),
            "b.tsv": "\n".join(["text\tlabel", *table[12:19], table[3], ""]),
            "c.csv": "\n".join(["review", *texts[20:29], ""]),
            **{f"more/{n}.tsv": "\n".join(["sentence", *texts[29 + 7 * n : 36 + 7 * n][:7], ""]) for n in range(2)},
            "more/2.tsv": "\n".join(["sentence", *texts[43:49], ""]),
            "stars.tsv": "\n".join(["text\tstars", *table[:4], ""]),
            "pairs.tsv": "premise\thypothesis\na b\tc d\n",
            "answers.jsonl": "\n".join([*answers, ""]),
        },
    )


def distill(base: Path, data: Path, *words: object) -> list[str]:
    files = (
        f"--train {data}/a.tsv --train {data}/b.tsv --unlabelled {data}/c.csv:0.25 --unlabelled {data}/more/*.tsv:0.5"
    )
    quick = "--student-layers 1 --method kd --batch-size 8 --learning-rate 0.01 --no-bf16 --quiet"
    return argv("distill --teacher-labels", data / "answers.jsonl", "--student", base, files, quick, *words)


def test_shares_reach_the_batches_the_record_and_another_run(
    base: Path, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = [word for word in distill(base, data, "--max-steps 7 --output", tmp_path / "one") if word != "--quiet"]
    railkd(*words)
    said = capsys.readouterr().err
    names = f"25.0% of the labelled rows (0.6 of its rows an epoch), 25.0% of {data}/c.csv"
    assert f"every batch has {names}" in said and "each row 1.26 times an epoch" in said
    assert f"{data}/a.tsv + {data}/b.tsv: 1 row has the text of an earlier row" in said
    assert "no answer to 1 of 29 unlabelled texts; they are left out" in said
    record = RunRecord.read(tmp_path / "one" / "metrics.json")
    assert record.seen == {"steps": 7, "rows": 56, "labelled": 14, "unlabelled": 42}
    assert record.config["train"] == [f"{data}/a.tsv", f"{data}/b.tsv"]
    assert record.config["unlabelled"] == [f"{data}/c.csv:0.25", f"{data}/more/*.tsv:0.5"]
    railkd("distill", "--config", tmp_path / "one" / "config.yaml", "--output", tmp_path / "two", "--quiet")
    again = RunRecord.read(tmp_path / "two" / "metrics.json")
    assert again.curve[-2]["loss"] == record.curve[-2]["loss"] and again.contents == record.contents
    weights = [(tmp_path / name / "student" / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    for name, labelled, part in (("b.tsv", True, "train"), ("c.csv", False, "unlabelled")):
        table = read(Source.parse(f"{data}/{name}"), Reading(), split="train", labelled=labelled)
        with pytest.raises(RailkdError, match=f"holds the rows that trained the model \\(--{part} of"):
            check_held_out(str(tmp_path / "one" / "student"), table, "--eval")


def test_tables_of_several_files_hold_the_rows_of_all(data: Path) -> None:
    said: list[str] = []
    options = DistillOptions(
        train=[str(data / "a.tsv"), str(data / "b.tsv")],
        unlabelled=[str(data / "more" / "*.tsv"), f"{data}/c.csv:0.25"],
        eval_share=0.25,
    )
    splits = Splits.read(options, Target.infer, said.append)
    whole = [*load_rows(options.train[0])["text"], *load_rows(options.train[1])["text"]]
    assert sorted([*splits.train.rows["text"], *splits.eval.rows["text"]]) == sorted(whole)
    texts = [*load_rows(f"{data}/more/*.tsv")["sentence"], *load_rows(f"{data}/c.csv")["review"]]
    assert list(splits.unlabelled.rows["text"]) == texts and len(splits.contents["unlabelled"]) == 32
    rows, shares, names = splits.mixture.of_batches(len(splits.train))
    assert rows == [len(splits.train), 20, 9] and names[0] == "the labelled rows"
    assert shares == pytest.approx([0.75 * rows[0] / (rows[0] + 20), 0.75 * 20 / (rows[0] + 20), 0.25])
    # Without shares an epoch has each row once, as ever.
    assert replace(splits.mixture, shares=(None, None)).of_batches(len(splits.train)) is None
    none = splits.keep_unlabelled(np.arange(20))
    assert none.mixture.of_batches(len(splits.train)) is None  # the source with a share has no row left
    for other, message in ((["a.tsv", "stars.tsv"], "same columns"), (["a.tsv", "pairs.tsv"], "label column")):
        with pytest.raises(RailkdError, match=message):
            Splits.read(replace(options, train=[str(data / name) for name in other]), Target.infer, said.append)
    with pytest.raises(RailkdError, match="expected one text a row"):
        Splits.read(replace(options, unlabelled=[str(data / "pairs.tsv")]), Target.infer, said.append)


def test_one_value_is_written_as_ever_and_another_share_is_another_run() -> None:
    setting, two = settings_of(DistillOptions)["unlabelled"], ["a.tsv:0.5", "b.tsv"]
    assert [convert(setting, given, "") for given in ("a.tsv", two)] == ["a.tsv", two]

    def changed(before: Any, now: Any) -> list[str]:
        return changed_settings({"unlabelled": before}, {"unlabelled": now}, (), {"unlabelled"})

    assert changed("b.tsv:0.5", ["b.tsv:0.5"]) == [] == changed("b.tsv:0.5", "moved.tsv:0.50")
    assert changed("b.tsv:0.5", "b.tsv:0.4") and changed("b.tsv:0.5", "b.tsv") and changed("b.tsv", ["b.tsv", "c.tsv"])


def test_check_and_grids_take_sources_with_shares(data: Path, base: Path, tmp_path: Path, capsys: Capture) -> None:
    words = distill(base, data)
    kept = words[: words.index("--method")]
    assert main(["check", *kept[1:], "--max-steps", "5", "--json"]) in (0, 2)
    assert json.loads(capsys.readouterr().out)["findings"]
    grid = {"train": ["a.tsv", "b.tsv"], "unlabelled": ["c.csv", "more/*.tsv:0.3"], "test": "b.tsv"}
    settings = {key: value for key, value in ALONE.items() if key != "data"}
    settings |= {"tasks": {"one": grid}, "teacher": {"finetune": str(base)}, "methods": ["kd", "finetune"]}
    (data / "grid.yaml").write_text(yaml.safe_dump(settings))
    with inside(data):
        jobs = make_jobs(load("grid.yaml"), "out", make_verbs())
    caches, runs = ([job for job in jobs if job.kind == kind] for kind in ("cache", "distill"))
    assert caches[0].request.options.train == ["a.tsv", "b.tsv", "c.csv", "more/*.tsv"]
    assert {tuple(job.request.options.unlabelled) for job in runs} == {("c.csv", "more/*.tsv:0.3")}
    assert all(job.request.options.train == ["a.tsv", "b.tsv"] for job in runs)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["x.tsv:1"], "between 0 and 1 .*got 1\\."),
        (["x.tsv:0"], "got 0\\."),
        (["x.tsv:-0.2"], "got -0.2"),
        (["x.tsv:30"], "got 30"),
        (["x.tsv:30%"], "got 30%"),
        (["x.tsv:1e3"], "got 1e3"),
        (["x.tsv:0.5", "y.tsv:0.5"], "a sum below 1, .*got 1\\."),
        (["x.tsv", "x.tsv:0.5"], "each source once, got 'x.tsv' twice"),
    ],
)
def test_shares_that_no_batch_can_have_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(RailkdError, match=message):
        parse_shares(texts)


def test_a_share_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "x.tsv:0.5").write_text("text\na\n")
    assert split_share(str(tmp_path / "x.tsv:0.5")) == (str(tmp_path / "x.tsv:0.5"), None)
    for name in ("nyu-mll/glue:rte:validation", "cnn:3.0.0", r"C:\rows\a.tsv", "imdb@v1:test", "a.tsv[:1000]"):
        assert split_share(name) == (name, None) and split_share(f"{name}:.25") == (name, 0.25)
