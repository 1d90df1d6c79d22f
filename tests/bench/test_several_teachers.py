"""Grids with several teachers: those of several seeds are one line, a list is their mean, each has its own cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.room import ALONE, in_process, inside, room
from bench.test_plan import plan
from railkd.bench import grid_reader
from railkd.bench.contents import refuse_other_contents
from railkd.bench.loop import find_followers
from railkd.bench.plan import make_jobs
from railkd.cli.bench import make_verbs
from railkd.errors import RailkdError
from railkd.records import RunRecord
from railkd.report.content import content
from railkd.report.study import read

TUNED = {**ALONE["teacher"], "epochs": 1}
SEEDS = ALONE | {"teacher": TUNED | {"seeds": 2}, "methods": ["kd", {"name": "rail-kd-l", "shared_size": 8}]}


def test_teachers_of_several_seeds_are_one_line_and_their_mean_teaches(base: Path, tmp_path: Path) -> None:
    jobs = plan(base, tmp_path / "run", SEEDS | {"cache": {"states_dim": 4}})
    assert [(job.kind, job.folder.rpartition("/")[2], job.arm) for job in jobs[:5]] == [
        ("finetune", "base-seed-1", "teacher, base-seed-1"),
        ("cache", "base-seed-1", ""),
        ("finetune", "base-seed-2", "teacher, base-seed-2"),
        ("cache", "base-seed-2", ""),
        ("evaluate", "base", "teacher"),
    ]
    assert [job.request.training["seed"] for job in jobs if job.kind == "finetune"] == [1, 2]
    assert [job.request.options.pooling for job in jobs if job.kind == "cache"] == [["mean"], ["none"]]
    assert [job.request.options.states_dim for job in jobs if job.kind == "cache"] == [4, None]
    models, caches = ([f"out/{room}/one/base-seed-{n}/{name}" for n in (1, 2)] for room, name in _PLACES)
    for job in jobs[5:]:
        assert (job.request.options.teacher, job.request.options.cache) == (models, caches)
        assert set(job.needs) == {other.folder for other in jobs[:4]}
    assert jobs[4].request.options.model == models and set(jobs[4].needs) == {jobs[0].folder, jobs[2].folder}
    # One weak teacher of several leaves nothing out: the mean is judged.
    weak = RunRecord("finetune", None, 1, finding={"level": "error", "title": "", "detail": "", "fix": ""})
    assert find_followers(jobs[0], weak, jobs[1:])[0] == []


_PLACES = (("teachers", "model"), ("caches", "cache"))


def test_a_list_and_a_mean_with_weights_mix_models_and_files(base: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(json.dumps({"text": "good", "votes": ["pos"]}) + "\n")
    file = {"labels": str(tmp_path / "answers.jsonl")}
    mixed = {"mean": [file, "base", TUNED | {"seeds": 2}], "weights": [2, 1, 1], "states_from": "3"}
    *_, kd = plan(base, tmp_path / "mixed", ALONE | {"teacher": mixed, "methods": ["kd"]})
    options = kd.request.options
    assert options.teacher == ["base", *(f"out/teachers/one/base-seed-{n}/model" for n in (1, 2))]
    assert options.teacher_labels == file["labels"] and options.teacher_weights == [1, 0.5, 0.5, 2]
    assert options.states_from == "2" and len(options.cache) == 3
    students = [{"layers": 2, "name": "of-two"}, {"layers": 1, "name": "of-one", "teacher": "base"}]
    grid = ALONE | {"teacher": ["base", TUNED], "students": students, "methods": ["kd"]}
    jobs = plan(base, tmp_path / "both", grid)
    # A teacher that also teaches alone is trained, run and scored once, and has its own row.
    found = [(job.kind, job.arm, job.student) for job in jobs]
    assert found.count(("evaluate", "teacher", "")) == 1 and ("finetune", "teacher, base-2", "of-two") in found
    assert ("evaluate", "teacher", "of-two") in found and len(found) == 7


REFUSED: list[tuple[Any, str]] = [
    (["a"], "expected two teachers or more in a list, got 1"),
    ([], "expected two teachers or more in a list, got 0"),
    (["a", "a"], "'aNone' occurs twice"),
    (["a", ["b", "c"]], "teacher[2]: expected"),
    (["a", {"mean": ["b", "c"]}], "teacher[2]: expected the folder of a finished teacher"),
    (["a", None], "teacher[2]: expected"),
    ({"mean": ["a", "b"], "weights": [1]}, "teacher.weights: expected 2 finite numbers of 0 or more, not all 0"),
    ({"mean": ["a", "b"], "weights": [1, -1]}, "teacher.weights: expected 2 finite numbers"),
    ({"mean": ["a", "b"], "weights": [0, 0]}, "teacher.weights: expected 2 finite numbers"),
    ({"mean": ["a", "b"], "weights": [float("nan"), 1]}, "teacher.weights: expected 2 finite numbers"),
    ({"mean": ["a", "b"], "weights": {"a": 1}}, "teacher.weights: expected 2 finite numbers"),
    ({"mean": ["a", "b"], "states_from": "c"}, "teacher.states_from: expected one of the teachers"),
    ({"mean": ["a", {"labels": "f"}], "states_from": 2}, "teacher.states_from: expected one of the teachers"),
    ({"mean": ["a", "b"], "weight": [1, 2]}, "weight"),
    ({"finetune": "m", "seeds": 0}, "teacher.seeds: expected the number of seeds"),
    ({"finetune": "m", "seeds": 2, "seed": 1}, "'seed' and 'seeds' exclude each other"),
]


@pytest.mark.parametrize(("teacher", "said"), REFUSED)
def test_teachers_that_a_grid_cannot_have_are_refused(teacher: Any, said: str, tmp_path: Path) -> None:
    task = {"train": "t.tsv", "test": ["t.tsv"]}
    grid = {"name": "g", "tasks": {"t": task}, "teacher": teacher, "students": [{"layers": 1}], "methods": ["kd"]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    with pytest.raises(RailkdError) as raised:
        grid_reader.load(tmp_path / "grid.yaml")
    assert said in str(raised.value)


def test_a_bench_of_two_seeds_scores_each_and_their_mean_and_resumes(base: Path, tmp_path: Path) -> None:
    folder = room(base, tmp_path / "run", SEEDS | {"methods": ["kd"]})
    records = in_process(folder)
    assert [record.state for record in records] == ["finished"] * 6
    one, _, two, _, mean, student = records
    assert one.arm == "teacher, base-seed-1" and mean.arm == "teacher"
    assert mean.metrics.keys() == one.metrics.keys() - {"eval"}
    assert mean.sizes["parameters"] == one.sizes["parameters"] + two.sizes["parameters"]
    assert {"teacher 1", "teacher 2"} <= student.contents.keys() and mean.metrics["dev"] and student.metrics["dev"]
    (folder / "out" / "grid.yaml").rename(folder / "empty.yaml")  # this bench was not read from a file
    study = read([folder / "out"])
    assert len(study.caches) == 2 and not [note for note in study.notes if "repeat" in note]
    found = content(study)
    assert [row["arm"] for row in found["scores"]["in"]["groups"][0]["rows"]] == [
        *("teacher", "teacher, base-seed-1", "teacher, base-seed-2")
    ]
    assert found["agreement"]  # of the student with the mean
    with inside(folder):
        jobs = make_jobs(grid_reader.load("grid.yaml"), "out", make_verbs())
        done = {record.folder: record for record in records}
        refuse_other_contents(jobs, Path("out"), done)
        student.contents["teacher 2"] = "other"
        with pytest.raises(RailkdError, match="the teacher 'out/teachers/one/base-seed-2/model' changed since"):
            refuse_other_contents(jobs, Path("out"), done)
