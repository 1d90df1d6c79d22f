"""Commands with several teachers: their mean teaches, one of them gives the states, and each has its own cache."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from bench.room import table
from jobs.commands import argv, railkd
from railkd.cli import main
from railkd.cli.verbs import find_verb
from railkd.cli.words import parse
from railkd.errors import RailkdError
from railkd.jobs.contents import Beginning
from railkd.jobs.options import DistillOptions
from railkd.jobs.request import Request
from railkd.jobs.train import reserved
from railkd.models.named_teachers import named_teachers
from railkd.records import RunRecord
from railkd.teacher import TeacherCache

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two unlike teachers with their labels in unlike order, one of other labels, labelled rows, and votes."""
    folder = tmp_path_factory.mktemp("several")
    for seed, (name, labels) in enumerate(
        {"one": ("neg", "pos"), "two": ("pos", "neg"), "other": ("no", "yes")}.items()
    ):
        torch.manual_seed(seed)
        model = tiny.make_model(3, width=8, dropout=0.0)
        model.config.id2label, model.config.label2id = dict(enumerate(labels)), {n: i for i, n in enumerate(labels)}
        with torch.no_grad():
            model.classifier.weight.mul_(20)
        tiny.save(folder / name, model, tiny.make_tokenizer())
    table(folder / "train.tsv", 24, 3)
    table(folder / "dev.tsv", 16, 7)
    lines = [line.split("\t")[0] for line in (folder / "train.tsv").read_text().splitlines()[1:]]
    votes = [{"text": text, "votes": ["pos", "neg", "pos"]} for text in dict.fromkeys(lines[4:])]
    (folder / "votes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in votes))
    return folder


def words(here: Path, output: str, teachers: str, *more: object) -> list[str]:
    files = f"--train {here / 'train.tsv'} --eval {here / 'dev.tsv'} --output {here / output}"
    found = argv(f"distill {teachers}", files, "--epochs 1 --max-length 16 --no-bf16 --allow-weak-teacher", *more)
    return [word.replace("@", f"{here}/") for word in found]


def losses(here: Path, output: str) -> list[float]:
    found = [entry["loss"] for entry in RunRecord.read(here / output / "metrics.json").curve if "loss" in entry]
    assert len(found) > 0
    return found


def test_two_teachers_a_cache_and_a_file_teach_by_weight_and_the_record_names_them(here: Path, capsys: Capture) -> None:
    files = f"--teacher {here / 'two'} --train {here / 'train.tsv'} --cache {here / 'two-cache'}"
    railkd(*argv(f"cache {files} --max-length 16 --no-bf16 --pooling none --quiet"))
    teachers = "--teacher @one --cache @one-cache --cache @two-cache --teacher-labels @votes.jsonl"
    shape = "--student-layers 2 --method rail-kd-l --shared-size 8 --teacher-weights 2,1,1"
    railkd(*words(here, "mixed", teachers, shape))
    said = capsys.readouterr().err
    assert f"teachers: 0.5 of {here}/one, 0.25 of {here}/two-cache, 0.25 of {here}/votes.jsonl; states of" in said
    assert "votes.jsonl: no answer to" in said and "the other teachers have its weight there" in said
    record = RunRecord.read(here / "mixed" / "metrics.json")
    assert [one.name.rpartition("/")[2] for one in named_teachers(record.config)] == ["one", "two-cache", "votes.jsonl"]
    assert record.config["teacher"] == f"{here}/one" and record.config["teacher_weights"] == [2.0, 1.0, 1.0]
    assert {name for name in record.contents if name.startswith("teacher")} == {"teacher 1", "teacher 2", "teacher 3"}
    assert record.labels == ["neg", "pos"] and record.start["blocks"]
    card = (here / "mixed" / "student" / "README.md").read_text()
    assert "the mean of `one`, `two-cache` and the answers in `votes.jsonl` (weights 2.0, 1.0 and 1.0)" in card
    # The settings of the run, given again as a file, name the same teachers.
    again = parse(find_verb("distill"), ["--config", str(here / "mixed" / "config.yaml")]).request.options
    assert again.cache == [f"{here}/one-cache", f"{here}/two-cache"] and again.teacher == f"{here}/one"
    assert named_teachers(again) == named_teachers(record.config)
    # A cache that does not fit is refused before the other teacher runs.
    for given, reason in (
        ("--teacher @one --cache @late-cache --cache @two-cache --states-from 2", "holds outputs alone"),
        ("--teacher @one --teacher @two --cache @late-cache --cache @one-cache", "is of another teacher run"),
    ):
        assert main(words(here, "late", given, "--student-layers 2 --method rail-kd-l --shared-size 8")) == 2
        assert reason in capsys.readouterr().err
        assert not (here / "late-cache").exists() and not (here / "late").exists()


def test_a_teacher_of_the_whole_weight_trains_the_student_of_that_teacher(here: Path) -> None:
    kd = "--student-layers 2 --method kd --quiet --learning-rate 0.01"
    caches = "--cache @one-out --cache @two-out"
    railkd(*words(here, "alone", "--teacher @one --cache @one-out", kd))
    railkd(*words(here, "first", f"--teacher @one --teacher @two {caches} --teacher-weights 1,0", kd))
    assert losses(here, "first") == losses(here, "alone")
    # The student starts from the teacher of the states, with its head in the order of the first teacher's labels.
    states = f"{caches} --teacher-weights 0,1 --states-from 2"
    railkd(*words(here, "second", f"--teacher @one --teacher @two {states}", kd))
    railkd(*words(here, "two-alone", "--teacher @two --cache @two-out", kd))
    np.testing.assert_allclose(losses(here, "second"), losses(here, "two-alone"), atol=1e-6)
    assert np.abs(np.subtract(losses(here, "second"), losses(here, "alone"))).max() > 1e-3
    labels = [RunRecord.read(here / name / "metrics.json").labels for name in ("second", "two-alone")]
    assert labels == [["neg", "pos"], ["pos", "neg"]]


REFUSED = {
    "--teacher @one --teacher @two --teacher-weights 1": "--teacher-weights: expected 2 numbers, in the order",
    "--teacher @one --teacher @two --teacher-weights 1,-1": "finite numbers of 0 or more, not all 0, got 1, -1",
    "--teacher @one --teacher @two --teacher-weights nan,1": "finite numbers of 0 or more, not all 0, got nan, 1",
    "--teacher @one --teacher @two --teacher-weights inf,1": "finite numbers of 0 or more, not all 0, got inf, 1",
    "--teacher @one --teacher @two --teacher-weights 0,0": "finite numbers of 0 or more, not all 0, got 0, 0",
    "--teacher @one --teacher @two --teacher-weights a,b": "--teacher-weights: expected a number, got 'a'",
    "--teacher @one --teacher-weights 1": "--teacher-weights has no effect on one teacher",
    "--teacher @one --states-from 1": "--states-from has no effect on one teacher",
    "--teacher @one --teacher @two --states-from three": "--states-from: expected one of the teachers",
    "--teacher @one --teacher-labels @votes.jsonl --states-from 2": "'2' is a file of answers, which has no states",
    "--teacher @one --teacher @one": "is given twice. Fix: name it once, and give --teacher-weights",
    "--teacher @one --teacher @two --cache @some": "--cache: expected one for each of 2 --teacher, in their order, or",
    "--teacher @one --cache @some --cache @nowhere": "nowhere'. Fix: check the path, or give --teacher to build",
    "--teacher @one --teacher @two --live": "--live runs one teacher at every step, got 2 teachers",
    "--teacher @one --teacher @other": "Expected teachers with the same labels, got neg, pos",
    "--teacher @one --teacher @missing": "no model at",
}


@pytest.mark.parametrize("teachers", REFUSED)
def test_teachers_that_do_not_fit_are_refused_before_anything_is_written(
    teachers: str, here: Path, capsys: Capture
) -> None:
    assert main(words(here, "refused", teachers, "--student-layers 2 --method kd")) == 2
    assert REFUSED[teachers] in capsys.readouterr().err
    assert not (here / "refused").exists()


def test_evaluate_refuses_a_model_that_is_given_twice(here: Path, capsys: Capture) -> None:
    again = here / "two" / ".." / "one"
    assert main(argv("evaluate --model", here / "one", "--model", again, "--test", here / "dev.tsv")) == 2
    assert "one' is given twice. Fix: name it once, and give --model-weights" in capsys.readouterr().err


def test_a_run_goes_on_with_moved_teachers_and_not_with_another_one() -> None:
    settings = {"teacher": ["one", "two"], "teacher_weights": [2.0, 1.0], "method": "kd"}
    began = Beginning(settings, {"teacher 1": "a", "teacher 2": "b"}, 1)
    began.compare(Beginning({**settings, "teacher": ["moved", "two"]}, began.contents, 1), "the run")
    for changed, said in (
        ((settings, {"teacher 1": "a", "teacher 2": "c"}), "began with other contents of the teacher 'two'"),
        (({**settings, "teacher": ["two", "one"]}, {}), "teacher was ['one', 'two'], is ['two', 'one']"),
        (({**settings, "teacher": "one"}, {"teacher": "a"}), "teacher was ['one', 'two'], is one"),
        (({**settings, "teacher_weights": [1.0, 1.0]}, began.contents), "teacher_weights was [2.0, 1.0]"),
    ):
        with pytest.raises(RailkdError, match=re.escape(said)):
            began.compare(Beginning(*changed, 1), "the run")


MIXED = {"teacher": "one", "cache": ["c1", "c2"], "teacher_labels": ["votes", "more"], "states_from": "c2"}
TEACHERS = [f"teacher {number}" for number in range(1, 5)]


@pytest.mark.parametrize(
    ("settings", "moved", "part"),
    [
        (MIXED, {"teacher": "there/one"}, "teacher 1"),
        (MIXED, {"cache": ["c1", "there/c2"], "states_from": "2"}, "teacher 2"),
        (MIXED, {"teacher_labels": ["votes", "there/more"]}, "teacher 4"),
        ({"teacher_labels": "votes"}, {"teacher_labels": "there/votes"}, "teacher"),
        ({"teacher": "one", "teacher_labels": "votes"}, {"teacher_labels": "there/votes"}, "teacher 2"),
    ],
)
def test_teachers_of_every_kind_may_move_and_not_change(
    settings: dict[str, object], moved: dict[str, object], part: str
) -> None:
    contents = {name: name for name in (TEACHERS if part[7:] else ["teacher"])}
    began, now = Beginning(settings, contents, 1), settings | moved
    began.compare(Beginning(now, contents, 1), "the run")
    with pytest.raises(RailkdError, match="began with other contents of the teacher"):
        began.compare(Beginning(now, contents | {part: "other"}, 1), "the run")
    if "cache" not in moved:  # where a cache lies is no setting of a run
        with pytest.raises(RailkdError, match="was started with other settings"):
            began.compare(Beginning(now, {}, 1), "the run")


def test_a_run_goes_on_with_no_teacher_more_or_less() -> None:
    began = Beginning({"teacher": "one", "cache": ["c1", "c2"]}, {"teacher 1": "a", "teacher 2": "b"}, 1)
    with pytest.raises(RailkdError, match=re.escape("cache was ['c1', 'c2'], is c1")):
        began.compare(Beginning({"teacher": "one", "cache": "c1"}, {"teacher": "a"}, 1), "the run")


def test_overwrite_deletes_the_caches_of_the_run_before_and_none_that_is_given(tmp_path: Path) -> None:
    made, room = tmp_path / "made", tmp_path / "run" / "cache"
    options = {"tokenizer": tiny.make_tokenizer(), "max_length": 16, "pooling": "none"}
    TeacherCache.build(tiny.make_model(2), tiny.text_rows(4), made, **options)
    for output in (room / "1", room / "2", room / "mine", room):
        shutil.copytree(made, output, dirs_exist_ok=True)
    (room / "2" / "notes").touch()
    (room / "linked").symlink_to(made)
    (room / "3").symlink_to(made)
    for given, left in (
        ([str(room), str(room / "1" / ".." / "1"), str(made)], {room, room / "1", room / "mine", made}),
        (None, {room / "mine", made}),
    ):
        asked = DistillOptions(output=str(tmp_path / "run"), overwrite=True, cache=given)
        with reserved(Request(asked), RunRecord("distill", "kd", 1), print):
            found = {path for path in (made, room, *room.iterdir()) if not path.is_symlink()}
            assert {path for path in found if TeacherCache.is_built(path)} == left
    assert [path.name for path in (room / "2").iterdir()] == ["notes"] and not (room / "1").exists()
    for name in ("mine", "2"):
        shutil.rmtree(room / name)
    for name in ("linked", "3"):
        (room / name).unlink()
    shutil.copytree(made, room / "1")
    with reserved(Request(asked), RunRecord("distill", "kd", 1), print):
        assert not room.exists()


def test_check_judges_the_mean_and_looks_at_each_teacher(here: Path, capsys: Capture) -> None:
    command = f"check --teacher @one --teacher @two --train {here / 'train.tsv'} --eval {here / 'dev.tsv'} --json"
    main([word.replace("@", f"{here}/") for word in argv(command, "--student-layers 2 --allow-weak-teacher")])
    found = {one["title"]: one["detail"] for one in json.loads(capsys.readouterr().out)["findings"]}
    assert {"lengths (teacher 1)", "lengths (teacher 2)"} <= found.keys()
    assert any("on 16 rows" in detail for detail in found.values())
