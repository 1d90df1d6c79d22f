"""Commands that copy a teacher cache, and students that learn from the copy alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tiny
from jobs.commands import argv, railkd
from railkd.cli import main
from railkd.records import RunRecord
from railkd.teacher import TeacherCache
from stand_in_hub import Hub

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, teacher_folder: Path) -> Path:
    """Rows, a student of another width than the teacher, and a run that left a small cache."""
    folder = tmp_path_factory.mktemp("exchange")
    shutil.copytree(teacher_folder, folder / "teacher")
    tiny.save(folder / "student", tiny.make_model(2, width=8, dropout=0.0), tiny.make_tokenizer())
    lines = [f"{row['text']}\t{row['label']}" for row in tiny.text_rows()]
    (folder / "rows.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    railkd(*distil(folder, "rail", *with_teacher(folder), "--cache-dtype int8 --states-dim 8"))
    return folder


def distil(here: Path, output: str, *more: object) -> list[str]:
    return argv("distill --train", here / "rows.tsv", "--max-steps 2 --no-bf16 --quiet --output", here / output, *more)


def with_teacher(here: Path, cache: str = "cache") -> tuple[object, ...]:
    words = "--student-layers 2 --shared-size 4 --allow-weak-teacher --max-length 64 --no-gauges --teacher"
    return words, here / "teacher", "--cache", here / cache


def test_a_pulled_cache_teaches_without_the_teacher(here: Path, usual: Hub, capsys: Capture) -> None:
    cache = TeacherCache.open(here / "cache")
    started = RunRecord.read(here / "rail" / "metrics.json").start
    assert started["states"] == {"dtype": "int8", "row_bytes": cache.row_bytes, "dim": 8}
    assert cache.row_bytes > 4 * (8 + 4)
    railkd("cache", "push", "me/x", "--cache", here / "cache", "--private")
    caught = capsys.readouterr()
    assert "pushed: 22 rows in the hub's data set 'me/x'; 1 shard copied, 0 there already" in caught.out
    assert "keys, outputs and states, no texts and no weights" in caught.err and usual.private == [True]
    assert not any(b"film" in content for content in usual.files.values())  # a word of the rows
    railkd("cache", "pull", "me/x", "--cache", here / "pulled")
    caught = capsys.readouterr()
    assert "pulled: 22 new rows of the hub's data set 'me/x'; 1 shard copied and verified" in caught.out
    assert "4 blocks of 8 principal components in int8" in caught.err
    (here / "teacher").rename(here / "gone")
    railkd(*distil(here, "kd", "--student", here / "student", "--method kd --no-gauges --cache", here / "pulled"))
    (here / "gone").rename(here / "teacher")
    kd, rail = (RunRecord.read(here / name / "metrics.json") for name in ("kd", "rail"))
    assert kd.contents["teacher"] == rail.contents["teacher"] != "" and "states" not in kd.start


def test_the_teacher_goes_on_with_a_pulled_cache_and_another_format_is_refused(here: Path, capsys: Capture) -> None:
    railkd("cache", "push", here / "folder", "--cache", here / "cache")
    railkd("cache", "pull", here / "folder", "--cache", here / "mine")
    before = (here / "mine" / "manifest.json").read_bytes()
    assert before == (here / "cache" / "manifest.json").read_bytes()
    teacher = argv("cache --train", here / "rows.tsv", "--no-bf16 --max-length 64 --teacher", here / "teacher")
    railkd(*teacher, "--cache", here / "mine", "--cache-dtype", "int8", "--states-dim", 8)
    assert (here / "mine" / "manifest.json").read_bytes() == before
    capsys.readouterr()
    assert main(distil(here, "other", *with_teacher(here, "mine"), "--cache-dtype float16")) == 2
    assert "states_dtype is int8 in the cache, float16 here" in capsys.readouterr().err
    assert main(distil(here, "other", *with_teacher(here, "mine"), "--method pkd-skip")) == 2
    assert "Expected whole states for pkd-skip, which learns them number by number" in capsys.readouterr().err


def test_a_file_of_settings_names_no_place(here: Path, capsys: Capture) -> None:
    (here / "push.yaml").write_text("place: me/x\n")
    assert main(argv("cache push --config", here / "push.yaml", "--cache", here / "cache")) == 2
    assert "place has no effect in a file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["rehearsal", "check"])
def test_too_many_components_are_refused_before_the_teacher_runs(command: str, here: Path, capsys: Capture) -> None:
    words = distil(here, "large", *with_teacher(here, "new"), "--eval", here / "rows.tsv", "--states-dim 500")
    if command == "check":
        words = argv("check --train", here / "rows.tsv", "--states-dim 500 --teacher", here / "teacher")
    assert main(words + ["--rehearse"] * (command == "rehearsal")) == 2
    assert "fewer than a state's 16 numbers, and a pooling to store, got 500" in capsys.readouterr().err
    assert not (here / "large").exists() and not (here / "new").exists()
