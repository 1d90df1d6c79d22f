"""A run goes on with the rows and models that it began with, whatever their names are, and with no others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.room import ALONE
from bench.room import prepare as prepare_bench
from bench.room import room as bench_room
from faults.driver import Driver
from faults.runs import BY_STEPS, differences, left
from railkd.records import RunRecord, read_lines
from railkd.report.content import content
from railkd.report.study import read
from railkd.runtime.sealed import seal
from thorough import unless

RUN = ["distill", *BY_STEPS, "--unlabelled", "more.tsv", "--output", "out"]
RESUME = [word for word in RUN if word != "--quiet"] + ["--resume"]


def edit_line(path: Path, number: int, old: str, new: str) -> None:
    lines = path.read_text().splitlines()
    assert old in lines[number]
    lines[number] = lines[number].replace(old, new, 1)
    path.write_text("\n".join(lines) + "\n")


def turn_name(path: Path) -> None:
    """Change the label of the last row and nothing else."""
    lines = path.read_text().splitlines()
    old = lines[-1].split("\t")[1]
    edit_line(path, -1, f"\t{old}", "\tneg" if old == "pos" else "\tpos")


def swap_rows(path: Path) -> None:
    head, one, two, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, two, one, *rest]) + "\n")


def turn_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = sorted(name for name in weights if weights[name].is_floating_point())[0]
    weights[name].view(-1)[0] += 1.0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def turn_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, base: Path, railkd: Driver) -> Path:
    """A run that was killed between two checkpoints, beside files of its own."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    shutil.copytree(base, folder)
    rows = [line.split("\t")[0] + " more" for line in (folder / "train.tsv").read_text().splitlines()[1:8]]
    (folder / "more.tsv").write_text("\n".join(["text", *rows]) + "\n")
    shutil.copytree(folder, folder.with_name("whole"))
    assert railkd(folder.with_name("whole"), *RUN)[0] == 0
    assert railkd(folder, *RUN, fault="KILL@step:8")[0] == -9
    return folder


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "run"))


CHANGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a label of the training rows": ("train.tsv", turn_name, "--train 'train.tsv'"),
    "two training rows": ("train.tsv", swap_rows, "--train 'train.tsv'"),
    "a label of the rows that choose": ("dev.tsv", turn_name, "--eval 'dev.tsv'"),
    "an unlabelled text": ("more.tsv", lambda path: edit_line(path, 3, " more", " less"), "--unlabelled 'more.tsv'"),
    "a weight of the teacher": ("teacher", turn_weight, "--teacher 'teacher'"),
    "the config of the teacher": ("teacher", turn_config, "--teacher 'teacher'"),
}


#: Rows with labels, rows without, and a model.
TELLING = {"a label of the training rows", "an unlabelled text", "a weight of the teacher"}


@pytest.mark.parametrize("name", unless(TELLING.__contains__, CHANGES), ids=str)
def test_other_contents_are_refused_by_name_before_anything_is_done(run: Path, railkd: Driver, name: str) -> None:
    file, change, words = CHANGES[name]
    change(run / file)
    before = {path: path.read_bytes() for path in (run / "out").rglob("*") if path.is_file()}
    code, said = railkd(run, *RESUME)
    assert code == 2 and words in said and "began with other contents" in said
    assert {path: path.read_bytes() for path in (run / "out").rglob("*") if path.is_file()} == before


def moved(folder: Path) -> list[Any]:
    """Everything under another name, and the run folder too."""
    names = {"teacher": "old/model", "train.tsv": "old/rows.tsv", "dev.tsv": "old/chosen.tsv", "out": "old/run"}
    (folder / "old").mkdir()
    for old, new in names.items():
        (folder / old).rename(folder / new)
    return [str(folder / names[word]) if word in names else word for word in RESUME]


