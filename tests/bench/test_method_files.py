"""A bench of a method and a metric in files: its runs read copies in the bench folder, and edited files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.room import ALONE, room
from railkd.bench.contents import refuse_other_contents
from railkd.bench.display import Progress
from railkd.bench.executors.in_process import InProcess
from railkd.bench.grid_reader import load
from railkd.bench.loop import run
from railkd.bench.method_files import copy_method_files, refuse_registered
from railkd.bench.plan import make_jobs
from railkd.cli import main
from railkd.cli.bench import make_verbs
from railkd.errors import RailkdError
from railkd.objectives import MethodSpec, Objective, method_spec, register
from railkd.runtime.addresses import copies

MINE = """
from railkd.objectives import Objective, states_of


class Pull(Objective):
    paper, pooling = "Nobody 2026", "mean"

    def __init__(self, student_shape, teacher_shape, *, power: int = 2, **options):
        super().__init__(student_shape, teacher_shape, **options)
        self.power = power

    def intermediate(self, student, teacher, draw):
        ours, theirs = self.student_states(student), states_of(teacher, self.teacher_shape, "teacher")
        return (ours[:, -1] - theirs[:, -1].to(ours)).abs().pow(self.power).mean()
"""

COST = """
import numpy as np


def cost(predictions, labels):
    return {"cost": -np.log(predictions[np.arange(len(labels)), labels]).mean()}


cost.higher_is_better = False
"""


def test_runs_read_the_copy_and_a_resumed_bench_refuses_an_edited_file(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ALONE | {"methods": [{"name": "mine.py:Pull", "power": [1, 2]}]}
    grid["settings"] = ALONE["settings"] | {"metrics": "log-loss,costs.py:cost"}
    monkeypatch.chdir(room(base, tmp_path / "run", grid))
    mine, costs, output = Path("mine.py"), Path("costs.py"), Path("out")
    mine.write_text(MINE)
    costs.write_text(COST)
    digest = method_spec("mine.py:Pull").digest
    jobs = make_jobs(load("grid.yaml"), "out", make_verbs())
    output.mkdir()
    copy_method_files(jobs, output)
    for file in (mine, costs):
        file.write_text("raise RuntimeError('edited while the bench runs')")
    progress = Progress("test", quiet=True)
    records = run(jobs, InProcess("out"), output, done={}, grid="", retries=0, progress=progress)
    students = [record for record in records if record.job == "distill"]
    assert [(record.arm, record.state) for record in students] == [
        ("mine.py:Pull power=1", "finished"),
        ("mine.py:Pull power=2", "finished"),
    ]
    assert {record.contents["method"] for record in students} == {digest} and students[0].paper == "Nobody 2026"
    assert students[0].curve[0]["intermediate"] != students[1].curve[0]["intermediate"]
    for record in (record for record in records if record.job != "cache"):
        found = record.metrics["dev"]
        assert found["cost"] == pytest.approx(found["log_loss"]) and record.higher_is_better == {"cost": False}
    done = {record.folder: record for record in records}
    mine.write_text(MINE)
    costs.write_text(COST)
    refuse_other_contents(jobs, output, done)
    costs.write_text(f"{COST}\n")
    with pytest.raises(RailkdError, match="the metrics costs.py:cost changed since 'teachers/one/base', 'runs/"):
        refuse_other_contents(jobs, output, done)
    costs.write_text(COST)
    mine.write_text(MINE.replace(".mean()", ".sum()"))
    with pytest.raises(RailkdError, match="--method 'mine.py:Pull' changed since 'runs/.*' began"):
        refuse_other_contents(jobs, output, done)
    # So does a single run that goes on.
    teacher = "out/teachers/one/base/model"
    words = ["--teacher", teacher, "--train", "data/one/train.tsv", "--student-layers", "2", "--epochs", "1"]
    words += ["--method", "mine.py:Pull", "--output", "single", "--save-steps", "2", "--allow-weak-teacher", "--quiet"]
    assert main(["distill", *words]) == 0
    Path("single/metrics.json").unlink()  # as if it had been killed before the end
    mine.write_text(MINE)
    assert main(["distill", *words, "--resume"]) == 2
    assert "began with other contents of --method 'mine.py:Pull'" in capsys.readouterr().err


def test_the_copy_of_a_file_has_its_bytes_and_so_its_digest(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room(base, tmp_path / "run", ALONE | {"methods": ["mine.py:Pull"]}))
    content = f"# coding: latin-1\n# caf\xe9\n{MINE}".encode("latin-1").replace(b"\n", b"\r\n")
    Path("mine.py").write_bytes(content)
    digest = method_spec("mine.py:Pull").digest
    Path("out").mkdir()
    copy_method_files(make_jobs(load("grid.yaml"), "out", make_verbs()), Path("out"))
    (copy,) = Path("out/methods").iterdir()
    assert copy.read_bytes() == content
    with copies(Path("out/methods")):
        assert method_spec("mine.py:Pull").digest == digest


class Known(Objective):
    """A method of this file."""

    terms = ("ce", "kd")


def test_a_method_of_this_process_alone_is_refused_before_its_runs_fail(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(room(base, tmp_path / "run", ALONE | {"methods": ["known-here"]}))
    register(MethodSpec.of(Known, "known-here"))
    with pytest.raises(RailkdError, match="'known-here' is registered in this process alone"):
        refuse_registered(make_jobs(load("grid.yaml"), "out", make_verbs()))
