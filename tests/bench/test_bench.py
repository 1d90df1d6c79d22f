"""A small grid from its file to its records: with both executors, killed and resumed, and with a run that fails."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from bench.room import ALONE, SMALL, SMOKE, in_process, inside, records, room, table
from forks import Fork
from railkd.bench import results
from railkd.cli import main
from railkd.cli.bench import print_end
from railkd.errors import RunFailed
from railkd.records import RECORD_FILE, read_lines
from railkd.report.content import content
from railkd.report.study import read

BENCH = ["bench", "grid.yaml", "--output", "out"]


def child(folder: Path, *words: str) -> Fork:
    """Run ``railkd`` with these words in a fork."""
    return Fork(folder, lambda: main(list(words)))


def wait_for(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.002)
    return found


def worker_of(folder: Path) -> int:
    """Return the process that is named last in a job's log."""
    lines = (folder / results.LOG).read_text().splitlines()
    return int(next(line for line in reversed(lines) if line.startswith("# ")).split()[-1])


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_the_smoke_grid_by_local_workers(
    base: Path, small: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two workers and this process leave the same records."""
    folder = room(base, tmp_path / "run", SMOKE)
    with inside(folder):
        assert main([*BENCH, "--processes", "2", "--quiet"]) == 0
    check_smoke(folder)
    check_report(folder)
    found = records(folder)
    assert {name: found[name] for name in small} == small

    with inside(folder):
        capsys.readouterr()
        assert main([*BENCH, "--dry-run"]) == 0
    assert "16 of 16 jobs done" in capsys.readouterr().out


@pytest.mark.thorough
def test_a_small_grid_by_ray(base: Path, small: dict[str, Any], tmp_path: Path) -> None:
    """A worker that is killed once and this process leave the same records."""
    if importlib.util.find_spec("ray") is None:
        tiny.missing("Ray is not installed: pip install 'railkd[ray]'")
    folder = room(base, tmp_path / "run", SMALL)
    bench = child(folder, *BENCH, "--executor", "ray", "--threads", "1")
    log = folder / "out" / "teachers" / "one" / "base" / results.LOG
    wait_for(lambda: log.exists() and log.read_text())
    os.kill(worker_of(log.parent), signal.SIGKILL)
    code, output = bench.end()
    assert code == 0 and "one, teacher: its process ended (WorkerCrashedError); retrying" in output, output
    assert records(folder) == small


def check_report(folder: Path) -> None:
    """Check that a report reads the bench: its scores are the means of the records, its page holds every arm."""
    assert main(["report", str(folder / "out"), "--csv", str(folder / "r.csv"), "--html", str(folder / "r.html")]) == 0
    with (folder / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for arm in ("finetune", "kd", "rail-kd-l"):
        runs = [r for r in read_lines(folder / "out" / "records.jsonl") if (r.task, r.arm) == ("one", arm)]
        (row,) = [r for r in rows if (r["task"], r["arm"], r["set"]) == ("one", arm, "dev")]
        wanted = 100 * sum(run.metrics["dev"]["accuracy"] for run in runs) / len(runs)
        assert len(runs) == 2 and float(row["mean"]) == pytest.approx(wanted)
        assert arm in (folder / "r.html").read_text(encoding="utf-8")


def check_smoke(folder: Path) -> None:
    """Check that the records hold what reports read."""
    found = read_lines(folder / "out" / "records.jsonl")
    assert len(found) == 2 * (1 + 1 + 3 * 2)
    assert {record.job for record in found} == {"finetune", "cache", "distill"}
    for record in found:
        assert record.state == "finished" and record.schema == 2 and (folder / "out" / record.folder).is_dir()
        assert record.task in ("one", "two") and record.peak_memory > 0 and record.machine["threads"] == 1
        if record.job == "cache":
            assert record.sizes["rows"] == 48 and record.sizes["bytes"] > 0 and record.seconds["teacher pass"] > 0
            continue
        assert list(record.metrics) == ["dev", "eval"] and "training rows held out" in record.selection
        texts = record.job == "finetune"
        lines = (folder / "out" / record.folder / record.predictions["dev"]).read_text().splitlines()
        assert len(lines) == 17 and ("text" in lines[0].split("\t")) == texts
        assert (record.arm, record.student) == (("teacher", "") if texts else (record.method, "2-layers"))
    assert yaml.safe_load((folder / "out" / "grid.yaml").read_text()) == SMOKE
    assert {record.seed for record in found if record.job == "distill"} == {1, 2}


def test_a_bench_that_is_killed_twice_and_resumed_equals_an_uninterrupted_one(
    base: Path, small: dict[str, Any], tmp_path: Path
) -> None:
    """kill -9 hits first a worker, which is replaced, and then the bench, whose workers exit."""
    folder = room(base, tmp_path / "run", SMALL)
    out = folder / "out"
    teacher = out / "teachers" / "one" / "base"

    def in_a_run() -> list[Path]:
        saved = out.glob("runs/*/checkpoint-*")
        return [path.parent for path in saved if not (path.parent / RECORD_FILE).exists()]

    bench = child(folder, *BENCH, "--processes", "1")
    wait_for(lambda: (teacher / results.LOG).exists() and (teacher / results.LOG).read_text())
    first = worker_of(teacher)
    os.kill(first, signal.SIGKILL)
    cut = wait_for(in_a_run)[0]
    bench.send(signal.SIGKILL)
    code, output = bench.end()
    assert code == -signal.SIGKILL and "one, teacher: its process ended by SIGKILL; retrying" in output
    second = worker_of(cut)
    wait_for(lambda: not is_alive(second), 10)
    assert first != second and len(records(folder)) < 4
    kept = {path: path.stat().st_mtime_ns for path in out.glob(f"*/*/{RECORD_FILE}")}
    with inside(folder):
        assert main([*BENCH, "--processes", "1", "--resume", "--quiet"]) == 0
    ours = records(folder)
    assert len(ours) == 4 and ours == {name: small[name] for name in ours}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert "resuming from the newest checkpoint" in (cut / results.LOG).read_text()


#: Signal, exit code, and the file whose presence triggers the signal: while the worker starts, and while it runs a job.
SIGNALS = [(signal.SIGINT, 130, "grid.yaml"), (signal.SIGTERM, 143, f"caches/one/base/{RECORD_FILE}")]


@pytest.mark.parametrize(("number", "code", "there"), SIGNALS, ids=["INT", "TERM"])
def test_an_interrupted_bench_stops_its_workers_and_says_how_to_go_on(
    base: Path, small: dict[str, Any], tmp_path: Path, number: signal.Signals, code: int, there: str
) -> None:
    folder = room(base, tmp_path / "run", SMALL)
    bench = child(folder, *BENCH, "--processes", "1")
    wait_for((folder / "out" / there).exists)
    workers = Path(f"/proc/{bench.process}/task/{bench.process}/children")
    (worker,) = wait_for(lambda: workers.read_text().split())
    bench.send(number)
    got, output = bench.end()
    assert got == code, output
    assert "finished jobs are kept. Fix: repeat the command with --resume" in output and "Traceback" not in output
    assert not is_alive(int(worker))
    ours = records(folder)
    assert len(ours) < 4 and ours == {name: small[name] for name in ours}


def test_a_run_that_fails_leaves_a_record_and_the_others_go_on(base: Path, tmp_path: Path) -> None:
    grid = ALONE | {"methods": [{"name": "finetune", "learning_rate": 1e30}, "kd"]}
    folder = room(base, tmp_path / "run", grid)
    found = {record.arm: record for record in in_process(folder)}
    assert found["finetune"].state == "failed" and "not finite" in found["finetune"].error
    assert found["kd"].state == "finished" and found["kd"].metrics["dev"]
    failure = folder / "out" / found["finetune"].folder / results.FAILURE
    assert json.loads(failure.read_text())["state"] == "failed"
    with pytest.raises(
        RunFailed, match="1 of 4 jobs failed: runs/one_2-layers_finetune_1\\. .*--resume runs them again"
    ):
        print_end(list(found.values()), folder / "out")


def test_a_teacher_is_judged_when_it_is_scored_and_a_weak_one_teaches_no_student(base: Path, tmp_path: Path) -> None:
    settings = {key: value for key, value in ALONE["settings"].items() if key != "allow_weak_teacher"}
    grid = ALONE | {"teacher": ALONE["teacher"] | {"epochs": 1, "learning_rate": 1e-12}, "settings": settings}
    folder = room(base, tmp_path / "run", grid | {"methods": ["finetune", "kd"]})
    teacher, teacher_pass, finetune, kd = in_process(folder)
    assert (teacher.finding["level"], teacher.finding["title"]) == ("error", "weak teacher")
    assert (finetune.state, kd.state, teacher_pass.state) == ("finished", "failed", "failed")
    for record in (kd, teacher_pass):
        assert record.error.startswith(f"not run, because its teacher is weak: {teacher.finding['detail']}")
    with pytest.raises(RunFailed, match=r"2 of 4 jobs were left out, because their teachers are weak\. Fix: "):
        print_end([teacher, teacher_pass, finetune, kd], folder / "out")


def test_the_choice_of_weights_never_looks_at_test(base: Path, tmp_path: Path) -> None:
    """With other test rows, in and out of domain, the student is the same to the last bit, and so is the choice."""
    weights, chosen = [], []
    for number in (1, 2):
        data = {"train": "data/one/train.tsv", "test": ["t=t.tsv"], "ood": ["o=o.tsv"]}
        grid = ALONE | {"tasks": {"one": data}, "methods": ["kd"]}
        folder = room(base, tmp_path / str(number), grid)
        for name in ("t", "o"):
            table(folder / f"{name}.tsv", 12, 100 * number)
        teacher, _, student = in_process(folder)
        assert student.domains == {"t": "in", "o": "out", "eval": "in"}
        chosen.append((teacher.selection, student.selection, student.metrics["eval"]))
        weights.append((folder / "out" / student.folder / "student" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] and chosen[0] == chosen[1]


def test_a_teacher_that_was_there_already_is_scored_once_and_stands_in_the_report(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = room(base, tmp_path / "run", ALONE | {"teacher": "base", "methods": ["kd"]})
    with inside(folder):
        assert main(["bench", "grid.yaml", "--dry-run"]) == 0
    assert "1 run, 0 teachers, 1 given teacher, 1 teacher pass" in capsys.readouterr().out
    teacher, _, student = in_process(folder)
    assert (teacher.job, teacher.arm, teacher.state) == ("evaluate", "teacher", "finished")
    assert list(teacher.metrics) == ["dev"] and teacher.metrics["dev"].keys() == student.metrics["dev"].keys()
    assert (
        teacher.domains["dev"] == student.domains["dev"] and teacher.sizes["parameters"] > student.sizes["parameters"]
    )
    (folder / "out" / "grid.yaml").unlink()  # It is empty, because this bench was not read from a file.
    found = content(read([folder / "out"]))
    assert [row["arm"] for row in found["scores"]["in"]["groups"][0]["rows"]] == ["teacher"]
    assert found["agreement"] and found["disagreements"]
    command = next(row["command"] for row in found["commands"] if row["job"] == "evaluate")
    with inside(folder):
        assert main(shlex.split(command)[1:]) == 0
    assert f"dev: accuracy {teacher.metrics['dev']['accuracy']:.4f}" in capsys.readouterr().out
