"""From a grid to its jobs: what they share, what each one needs, and what is refused before the first one runs."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bench.room import ALONE, SMOKE, inside, room, table
from railkd.bench import bundled_grids, grid_reader
from railkd.bench.estimate import _Plan
from railkd.bench.plan import Job, make_jobs
from railkd.cli import main
from railkd.cli.bench import make_verbs
from railkd.data.glue import GLUE
from railkd.errors import RailkdError
from railkd.objectives import METHODS

Capture = pytest.CaptureFixture[str]


def plan(base: Path, folder: Path, grid: dict[str, Any]) -> list[Job]:
    with inside(room(base, folder, grid)):
        return make_jobs(grid_reader.load("grid.yaml"), "out", make_verbs())


def test_a_teacher_is_trained_once_run_once_and_shared(base: Path, tmp_path: Path) -> None:
    methods = ["finetune", "kd", {"name": "alp-kd"}, {"name": "rail-kd-l", "shared_size": 8}]
    jobs = plan(base, tmp_path / "run", SMOKE | {"methods": methods})
    assert Counter(job.kind for job in jobs) == {"finetune": 2, "cache": 2, "distill": 16}
    teacher, cache, *students = [job for job in jobs if job.task == "one"]
    assert (teacher.needs, cache.needs) == ((), (teacher.folder,))
    assert cache.request.options.pooling == ["cls", "mean"] and cache.request.options.train == ["data/one:train"]
    for job in students:
        reads = job.arm != "finetune"
        assert job.needs == ((teacher.folder, cache.folder) if reads else (teacher.folder,))
        options = job.request.options
        assert options.cache == ("out/caches/one/base/cache" if reads else None)
        assert options.teacher == "out/teachers/one/base/model" and options.keep_predictions == "answers"
        assert options.eval_share == 0.2 and options.eval is None and options.max_length == 16
    assert len({job.folder for job in jobs}) == len(jobs)


@pytest.mark.parametrize(
    ("methods", "poolings"),
    [
        (["kd"], ["none"]),
        (["finetune", "kd"], ["none"]),
        (["kd", "pkd-skip"], ["cls"]),
        (["kd", {"name": "rail-kd-c", "shared_size": 8}], ["mean"]),
    ],
)
def test_a_cache_holds_what_the_methods_read(base: Path, tmp_path: Path, methods: Any, poolings: list[str]) -> None:
    jobs = plan(base, tmp_path / "run", ALONE | {"methods": methods})
    assert [job.request.options.pooling for job in jobs if job.kind == "cache"] == [poolings]


@pytest.mark.parametrize(
    ("dim", "method", "said"),
    [
        (4, "pkd-skip", "Expected whole states for pkd-skip"),
        (8, "gram", "Expected states_dim from 1 to 7, fewer than a state's 8 numbers"),
        (4, "kd", "and a pooling to store, got 4 and none"),
    ],
)
def test_components_that_do_not_fit_are_refused_before_the_teacher_is_trained(
    base: Path, tmp_path: Path, dim: int, method: str, said: str
) -> None:
    with pytest.raises(RailkdError, match=said):
        plan(base, tmp_path / "run", ALONE | {"methods": [method], "cache": {"states_dim": dim}})


def test_a_job_survives_json_on_its_way_to_a_worker(base: Path, tmp_path: Path) -> None:
    for job in plan(base, tmp_path / "run", SMOKE):
        assert Job.from_plain(json.loads(json.dumps(job.plain()))) == job
    wrong = {"seed": ("first", "seed: .*, got 'first'"), "needs": ([1], "needs.0: .*, got 1"), "arm": (None, "arm: ")}
    for place, (value, said) in wrong.items():
        with pytest.raises(ValueError, match=said):
            Job.from_plain({**job.plain(), place: value})
    plain = job.plain()
    plain["request"]["options"]["student_layers"] = "three"
    with pytest.raises(ValueError, match="student_layers: .*, got 'three'"):
        Job.from_plain(plain)


def test_settings_of_a_grid_reach_its_runs(base: Path, tmp_path: Path) -> None:
    teacher = ALONE["teacher"] | {"patience": 2}
    jobs = plan(base, tmp_path / "run", ALONE | {"teacher": teacher, "settings": ALONE["settings"] | {"patience": 3}})
    found = {job.kind: job.request.options.patience for job in jobs if job.kind != "cache"}
    assert found == {"finetune": 2, "distill": 3}


def test_metrics_reach_teachers_and_students_and_class_weights_may_be_an_arm(base: Path, tmp_path: Path) -> None:
    methods = ["kd", {"name": "kd", "class_weights": "toxic=5"}]
    grid = ALONE | {"settings": ALONE["settings"] | {"metrics": ["auroc", "log-loss"]}, "methods": methods}
    jobs = plan(base, tmp_path / "run", grid)
    asked = {job.kind: job.request.options.metrics for job in jobs if job.kind != "cache"}
    assert asked == {kind: ["auroc", "log-loss"] for kind in ("finetune", "distill")}
    weights = {job.arm: job.request.options.class_weights for job in jobs if job.kind == "distill"}
    assert weights == {"kd": None, "kd class_weights=toxic=5": ["toxic=5"]}
    (scored, *_) = plan(base, tmp_path / "scored", grid | {"teacher": "base"})
    assert scored.kind == "evaluate" and scored.request.options.metrics == ["auroc", "log-loss"]
    with pytest.raises(RailkdError, match="no metric 'aurok'"):
        plan(base, tmp_path / "bad", ALONE | {"settings": ALONE["settings"] | {"metrics": "aurok"}})


def test_a_finished_teacher_is_not_trained(base: Path, tmp_path: Path) -> None:
    jobs = plan(base, tmp_path / "run", SMOKE | {"teacher": "base"})
    assert Counter(job.kind for job in jobs) == {"evaluate": 2, "cache": 2, "distill": 12}
    assert all(job.request.options.teacher == "base" for job in jobs if job.kind != "evaluate") and jobs[0].needs == ()


def test_a_finished_teacher_is_scored_as_its_students_are(base: Path, tmp_path: Path) -> None:
    """It is scored on the tests of its task at the length of its students, which do not wait for it."""
    sets = {"train": "data/one/train.tsv", "test": ["dev=data/one/dev.tsv"], "ood": ["far=data/two/dev.tsv"]}
    grid = {key: value for key, value in SMOKE.items() if key != "data"} | {"teacher": "base", "tasks": {"one": sets}}
    scores, *others = plan(base, tmp_path / "run", grid)
    assert (scores.kind, scores.arm, scores.folder) == ("evaluate", "teacher", "teachers/one/base")
    assert {name: getattr(scores.request.options, name) for name in ("model", "max_length")} == {
        "model": "base",
        "max_length": 16,
    }
    assert {name: getattr(scores.request.options, name) for name in sets} == sets
    assert not [job for job in others if scores.folder in job.needs]
    settings = {key: value for key, value in SMOKE["settings"].items() if key != "max_length"}
    scores = plan(base, tmp_path / "other", grid | {"settings": settings | {"trust_remote_code": True}})[0]
    assert scores.request.options.max_length is None and scores.request.options.trust_remote_code


def test_students_may_have_teachers_of_their_own(base: Path, tmp_path: Path) -> None:
    students = [
        {"layers": 2},
        {"name": "other", "layers": 2, "teacher": {"finetune": "base", "epochs": 1}},
        {"name": "third", "layers": 3},
    ]
    jobs = plan(base, tmp_path / "run", SMOKE | {"students": students, "tasks": ["one"]})
    made = [job for job in jobs if job.kind == "finetune"]
    assert [(job.folder, job.student) for job in made] == [
        ("teachers/one/base", "2-layers, third"),
        ("teachers/one/base-2", "other"),
    ]
    theirs = {job.student: job.needs for job in jobs if job.arm == "kd"}
    assert theirs["other"] == ("teachers/one/base-2", "caches/one/base-2")
    assert theirs["third"] == theirs["2-layers"] == ("teachers/one/base", "caches/one/base")


def test_settings_of_a_task_win_over_those_of_all_and_options_of_a_method_over_both(base: Path, tmp_path: Path) -> None:
    data = {"train": "data/one/train.tsv", "test": ["data/one/dev.tsv"], "settings": {"epochs": 5, "batch_size": 4}}
    methods = ["kd", {"name": "finetune", "batch_size": 2}]
    jobs = plan(base, tmp_path / "run", ALONE | {"tasks": {"one": data}, "methods": methods})
    found = {job.arm: job.request.training for job in jobs if job.kind == "distill"}
    assert found["kd"]["num_train_epochs"] == found["finetune"]["num_train_epochs"] == 5
    assert found["kd"]["per_device_train_batch_size"] == 4 and found["finetune"]["per_device_train_batch_size"] == 2


DOOMED: list[tuple[dict[str, Any], str]] = [
    ({"methods": ["rail"]}, "unknown method 'rail'"),
    ({"methods": [{"name": "rail-kd-l", "redrwa": "step"}]}, "unknown setting 'redrwa'. Did you mean 'redraw'"),
    ({"methods": [{"name": "rail-kd-l", "redraw": "daily"}]}, "daily"),
    ({"methods": [{"name": "kd", "redraw": "step"}]}, "kd has no option 'redraw'"),
    (
        {"methods": [{"name": "kd", "temperature": "hot"}]},
        "\\(kd\\): temperature: expected a number, got 'hot'",
    ),
    (
        {"tasks": {"one": {"train": "data/one/train.tsv", "test": ["eval=data/one/dev.tsv"]}}},
        "another name for .*'eval'",
    ),
    ({"settings": {"epochs": -1}}, "epochs: expected a finite number above 0, got -1"),
    ({"settings": {"lr_scheduler_type": "wavy"}}, "lr_scheduler_type: expected one of"),
    ({"students": [{"layers": 9}]}, "expected at most 4, the blocks of"),
    ({"students": [{"layers": 1}]}, "all"),  # RAIL-KD has no intermediate block to match.
    ({"teacher": {"finetune": "nowhere/at/all"}}, "no model at 'nowhere/at/all'"),
    ({"teacher": {"finetune": "base", "method": "kd"}}, "teacher"),
    ({"cache": {"dtype": "int4"}}, "dtype: expected float16 or float32 or int8, got 'int4'"),
    ({"tasks": {"one": {"train": "data/one/trian.tsv", "test": "data/one/dev.tsv"}}}, "Did you mean 'train.tsv'"),
]


@pytest.mark.parametrize(("change", "message"), DOOMED, ids=[str(change) for change, _ in DOOMED])
def test_a_doomed_grid_is_refused_before_the_first_teacher(
    change: dict[str, Any], message: str, base: Path, tmp_path: Path, capsys: Capture
) -> None:
    with pytest.raises(RailkdError, match=message):
        plan(base, tmp_path / "run", ALONE | change)
    with inside(tmp_path / "run"):
        assert main(["bench", "grid.yaml", "--output", "out"]) == 2
    assert not (tmp_path / "run" / "out").exists() and "Traceback" not in capsys.readouterr().err


def test_the_grids_paper_and_glue_have_18_methods_with_five_seeds(tmp_path: Path, capsys: Capture) -> None:
    """The paper has the tasks of GLUE without WNLI, the only one whose teacher may be weak."""
    names = [task.name for task in GLUE]
    for name, tasks in (("paper", [task for task in names if task != "WNLI"]), ("glue", names)):
        file = str(tmp_path / f"{name}.yaml")
        assert main(["bench", "--copy", name, file]) == 0
        grid = grid_reader.load(file)
        assert [task.name for task in grid.tasks] == tasks
        arms = [arm.name for arm in grid.arms]
        assert arms == [method for method in METHODS if method in arms] and (len(arms), len(grid.seeds)) == (18, 5)
        assert {task.name: task.settings for task in grid.tasks if task.settings} == (
            {"WNLI": {"allow_weak_teacher": True}} if name == "glue" else {}
        )
    capsys.readouterr()
    threads = torch.get_num_threads()
    assert main(["bench", file, "--dry-run", "--threads", str(threads + 1)]) == 0
    assert torch.get_num_threads() == threads  # Otherwise later trainings in this process would differ in the last bit.
    out = capsys.readouterr().out
    assert "9 tasks x 2 students x 18 arms x 5 seeds = 1,620 runs, 18 teachers, 18 teacher passes" in out
    assert re.search(r"RTE +2 +2 +180 +0 +not known +not known +not known", out), out
    assert "0 of 1656 jobs done; time left not known" in out
    assert "on disk: teachers not known, caches not known, students not known (kept: all)" in out


def test_a_guard_is_set_for_one_task_of_a_grid(base: Path, tmp_path: Path) -> None:
    settings = {key: value for key, value in SMOKE["settings"].items() if key != "allow_weak_teacher"}
    grid = SMOKE | {"settings": settings, "tasks": {"one": {"settings": {"allow_weak_teacher": True}}, "two": None}}
    jobs = [job for job in plan(base, tmp_path / "run", grid) if job.kind == "distill"]
    assert {(job.task, job.request.options.allow_weak_teacher) for job in jobs} == {("one", True), ("two", False)}


@pytest.mark.parametrize("name", bundled_grids.list_grids())
def test_a_bundled_grid_runs_with_tiny_models(name: str, base: Path, tmp_path: Path, capsys: Capture) -> None:
    """Its methods, seeds, contrasts and settings are unchanged. Models and rows are those of these tests."""
    grid = yaml.safe_load(bundled_grids.read_grid(name))
    grid = {key: value for key, value in grid.items() if key not in ("ood", "resources")}
    teacher = {"finetune": "base"} | {k: v for k, v in grid.get("teacher", {}).items() if k != "finetune"}
    students = [{"name": s.get("name", "x"), "layers": 3} for s in grid["students"]]
    grid |= {"data": "data", "tasks": ["one", "two"], "teacher": teacher, "students": students}
    grid["settings"] |= {"max_length": 16}
    # The models are 8 wide, and methods refuse maps that are wider.
    grid["methods"] = [
        {"name": method, "shared_size": 8} if method.startswith("rail") else method for method in grid["methods"]
    ]
    with inside(room(base, tmp_path / "run", grid)):
        assert main(["bench", "grid.yaml", "--dry-run"]) == 0
    out, errors = capsys.readouterr()
    assert "measuring models: 2 of 2 models" in errors  # the teacher, and the student of 3 blocks, for all tasks
    runs = 2 * len(students) * len(grid["methods"]) * grid["seeds"]
    assert f"= {runs} runs, 2 teachers, 2 teacher passes" in out
    # 48 rows, each with 4 blocks of 8 two-byte numbers for every pooling, 2 four-byte logits and a 16-byte key.
    size = 48 * (4 * 8 * 2 * (2 if name in ("paper", "glue") else 1) + 2 * 4 + 16) / 1e3
    assert re.search(rf"one +1 +1 +{runs // 2} +0 +48 +{size:.1f} kB +\d.* (s|min)", out), out
    assert "caches not known" not in out and "time left not known" not in out


def test_rows_without_labels_take_the_time_of_rows_where_a_teacher_teaches(base: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        table(tmp_path / f"{name}.tsv", 36, ord(name))
    more = [str(tmp_path / "a.tsv"), f"{tmp_path}/b.tsv:0.3"]
    tasks = {name: {"train": "data/one/train.tsv", "test": "data/one/dev.tsv"} for name in ("few", "many")}
    tasks["many"]["unlabelled"] = more
    grid = {key: value for key, value in ALONE.items() if key != "data"} | {
        "tasks": tasks,
        "methods": ["kd", "finetune"],
    }
    with inside(room(base, tmp_path / "run", grid)):
        jobs = make_jobs(grid_reader.load("grid.yaml"), "out", make_verbs())
        estimate = _Plan(jobs, {}, quiet=True)
        seconds = {(job.task, job.kind, job.arm): estimate._expected(job) for job in jobs}
    for kind, arm, ratio in (
        ("cache", "", 120 / 48),
        ("distill", "kd", (0.8 * 48 + 72) / (0.8 * 48)),
        ("distill", "finetune", 1),
    ):
        assert seconds["many", kind, arm] == pytest.approx(ratio * seconds["few", kind, arm]), (kind, arm)
