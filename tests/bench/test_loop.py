"""The loop alone: the order of jobs, retries, and changes of the grid. No model is trained."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tiny
from railkd.bench.display import Progress, describe_best, estimate_seconds_left
from railkd.bench.executors.protocol import Outcome
from railkd.bench.loop import lock_folder, run
from railkd.bench.plan import Job
from railkd.bench.results import find_removed, read_finished, write_failure
from railkd.errors import RailkdError
from railkd.jobs.options import CacheOptions, DistillOptions, FinetuneOptions
from railkd.jobs.request import Request
from railkd.records import RECORD_FILE, RunRecord, read_lines
from railkd.runtime.ownership import Ledger


def job(folder: str, *needs: str, epochs: int = 1) -> Job:
    options = FinetuneOptions() if folder.startswith("teachers") else DistillOptions()
    kind = "finetune" if folder.startswith("teachers") else "distill"
    return Job(folder, kind, "task", "student", folder, 1, Request(options, {"num_train_epochs": epochs}), needs)


class Scripted:
    """An executor that runs nothing: it returns the given outcomes of each folder in turn, then success."""

    def __init__(self, output: Path, script: dict[str, list[str]], slots: int = 2) -> None:
        self.output, self.script, self.slots = output, script, slots
        self.running: list[Job] = []
        self.order: list[str] = []
        self.most = 0

    def submit(self, job: Job) -> None:
        self.running.append(job)
        self.order.append(job.folder)
        self.most = max(self.most, len(self.running))

    def next(self, seconds: float) -> Outcome | None:
        job = self.running.pop(0)
        happens = self.script.get(job.folder, [])
        what = happens.pop(0) if happens else "finished"
        if what == "crashed":
            return Outcome(job, "its process ended by SIGKILL", crashed=True)
        if what == "failed":
            write_failure(job, str(self.output), "on purpose")
            return Outcome(job, "on purpose")
        if what == "finds its teacher weak":
            write_failure(job, str(self.output), "weak teacher: 0.5 and 0.5; more")
            return Outcome(job, "weak teacher: 0.5 and 0.5; more")
        folder = self.output / job.folder
        folder.mkdir(parents=True, exist_ok=True)
        record = RunRecord(job.kind, "kd", 1, config=job.config)
        if what == "weak":
            record.finding = {"level": "error", "title": "weak teacher", "detail": "0.5 and 0.5", "fix": "more"}
        record.write(folder / RECORD_FILE)
        return Outcome(job)

    def close(self) -> None:
        pass


PLAN = [
    job("teachers/a"),
    job("runs/a1", "teachers/a"),
    job("runs/a2", "teachers/a"),
    job("teachers/b"),
    job("runs/b1", "teachers/b"),
]


def play(output: Path, script: dict[str, list[str]], plan: list[Job] = PLAN, **settings: Any) -> Scripted:
    executor = Scripted(output, script, settings.get("slots", 2))
    done, progress = read_finished(plan, str(output)), Progress("x", quiet=True)
    retries, kept = settings.get("retries", 2), settings.get("kept", "all")
    run(plan, executor, output, done=done, grid="x", retries=retries, progress=progress, kept=kept)
    return executor


def states(output: Path) -> dict[str, str]:
    return {record.folder: record.state for record in read_lines(output / "records.jsonl")}


def test_jobs_wait_for_what_they_need_and_slots_are_kept(tmp_path: Path) -> None:
    executor = play(tmp_path, {})
    assert executor.order[:2] == ["teachers/a", "teachers/b"] and executor.most == 2
    assert list(states(tmp_path)) == [job.folder for job in PLAN]  # In the order of the plan, not of the ends.
    assert set(states(tmp_path).values()) == {"finished"}


def test_a_crashed_process_is_retried_and_an_error_is_not(tmp_path: Path) -> None:
    executor = play(tmp_path, {"runs/a1": ["crashed", "crashed"], "runs/a2": ["failed"], "runs/b1": ["crashed"] * 3})
    assert Counter(executor.order) == {"teachers/a": 1, "teachers/b": 1, "runs/a1": 3, "runs/a2": 1, "runs/b1": 3}
    assert states(tmp_path) == {job.folder: "finished" for job in PLAN} | {"runs/a2": "failed", "runs/b1": "failed"}
    errors = {record.folder: record.error for record in read_lines(tmp_path / "records.jsonl")}
    assert errors["runs/b1"] == "its process ended by SIGKILL, 3 times" and errors["runs/a2"] == "on purpose"


def test_jobs_that_need_a_failed_teacher_are_not_run_and_say_so(tmp_path: Path) -> None:
    executor = play(tmp_path, {"teachers/a": ["failed"]})
    assert "runs/a1" not in executor.order and states(tmp_path)["runs/b1"] == "finished"
    errors = {record.folder: record.error for record in read_lines(tmp_path / "records.jsonl")}
    assert errors["runs/a1"] == "not run, because 'teachers/a' failed"


def guarded_plan(given: bool = False) -> list[Job]:
    """Return the jobs of two teachers: a pass, five guarded runs, one without a guard and one without a teacher."""
    plan = []
    for name in ("a", "b"):
        teacher, cache = f"teachers/{name}", f"caches/{name}"
        model = f"{name}-given" if given else f"out/{teacher}/model"
        if not given:
            plan.append(
                Job(teacher, "finetune", "t", "", "teacher", 1, Request(FinetuneOptions(output=f"out/{teacher}")))
            )
        needs = () if given else (teacher,)
        plan.append(Job(cache, "cache", "t", "", "", 0, Request(CacheOptions(teacher=model)), needs))
        for number in range(7):
            options = DistillOptions(teacher=model, cache=None if number == 6 else "c", allow_weak_teacher=number == 5)
            reads = (*needs, cache) if options.cache else needs
            folder = f"runs/{name}{number}"
            plan.append(Job(folder, "distill", "t", "s", f"arm{number}", 1, Request(options), reads))
    return plan


def test_a_weak_teacher_is_said_once_and_its_runs_are_left_out_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = guarded_plan()
    executor = play(tmp_path, {"teachers/a": ["weak"]}, plan)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "weak" in line]
    assert line.endswith("t, teacher: 5 runs left out: its teacher is weak: 0.5 and 0.5; more")
    left_out = {f"runs/a{number}" for number in range(5)}
    assert left_out == {job.folder for job in plan} - set(executor.order)
    assert {name for name, state in states(tmp_path).items() if state == "failed"} == left_out
    again = play(tmp_path, {}, plan)  # A resumed bench says it again, and runs nothing.
    assert again.order == [] and capsys.readouterr().err.count("left out") == 1
    opened = [
        replace(job, request=job.request.with_options(allow_weak_teacher=True)) if job.folder in left_out else job
        for job in plan
    ]
    assert set(play(tmp_path, {}, opened).order) == left_out
    assert set(states(tmp_path).values()) == {"finished"}


def test_runs_that_rescale_their_teacher_are_tried(tmp_path: Path) -> None:
    plan = guarded_plan()
    for place, job in enumerate(plan):
        if job.kind == "distill":
            plan[place] = replace(job, request=job.request.with_options(rescale_teacher=True))
    executor = play(tmp_path, {"teachers/a": ["weak"]}, plan)
    assert set(executor.order) == {job.folder for job in plan}


def test_a_teacher_pass_that_no_run_needs_is_left_out_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = [job for job in guarded_plan() if job.folder[-1] != "5"]
    executor = play(tmp_path, {"teachers/a": ["weak"]}, plan)
    assert "caches/a" not in executor.order and "caches/b" in executor.order and "runs/a6" in executor.order
    assert "1 teacher pass and 5 runs left out" in capsys.readouterr().err


def test_a_given_teacher_that_a_run_finds_weak_is_not_tried_by_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = play(tmp_path, {"runs/a0": ["finds its teacher weak"]}, guarded_plan(given=True), slots=1)
    assert [name for name in executor.order if "runs/a" in name] == ["runs/a0", "runs/a5", "runs/a6"]
    assert "t: 4 runs left out: its teacher is weak: 0.5 and 0.5; more" in capsys.readouterr().err


def test_resume_runs_what_failed_and_what_is_new_and_nothing_else(tmp_path: Path) -> None:
    play(tmp_path, {"teachers/a": ["failed"]})
    plan = [*PLAN, job("runs/b2", "teachers/b")]
    executor = play(tmp_path, {}, plan)
    assert sorted(executor.order) == ["runs/a1", "runs/a2", "runs/b2", "teachers/a"]
    assert states(tmp_path) == {job.folder: "finished" for job in plan}
    assert find_removed(PLAN, tmp_path) == ["runs/b2"]


@pytest.mark.parametrize(("kept", "left"), [("all", "a1 a2 b1"), ("none", ""), ("best", "a1 b1")])
def test_what_a_grid_keeps_at_resume_counts_for_runs_that_finished_before(tmp_path: Path, kept: str, left: str) -> None:
    plan = [replace(one, arm=one.folder[:6]) for one in PLAN]  # a1 and a2 are seeds of one student
    play(tmp_path, {}, plan)
    for name in ("a1", "a2", "b1"):
        tiny.write_files(tmp_path / "runs" / name, {"student/model.safetensors": "weights", "predictions.tsv": ""})
        Ledger(tmp_path / "runs" / name).add("student/model.safetensors", "predictions.tsv")
    assert play(tmp_path, {}, plan, kept=kept).order == []
    assert [path.parts[-3] for path in sorted(tmp_path.glob("runs/*/student/*"))] == left.split()
    assert len(list(tmp_path.glob("runs/*/predictions.tsv"))) == 3 and set(states(tmp_path).values()) == {"finished"}


def test_a_finished_run_with_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    play(tmp_path, {})
    changed = [job(old.folder, *old.needs, epochs=3) if "b" in old.folder else old for old in PLAN]
    with pytest.raises(RailkdError, match="'teachers/b' finished with other settings: epochs was 1, is 3 \\(and 1 m"):
        read_finished(changed, str(tmp_path))


def test_a_folder_is_locked_by_one_bench(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with lock_folder(out, resume=False, overwrite=False):
        with (
            pytest.raises(RailkdError, match="another bench is running in it"),
            lock_folder(out, resume=True, overwrite=False),
        ):
            pass
        play(out, {})
    with (
        pytest.raises(RailkdError, match="holds a bench. Fix: --resume"),
        lock_folder(out, resume=False, overwrite=False),
    ):
        pass
    with lock_folder(out, resume=True, overwrite=False):
        assert len(read_finished(PLAN, str(out))) == len(PLAN)
    with lock_folder(out, resume=False, overwrite=True):
        assert read_finished(PLAN, str(out)) == {} and not (out / "records.jsonl").exists()
    (tmp_path / "mine.txt").write_text("keep me")
    with (
        pytest.raises(RailkdError, match="holds files that do not belong to a bench"),
        lock_folder(tmp_path, resume=False, overwrite=True),
    ):
        pass


@pytest.mark.parametrize("resume", [False, True])
def test_a_project_with_the_names_of_a_bench_is_no_bench(tmp_path: Path, resume: bool) -> None:
    theirs = [tmp_path / name for name in ("grid.yaml", "records.jsonl", "runs/a/metrics.json", "teachers/a/b/notes")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    with (
        pytest.raises(RailkdError, match="do not belong to a bench"),
        lock_folder(tmp_path, resume=resume, overwrite=not resume),
    ):
        pass
    assert all(path.read_text() == "theirs" for path in theirs)


def test_overwriting_a_bench_leaves_what_it_did_not_write(tmp_path: Path) -> None:
    out, folders = tmp_path / "out", [job.folder for job in PLAN]
    with lock_folder(out, resume=False, overwrite=False, folders=folders):
        play(out, {})
    theirs = [out / name for name in ("notes", "runs/notes", f"{folders[-1]}/notes", "caches/mine/manifest.json")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    with lock_folder(out, resume=False, overwrite=True, folders=folders):
        assert read_finished(PLAN, str(out)) == {}
    assert all(path.read_text() == "theirs" for path in theirs)
    (out / folders[0]).mkdir(parents=True, exist_ok=True)
    (out / folders[0] / "log.txt").symlink_to(out / "notes")
    with (
        pytest.raises(RailkdError, match="log.txt' was not written by railkd"),
        lock_folder(out, resume=False, overwrite=True, folders=folders),
    ):
        pass


def test_the_time_left_is_estimated_from_similar_jobs() -> None:
    teacher, one, two, *_ = PLAN
    assert estimate_seconds_left([one], {}, [], 1) is None
    assert estimate_seconds_left([one, two], {}, [(one, 4.0)], 2) == 4.0
    assert estimate_seconds_left([one], {two.folder: (two, 3.0)}, [(one, 4.0)], 1) == 5.0
    assert estimate_seconds_left([teacher], {}, [(one, 4.0)], 1) is None


def test_the_time_left_looks_at_each_job_once_in_a_large_plan() -> None:
    """It is asked several times a second."""
    asked = Counter[str]()

    class Seen(Job):
        def __getattribute__(self, name: str) -> Any:
            asked[name] += 1
            return super().__getattribute__(name)

    many = [Seen(f"runs/{i}", "distill", f"task {i % 8}", "small", f"arm {i}", 1, PLAN[1].request) for i in range(400)]
    taken = [(done, float(i)) for i, done in enumerate(many[:200])]
    asked.clear()
    expected = sum(96 + i % 8 for i in range(200, 400)) / 2  # the mean over i, i + 8, ... below 200 is 96 + i % 8
    assert estimate_seconds_left(many[200:], {}, taken, 2) == expected
    assert 400 <= asked["task"] <= 4 * 400


def scored(arm: str, seed: int, value: float) -> RunRecord:
    record = RunRecord("distill", arm, seed, task="task", student="small", arm=arm)
    record.metrics = {"hans": {"accuracy": 0.9}, "dev": {"accuracy": value}, "eval": {"accuracy": 1.0}}
    record.domains = {"hans": "out", "dev": "in", "eval": "in"}
    return record


def test_the_best_so_far_is_a_mean_over_seeds_in_domain() -> None:
    records = [scored("kd", 1, 0.5), scored("kd", 2, 0.7), scored("rail", 1, 0.5)]
    assert describe_best(records, "task") == "small, kd: dev accuracy 0.6000, 2 seeds"
    assert describe_best(records, "other") == ""
    records.append(scored("pkd", 1, 0.6))
    assert describe_best(records, "task") == "small, kd and 1 equal: dev accuracy 0.6000, 2 seeds"


def test_a_terminal_sees_a_table(tmp_path: Path) -> None:
    console = Console(force_terminal=True, width=100, record=True, file=io.StringIO())
    executor = Scripted(tmp_path, {"runs/a2": ["failed"]})
    with Progress("x", console=console) as progress:
        run(PLAN, executor, tmp_path, done={}, grid="", retries=0, progress=progress)
        console.print(progress.render())
    text = console.export_text()
    assert "x: 5 of 5 jobs done, 1 failed" in text and "best so far" in text
    assert "[5/5]" in text and "failed: on purpose" in text