#: These files name the places of a run; the card repeats its command.
NAMING_PLACES = ("config.yaml", "files.json", "record", "student/README.md")
#: What is typed, where it is the same run.
SAME: dict[str, Callable[[Path], list[Any]]] = {
    "with a slash": lambda _: [f"{word}/" if word == "out" else word for word in RESUME],
    "from here": lambda _: [
        f"./{word}" if str(word).endswith((".tsv", "teacher")) and word[0] != "-" else word for word in RESUME
    ],
    "whole paths": lambda at: [at / word if (at / str(word)).exists() else word for word in RESUME],
    "moved": moved,
    "other bars and loaders": lambda _: [*RESUME, "--disable-tqdm", "true", "--dataloader-num-workers", 1],
    "other test rows": lambda _: [*RESUME, "--test", "late=dev.tsv"],
}


@pytest.mark.parametrize("name", unless({"whole paths", "moved", "other test rows"}.__contains__, SAME), ids=str)
def test_the_same_run_by_other_names_goes_on(killed: Path, run: Path, railkd: Driver, name: str) -> None:
    words = SAME[name](run)
    assert words != RESUME
    code, said = railkd(run, *words)
    assert code == 0, said
    if name == "moved":
        (run / "old" / "run").rename(run / "out")
    ours, whole = left(run), left(killed.with_name("whole"))
    differing = [file for file in differences(ours, whole) if file not in NAMING_PLACES]
    assert differing == []
    metrics = dict(ours["record"]["metrics"])
    assert metrics.pop("late", None) is None or name == "other test rows"
    assert metrics == whole["record"]["metrics"] and ours["record"]["curve"] == whole["record"]["curve"]


def test_another_number_of_threads_is_said(run: Path, railkd: Driver) -> None:
    marks = run / "out" / "files.json"
    held = json.loads(marks.read_text())
    assert held["started with"]["threads"] == 1
    marks.write_text(json.dumps(held | {"started with": held["started with"] | {"threads": 3}}))
    code, said = railkd(run, *RESUME)
    assert code == 0 and "began with 3 threads and goes on with 1" in said


def test_a_run_that_noted_no_contents_is_compared_by_its_settings(run: Path, railkd: Driver) -> None:
    """railkd 0.1.0 left such runs."""
    marks = run / "out" / "files.json"
    marks.write_text(json.dumps(json.loads(marks.read_text()) | {"started with": {}}))
    code, said = railkd(run, *(word if word != "more.tsv" else "dev.tsv" for word in RESUME))
    assert code == 2 and "unlabelled was more.tsv, is dev.tsv" in said
    assert railkd(run, *RESUME)[0] == 0


def test_the_seconds_of_a_run_are_those_of_all_its_sessions(run: Path, railkd: Driver) -> None:
    state = run / "out" / "checkpoint-6" / "trainer_state.json"
    held = json.loads(state.read_text())
    first = held["stateful_callbacks"]["Elapsed"]["attributes"]
    assert 0 < first["seconds"] < 600
    first["seconds"] += 1000
    state.write_text(json.dumps(held))
    seal(state.parent)
    assert railkd(run, *RESUME)[0] == 0
    record = RunRecord.read(run / "out" / "metrics.json")
    assert first["seconds"] + 600 > record.seconds["training"] > first["seconds"] > 1000
    (session,) = [entry["train_runtime"] for entry in record.curve if "train_runtime" in entry]
    # The speed is that of this session: the rows of steps 7 and later, over its own seconds.
    assert record.examples_per_second * session < 2 * 29


# ---- a bench ----------------------------------------------------------------------------------------

BENCH = ["bench", "grid.yaml", "--output", "out", "--processes", "1", "--quiet"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, railkd: Driver) -> Path:
    """A finished bench of one teacher that exists and one method."""
    at = tmp_path_factory.mktemp("bench")
    prepare_bench(at / "base")
    grid = ALONE | {"teacher": "base", "methods": ["kd"], "selection": {}}
    folder = bench_room(
        at / "base", at / "run", grid | {"tasks": {"one": {"train": "train.tsv", "test": ["dev=dev.tsv"]}}}
    )
    for name in ("train", "dev"):
        shutil.copy(at / "base" / "data" / "one" / f"{name}.tsv", folder)
    (folder / "base").unlink()
    shutil.copytree(at / "base" / "base", folder / "base")
    code, said = railkd(folder, *BENCH)
    assert code == 0, said
    return folder


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("dev.tsv", turn_name, "the test set 'dev'"),
        ("train.tsv", turn_name, "--train 'train.tsv'"),
        ("base", turn_weight, "--teacher 'base'"),
    ],
    ids=["test", "train", "teacher"],
)
def test_a_bench_is_not_resumed_on_other_contents(
    bench: Path, tmp_path: Path, railkd: Driver, file: str, change: Callable[[Path], None], words: str
) -> None:
    folder = Path(shutil.copytree(bench, tmp_path / "run"))
    assert railkd(folder, *BENCH, "--resume")[0] == 0
    change(folder / file)
    code, said = railkd(folder, *BENCH, "--resume")
    assert code == 2 and f"{words}" in said and "changed since" in said and "'runs/one_2-layers_kd_1'" in said


