"""The studies: their grids are grids, and what their tools print follows from the records."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cells
import contrasts
import pytest
import rerun

import tiny
from bench.room import in_process
from railkd.bench.grid_reader import load
from railkd.records import Baseline, RunRecord

GRIDS = sorted(cells.STUDIES.glob("*.yaml"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_the_grids_are_grids_with_contrasts_named_beforehand(path: Path, shared_data: object) -> None:
    if "../shared" in path.read_text(encoding="utf-8"):
        shared_data("glue")  # type: ignore[operator]
    grid = load(path)
    assert grid.name == path.stem and len(grid.seeds) >= 3 and grid.contrasts
    known = {arm.name for arm in grid.arms}
    assert {name for contrast in grid.contrasts for name in (contrast.arm, contrast.baseline)} <= known


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A bench of two arms and three seeds, collected: 4 rows, of which kd gets 3, 3, 4 right and finetune 2, 2, 2."""
    output, made = tmp_path / "bench", []
    for arm, answers in (("kd", ("1110", "1110", "1111")), ("finetune", ("1100", "1100", "1100"))):
        for seed, right in enumerate(answers, 1):
            record = RunRecord("distill", arm, seed, task="t", student="even", arm=arm, folder=f"runs/{arm}_{seed}")
            record.config = {"output": str(output / record.folder), "teacher": str(output / "teachers/t/model")}
            record.metrics, record.predictions = {"dev": {"accuracy": right.count("1") / 4}}, {"dev": "dev.tsv"}
            if arm == "kd":
                first = {"epoch": 0.0, "rank": 6.0, "target_rank": 5.0, "variance": 0.2, "term": 2.0}
                readings = [first, first | {"epoch": 1.0, "rank": float(seed), "target_rank": 1.5, "term": 0.1}]
                record.gauges = {"readings": readings, "warning": "collapsed" if seed == 1 else ""}
                record.baselines = {"dev": Baseline("'yes'", {"accuracy": 0.25})}
            (output / record.folder).mkdir(parents=True)
            rows = [f"{i}\tyes\t{'yes' if mark == '1' else 'no'}" for i, mark in enumerate(right)]
            (output / record.folder / "dev.tsv").write_text("\n".join(["index\tgold\tlabel", *rows]) + "\n")
            made.append(record)
    (output / "records.jsonl").write_text("".join(json.dumps(asdict(record)) + "\n" for record in made))
    cells.collect("study", output, tmp_path / "records")
    return tmp_path / "records"


def test_collected_records_name_no_folder_of_the_machine(records: Path) -> None:
    found = cells.read_records("study", records)
    assert [cells.cell_of(record) for record in found[:2]] == ["t,even,kd,1", "t,even,kd,2"]
    assert all(record.config["output"] == f"studies/work/study/{record.folder}" for record in found)
    assert str(records.parent) not in json.dumps([asdict(record) for record in found])
    assert cells.read_right("study", records)["runs/kd_3"] == {"dev": "1111"}


def test_a_contrast_has_its_intervals_over_rows_and_seeds(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = [("kd less finetune", ("even", "kd"), ("even", "finetune")), ("gone", ("even", "kd"), ("last", "kd"))]
    contrasts.main(["study"], named, records)
    told = capsys.readouterr().out
    # Differences by seed 25, 25, 50 (mean 33.3, deviation 14.43); by row 0, 0, 100, 33.3 (deviation 47.14).
    # 4.303 * 14.43 / sqrt(3) = 35.9; 1.96 * 47.14 / 2 = 46.2.
    assert "| kd less finetune | 3 | +33.3 (rows -12.9 to +79.5; seeds -2.5 to +69.2) |" in told
    assert "Not run on t: gone." in told and "| gone |" not in told
    assert "| the most frequent class | - | 25.0 |" in told
    assert "| even, kd | 3 | 6.00 to 2.00 | 5.00 to 1.50 | 2.00 to 0.10 | 1 |" in told
    assert "| even, kd | 3 | 83.3 ± 14.4 |" in told and "| even, finetune | 3 | 50.0 ± 0.0 |" in told


def test_cells_are_listed_and_an_unknown_one_is_refused(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rerun.main("study", "", records) == 0 and rerun.main("study", "t,even,kd,9", records) == 2
    assert "t,even,finetune,2" in capsys.readouterr().out


def test_a_cell_is_run_again_from_its_record_alone(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bench is run, collected and removed; then one cell, its teacher and its cache come again, to the last digit."""
    monkeypatch.chdir(tmp_path)
    tiny.save(Path("base"), tiny.make_model(4, dropout=0.0), tokenizer)
    for name, seed in (("train", 0), ("test", 1)):
        rows = tiny.text_rows(24, seed=seed)
        lines = [f"{row['text']}\tclass {row['label']}" for row in rows]
        Path(f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")
    grid = {
        "name": "small",
        "tasks": {"t": {"train": "train.tsv", "test": ["dev=test.tsv"]}},
        "teacher": {"finetune": "base", "epochs": 1},
        "students": [{"name": "even", "layers": 2}],
        "methods": ["finetune", "kd"],
        "seeds": 1,
        "settings": {"epochs": 1, "bf16": False, "allow_weak_teacher": True},
    }
    Path("small.yaml").write_text(json.dumps(grid), encoding="utf-8")  # JSON is YAML
    output = Path("studies/work/small")
    in_process(tmp_path, "small.yaml", str(output))
    cells.collect("small", output, Path("records"))
    shutil.rmtree(output)
    capsys.readouterr()
    assert rerun.main("small", "t,even,kd,1", Path("records")) == 0
    assert "the same to the last digit" in capsys.readouterr().out
