"""The bytes of a plan beside the free ones, and which students keep their weights."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import paper_room
from bench.room import ALONE, in_process, inside, room
from railkd.bench.grid_reader import load
from railkd.bench.loop import lock_folder
from railkd.bench.ownership import count_overwritten
from railkd.bench.plan import make_jobs
from railkd.bench.results import read_finished
from railkd.bench.sizes import compute_sizes
from railkd.cli import main
from railkd.cli.bench import make_verbs
from railkd.errors import RailkdError
from railkd.report.content import content
from railkd.report.study import read

SEEDS = 3
#: An arm with several seeds, whose scores differ.
SEVERAL = ALONE | {"methods": ["kd"], "seeds": SEEDS}


def weights_of(folder: Path, room: str) -> list[Path]:
    return sorted((folder / "out" / room).rglob("model.safetensors"))


def test_the_sizes_are_those_of_the_files_that_a_bench_writes(base: Path, tmp_path: Path) -> None:
    folder = room(base, tmp_path / "run", SEVERAL)
    with inside(folder):
        jobs = make_jobs(load("grid.yaml"), "out", make_verbs())
        sizes = compute_sizes(jobs, (), Path("out"), "all", slots=2)
        best = compute_sizes(jobs, (), Path("out"), "best", slots=2)
        none = compute_sizes(jobs, (), Path("out"), "none", slots=2)
    records = in_process(folder)
    for room_, expected in (("teachers", sizes.teachers), ("runs", sizes.students)):
        written = sum(path.stat().st_size for path in weights_of(folder, room_))
        header = 8000 * len(weights_of(folder, room_))  # of safetensors: names and shapes
        assert expected is not None and expected <= written <= expected + header
    (cache,) = [record for record in records if record.job == "cache"]
    assert sizes.caches is not None and sizes.caches <= cache.sizes["bytes"] <= sizes.caches + 20_000
    assert best.students is not None and best.students * SEEDS == sizes.students and none.students == 0
    assert sizes.checkpoints is not None and sizes.teachers is not None
    assert sizes.checkpoints == 3 * 3 * (sizes.teachers + best.students)
    with inside(folder):
        assert compute_sizes(jobs, read_finished(jobs, "out"), Path("out"), "all", slots=2).needed == 0
    check_overwriting(folder, SEVERAL)


def check_overwriting(folder: Path, grid: dict[str, Any]) -> None:
    """A plan that does not fit deletes nothing; one that fits frees the bytes that were counted."""

    def sizes() -> dict[Path, int]:
        return {path: path.stat().st_size for path in Path("out").rglob("*") if path.is_file()}

    many = {"save_steps": 1, "save_total_limit": 10**10}
    with inside(folder):
        Path("out/runs/mine").write_text("mine" * 100)
        before = sizes()
        Path("grid.yaml").write_text(yaml.safe_dump(grid | {"settings": grid["settings"] | many}))
        assert main(["bench", "grid.yaml", "--output", "out", "--overwrite", "--quiet"]) == 2
        assert sizes() == before
        freed = count_overwritten(Path("out"))
        with lock_folder(Path("out"), resume=False, overwrite=True):
            left = sizes()
        assert Path("out/runs/mine") in left
        marks = sum(count for path, count in before.items() if path.name == "files.json")
        assert freed == sum(before.values()) - marks - left[Path("out/runs/mine")] > 0


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, 0),
        ({"save_steps": 5}, 2),
        ({"save_steps": 5, "save_total_limit": 7}, 7),
        ({"save_total_limit": 7}, 2),  # one an epoch
        ({"save_steps": 5, "save_total_limit": 1}, 2),  # the best one, and the last
        ({"save_strategy": "no"}, 0),
    ],
)
def test_checkpoints_that_runs_keep_are_counted(
    settings: dict[str, Any], kept: int, base: Path, tmp_path: Path
) -> None:
    grid = SEVERAL | {"teacher": "base", "settings": SEVERAL["settings"] | settings}
    with inside(room(base, tmp_path / "run", grid)):
        jobs = make_jobs(load("grid.yaml"), "out", make_verbs())
        sizes = compute_sizes(jobs, (), Path("out"), "all", slots=1)
    assert sizes.students is not None
    one = 3 * sizes.students // SEEDS  # a checkpoint holds the weights and two moments of each
    assert sizes.checkpoints == one * (SEEDS * kept + (1 if kept else 3))


def test_a_plan_that_does_not_fit_is_refused_with_what_helps(base: Path, tmp_path: Path) -> None:
    with inside(room(base, tmp_path / "run", ALONE)):
        jobs = make_jobs(load("grid.yaml"), "out", make_verbs())
        sizes = compute_sizes(jobs, (), Path("out"), "all", slots=1)
    sizes.check(Path("out"))
    message = (
        r"got 1\.0 kB free\. The plan writes: teachers \d.*caches \d.*Fix: .*larger disk, or .*keep_students: best"
    )
    with pytest.raises(RailkdError, match=message):
        replace(sizes, free=1000).check(Path("out"))
    with pytest.raises(RailkdError, match="Fix: name an --output on a larger disk\\."):
        replace(sizes, free=1000, kept="none").check(Path("out"))


@pytest.mark.parametrize("kept", ["best", pytest.param("none", marks=pytest.mark.thorough)])
def test_students_that_are_not_kept_lose_their_weights_and_nothing_else(kept: str, base: Path, tmp_path: Path) -> None:
    folder = room(base, tmp_path / "run", SEVERAL | {"keep_students": kept})
    found = [record for record in in_process(folder) if record.job == "distill"]
    assert len(found) == SEEDS
    kept_runs = {path.parent.parent.name for path in weights_of(folder, "runs")}
    wanted = set()
    for arm in {record.arm for record in found}:
        runs = [record for record in found if record.arm == arm]
        wanted.add(max(runs, key=lambda record: record.metrics["eval"]["accuracy"]).folder.removeprefix("runs/"))
    assert kept_runs == (wanted if kept == "best" else set())
    for record in found:
        left = {path.name for path in (folder / "out" / record.folder).iterdir()}
        assert {"metrics.json", "config.yaml", "predictions"} <= left
        assert ("student" in left) == (record.folder.removeprefix("runs/") in kept_runs)
    with inside(folder):
        jobs = make_jobs(load("grid.yaml"), "out", make_verbs())
        assert len(read_finished(jobs, "out")) == len(jobs)
    (folder / "out" / "grid.yaml").unlink()  # empty, because no command wrote it
    assert content(read([folder / "out"]))["agreement"]


@pytest.mark.thorough
def test_the_paper_grid_is_planned_in_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The models are as deep as the real ones; each of the four is measured once, whatever the number of tasks."""
    with inside(paper_room.make(tmp_path, rows=40)):
        grid, verbs = load("paper.yaml"), make_verbs()
        start = time.process_time()
        jobs = make_jobs(grid, "out", verbs)
        assert time.process_time() - start < 10
        assert len(jobs) == 8 * 2 * (18 * 5 + 2)
        assert main(["bench", "paper.yaml", "--dry-run"]) == 0
    out, errors = capsys.readouterr()
    assert "measuring models: 4 of 4 models" in errors and "not known" not in out.split("on disk")[0]