def test_a_bench_that_was_moved_is_not_run_again(bench: Path, tmp_path: Path, railkd: Driver) -> None:
    folder = Path(shutil.copytree(bench, tmp_path / "run"))
    (folder / "out").rename(folder / "kept")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("kept/*/*/metrics.json")}
    code, said = railkd(folder, "bench", "grid.yaml", "--output", "./kept/", "--quiet", "--resume")
    assert code == 0 and before and {path: path.stat().st_mtime_ns for path in before} == before, said


def test_a_bench_whose_rows_were_moved_is_not_run_again(bench: Path, tmp_path: Path, railkd: Driver) -> None:
    folder = Path(shutil.copytree(bench, tmp_path / "run"))
    (folder / "moved").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).rename(folder / "moved" / name)
    grid = (folder / "grid.yaml").read_text()
    (folder / "grid.yaml").write_text(grid.replace("train.tsv", "moved/train.tsv").replace("dev.tsv", "moved/dev.tsv"))
    before = {path: path.stat().st_mtime_ns for path in folder.glob("out/*/**/metrics.json")}
    code, said = railkd(folder, *BENCH, "--resume")
    assert code == 0 and len(before) == 3, said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    turn_name(folder / "moved" / "train.tsv")
    code, said = railkd(folder, *BENCH, "--resume")
    assert code == 2 and "--train 'moved/train.tsv'" in said and "changed since" in said


def test_a_report_averages_over_equal_test_sets_alone(bench: Path, tmp_path: Path) -> None:
    (record,) = [found for found in read_lines(bench / "out" / "records.jsonl") if found.job == "distill"]
    for seed, rows in ((1, "a"), (2, "a"), (3, "b")):
        record.seed, record.contents["test dev"] = seed, rows * 32
        record.folder, record.metrics = "", {"dev": {"accuracy": 0.5 if rows == "a" else 0.9}}
        (tmp_path / str(seed)).mkdir()
        record.write(tmp_path / str(seed) / "metrics.json")
    report = content(read([tmp_path]))
    (group,) = report["scores"]["in"]["groups"]
    sets = [column["set"] for column in report["scores"]["in"]["columns"]]
    assert sets == ["dev (aaaaaa)", "dev (bbbbbb)"]
    assert [(cell["mean"], cell["n"]) for cell in group["rows"][0]["cells"]] == [(50.0, 2), (90.0, 1)]
    assert any("2 test sets of the name dev" in note for note in report["notes"])


def test_digests_of_rows_see_content_and_nothing_else(tmp_path: Path, base: Path, railkd: Driver) -> None:
    shutil.copytree(base, tmp_path / "run")
    folder = tmp_path / "run"
    shutil.copy(folder / "dev.tsv", folder / "copy.tsv")
    words = ["finetune", "--model", "teacher", "--train", "train.tsv", "--max-steps", 1, "--no-bf16", "--quiet"]
    assert railkd(folder, *words, "--test", "dev=dev.tsv", "copy.tsv", "other=train.tsv", "--output", "out")[0] == 0
    contents = RunRecord.read(folder / "out" / "metrics.json").contents
    assert contents["test dev"] == contents["test copy"] != contents["test other"] == contents["train"]
    rows = {"train", "test dev", "test copy", "test other"}
    assert contents.keys() == {"model", *rows, *(f"texts {part}" for part in rows)}
    assert contents["texts train"] == contents["texts test other"] != contents["train"]
    assert torch.tensor([len(digest) for digest in contents.values()]).eq(32).all()
